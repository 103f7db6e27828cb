"""The CUDA code compiled ahead of time for cards that are not here: what fits, what it needs, which path is taken.

    PYTHONPATH=. python benchmarks/compiled_ahead.py            Markdown tables; --json FILE keeps the rows
    PYTHONPATH=. python benchmarks/compiled_ahead.py --capability 90 --what kernels       one card, a JSON line each

Needs Triton beside PyTorch (the build for CPUs will do) and a C++ compiler. FlexAttention's code is what PyTorch's
compiler writes for a pretended card; ptxas, which comes with Triton, tells registers and spills. Each card has a
process of its own, because what is pretended stays.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from without_gpu.pretended import CARDS, FAST_MEMORY, pretend

FUSED = ((4, 32, 32), (12, 64, 32), (12, 64, 64), (32, 64, 32))
"""Heads, their width, hidden units; the released models have the first."""
FLEX = (("alibi", 4, 32), ("alibi", 12, 64), ("alibi", 12, 128), ("fire", 4, 32), ("fire", 12, 64))
LEARNED = (("kerple_log", 12, 64),)
TYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def kernels(capability: int, quick: bool) -> Iterator[dict[str, Any]]:
    """A row for each kernel of a card."""
    from without_gpu import compiled, flex_code

    from lpe_eval.model import fused_kernel

    memory = FAST_MEMORY[capability]
    for name, dtype in TYPES.items():
        for heads, width, hidden in FUSED[: 2 if quick else None] if capability >= 80 else ():
            size = fused_kernel.tile(heads, width, hidden, dtype, memory)
            facts = {"path": "fused", "shape": f"{heads} x {width}, {hidden} hidden", "dtype": name}
            if size is None:
                yield {"capability": capability, **facts, "kernel": "none: blocked", "fits": True}
                continue
            reserved = fused_kernel.RESERVED if memory > 200 << 10 else 0
            told = size.shared_bytes(heads, width, dtype.itemsize) + reserved
            for number, each in enumerate(compiled.fused(capability, heads, width, hidden, dtype, size)):
                pairs = size.rows * size.keys if number == 0 else fused_kernel._ROWS * size.keys / heads
                more = {"tile": f"{size.rows} x {size.keys}", "estimated_kib": told / 1024 if number == 0 else None}
                warps = size.warps if number == 0 else fused_kernel._WARPS
                yield row(capability, facts, each, memory) | more | {"per_pair": each.loop * warps / pairs}
        uses = [(*each, False) for each in FLEX] + [(*each, True) for each in LEARNED]
        for encoding, heads, width, train in uses[:: 2 if quick else 1] if capability >= 80 else ():
            shape = f"{encoding}, {heads} x {width}{', training' if train else ''}"
            for code in flex_code.code_of(encoding, heads, width, dtype, train):
                for each in compiled.kernels_in(code, capability):
                    facts = {"path": "flex", "shape": shape, "dtype": name}
                    yield row(capability, facts, each, memory)


def row(capability: int, facts: dict[str, str], kernel: Any, memory: int) -> dict[str, Any]:
    """What a kernel needs, beside what the card has."""
    short = "backward" if "backward" in kernel.name else kernel.name
    return {
        "capability": capability, **facts, "kernel": "forward" if short.startswith("triton_") else short,
        "fits": kernel.shared <= memory, "shared_kib": kernel.shared / 1024, "of_kib": memory / 1024,
        "registers": kernel.registers, "spilled": kernel.spilled, "loop": kernel.loop,
    }  # fmt: skip


def models(capability: int, quick: bool) -> Iterator[dict[str, Any]]:
    """A row for each released model on a card."""
    from without_gpu.released import paths_of

    yield from paths_of(capability)


def here(capability: int, what: str, quick: bool) -> None:
    """Prints the rows of one card."""
    pretend(capability)
    for each in {"kernels": kernels, "models": models}[what](capability, quick):
        print("ROW", json.dumps(each), flush=True)


def rows_of(capability: int, what: str, quick: bool) -> list[dict[str, Any]]:
    """The rows of one card, from a process of its own."""
    command = [sys.executable, __file__, "--capability", str(capability), "--what", what, *(["--quick"] * quick)]
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")]))
    settings = {"PYTHONPATH": paths, "TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"}
    done = subprocess.run(command, env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line[4:]) for line in done.stdout.splitlines() if line.startswith("ROW ")]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    columns = list(dict.fromkeys(key for each in rows for key in each))
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    shown = [[f"{each.get(key, ''):.4g}" if isinstance(each.get(key), float) else each.get(key, "") for key in columns]
             for each in rows]  # fmt: skip
    return "\n".join([*lines, *(f"| {' | '.join(map(str, each))} |" for each in shown)])


def main() -> None:
    """Compiles for every card, or for one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, choices=FAST_MEMORY)
    parser.add_argument("--what", choices=("kernels", "models"), default="kernels")
    parser.add_argument("--quick", action="store_true", help="fewer shapes")
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    if flags.capability:
        here(flags.capability, flags.what, flags.quick)
        return
    found = [each for capability in FAST_MEMORY for each in rows_of(capability, "kernels", flags.quick)]
    print(table(found))
    taken = [each for capability in CARDS.values() for each in rows_of(capability, "models", flags.quick)]
    print(f"\n{table(taken)}")
    if flags.json:
        flags.json.write_text(json.dumps({"kernels": found, "models": taken}, indent=1))


if __name__ == "__main__":
    main()
