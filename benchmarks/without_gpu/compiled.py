"""Triton kernels compiled for a card that is not there, and what they need of it."""

import re
import subprocess
import tempfile
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lpe_eval.model import fused_kernel, fused_triton
from lpe_eval.model.fused_kernel import Tile, padded

_TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
_POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}


class Kernel(NamedTuple):
    """What one kernel needs: bytes of fast memory, registers of a thread, bytes spilled, instructions of its loop."""

    name: str
    shared: int
    registers: int
    spilled: int
    loop: int


def compiled(source: ASTSource, capability: int, warps: int, stages: int) -> Kernel:
    """One kernel through Triton and ptxas."""
    made: Any = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps, "num_stages": stages}
    )
    ptx = made.asm["ptx"]
    architecture = re.search(r"\.target\s+(\w+)", ptx)
    assert architecture is not None
    with tempfile.TemporaryDirectory() as place:
        text, binary = Path(place, "kernel.ptx"), Path(place, "kernel.cubin")
        text.write_text(ptx)
        said = ""
        for assembler in ("ptxas", "ptxas-blackwell"):
            if (_TOOLS / assembler).exists():
                command = [_TOOLS / assembler, "-v", f"--gpu-name={architecture[1]}", text, "-o", binary]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                said = done.stderr
                if done.returncode == 0:
                    break
        dumped = subprocess.run([_TOOLS / "cuobjdump", "-sass", binary], capture_output=True, text=True, check=True)
    registers, spilled = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill stores", said)
    assert registers is not None and spilled is not None, said
    name = source.fn.__name__
    return Kernel(name, made.metadata.shared, int(registers[1]), int(spilled[1]), loop_length(dumped.stdout))


def loop_length(assembly: str) -> int:
    """Instructions of the longest loop: from the target of a backward branch to the branch."""
    found = re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(?:@!?U?P\w+ )?([A-Z0-9_.]+)([^;]*);", assembly)
    places = [int(each[0], 16) for each in found]
    longest = 0
    for number, (_, operation, rest) in enumerate(found):
        target = re.search(r"0x([0-9a-f]+)", rest) if operation.startswith("BRA") else None
        if target and int(target[1], 16) < places[number] and int(target[1], 16) in places:
            longest = max(longest, number - places.index(int(target[1], 16)) + 1)
    return longest


def source_of(function: Any, types_of: Mapping[str, str], fixed: Mapping[str, Any], even: set[str]) -> ASTSource:
    """A kernel with types for its arguments, constants, and which whole numbers are multiples of 16."""
    made = triton.jit(function)
    names = made.arg_names
    signature = {name: "constexpr" if name in fixed else types_of.get(name, "i32") for name in names}
    known = {
        (number,): [["tt.divisibility", 16]]
        for number, name in enumerate(names)
        if signature[name].startswith("*") or name in even
    }
    constants = {(names.index(name),): value for name, value in fixed.items()}
    return ASTSource(made, signature, constants, known)


def fused(
    capability: int, heads: int, width: int, hidden: int, dtype: torch.dtype, size: Tile, causal: bool = True
) -> list[Kernel]:
    """Both kernels of the path `fused` for a shape and a tile, as `fused_kernel.launch` calls them."""
    precision = "tf32x3" if dtype == torch.float32 else "tf32"
    fixed = {"causal": causal, "all_width": padded(width), "block_keys": size.keys, "precision": precision}
    first = {
        **fixed, "all_heads": padded(heads), "all_units": padded(hidden), "block_rows": size.rows,
        "group": min(size.units, padded(hidden)),
    }  # fmt: skip
    of_network = "*fp32" if dtype == torch.float32 else "*fp16"
    short = dict.fromkeys(("queries", "all_keys", "weights", "values", "out"), _POINTERS[dtype])
    short |= dict.fromkeys(("to_hidden", "from_hidden"), of_network)
    short |= dict.fromkeys(("inside", "outside", "peaks", "factors"), "*fp32")
    short |= dict.fromkeys(("into_network", "scale", "leak"), "fp32")
    even = {f"{tensor}_{axis}" for tensor in ("q", "k", "v", "w", "out") for axis in ("text", "head", "row")}
    even = even if width % 16 == 0 else {"w_text", "w_head", "w_row"}
    even |= {"per_program", *(["width"] if width % 16 == 0 else [])}
    second = {**fixed, "block_rows": fused_kernel._ROWS}
    return [
        compiled(source_of(fused_triton.weigh_pairs, short, first, even), capability, size.warps, 1),
        compiled(source_of(fused_triton.add_values, short, second, even), capability, fused_kernel._WARPS, 2),
    ]


def kernels_in(code: str, capability: int) -> Iterator[Kernel]:
    """The attention kernels in a module that PyTorch's compiler has written."""
    from torch._inductor.runtime.hints import DeviceProperties

    for name, text in re.findall(r"async_compile\.triton\('(\w+)', '''(.*?)'''", code, re.DOTALL):
        if "tem" not in name:
            continue
        head = re.search(r"@triton_heuristics\.\w+\((.*?)\n\)\n@triton\.jit", text, re.DOTALL)
        assert head is not None
        meta = re.search(r"triton_meta=(\{.*?\}),\n\s*inductor_meta", head[1], re.DOTALL)
        stages, warps = (re.search(rf"{each}=(\d+)", head[1]) for each in ("num_stages", "num_warps"))
        assert meta is not None and stages is not None and warps is not None
        with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
            file.write(text[: head.start()] + "@triton.jit" + text[head.end() :])
        module = types.ModuleType(name)
        module.__file__ = file.name
        exec(compile(Path(file.name).read_text(), file.name, "exec"), module.__dict__)
        facts = eval(meta[1], {"DeviceProperties": DeviceProperties})
        function = getattr(module, name)
        names = function.arg_names
        constants = {
            (names.index(key),) if isinstance(key, str) else key: value for key, value in facts["constants"].items()
        }
        known = facts["configs"][0] if isinstance(facts["configs"][0], dict) else {}
        source = ASTSource(function, dict(facts["signature"]), constants, known)
        yield compiled(source, capability, int(warps[1]), int(stages[1]))
