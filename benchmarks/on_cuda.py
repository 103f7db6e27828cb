"""Every attention path on a GPU, in one go: right, how fast, how much memory; in less than eight minutes.

    python benchmarks/on_cuda.py OUT            a folder for cuda.json and cuda.md
    python benchmarks/on_cuda.py OUT --only check speed
    python benchmarks/on_cuda.py OUT --device cpu --smoke    tries the script itself, with tiny sizes

Each section runs in a process of its own with a limit on its time, so that a crash, even one of the GPU, costs no
more than the rest of its section; within a section a case that fails is written down with its traceback. What has been
measured is on disk after every case. (Not called cuda.py, because torch imports a package of that name.)

    check    each path against the dense oracle in float32: values, fewer rows than keys, gradients
    speed    beside the fastest plain causal attention, all candidates in turn, medians over the rounds
    memory   peak of one call beyond its inputs
    train    a forward and a backward pass, time and memory
    tiles    other tiles for the kernel of the path `fused`, and for FlexAttention
    steps    training thirty small encoders as one stack, replayed and not, beside one after another
    tests    tests/test_flex.py, tests/test_fused.py, tests/test_recorded.py
    command  `lpe-eval speed`
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import stacked
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, linear, scaled_dot_product_attention

from lpe_eval.model import flex_kernels, fused_kernel
from lpe_eval.model.attention import AttentionPath, choose
from lpe_eval.model.attentions import flex, fused
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.registry import ATTENTIONS
from lpe_eval.spec.che_spec import CheProtocol, read_protocol
from lpe_eval.spec.encoding_spec import EncodingSpec

LIMITS = {"check": 110, "speed": 100, "memory": 35, "train": 50, "tiles": 45, "steps": 55, "tests": 60, "command": 20}
"""Seconds of each section, in all less than eight minutes. What is late is left out."""

KERPLE = EncodingSpec(name="kerple_log")
SPECS = {
    **{
        name: EncodingSpec(name=name)
        for name in ("none", "alibi", "kerple_log", "t5", "sandwich", "mep", "fire", "cope")
    },
    "dape 32": EncodingSpec(name="dape", options={"hidden": 32}, base=KERPLE),
    "dape 8": EncodingSpec(name="dape", options={"hidden": 8}, base=KERPLE),
    "dape alibi": EncodingSpec(name="dape", options={"hidden": 32}, base=EncodingSpec(name="alibi")),
    "dape none": EncodingSpec(name="dape", options={"hidden": 32}, base=EncodingSpec(name="none")),
    "dape_v2": EncodingSpec(name="dape_v2", base=KERPLE),
}

FAILURES: tuple[type[BaseException], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
)
if fused_kernel.triton is not None:
    FAILURES = (*FAILURES, fused_kernel.triton.errors.TritonError)


class Setting:
    """Where to run, how large, and where the results go."""

    def __init__(self, flags: argparse.Namespace, section: str) -> None:
        self.device, self.smoke, self.section = torch.device(flags.device), flags.smoke, section
        self.file = flags.out / f"{section}.json"
        self.ends = time.monotonic() + LIMITS[section] - 4
        self.heads, self.width = (3, 16) if self.smoke else (12, 64)
        self.lengths = [128, 256] if self.smoke else [1024, 2048, 4096, 8192, 16384]
        self.dtype = torch.float32 if self.smoke else torch.bfloat16
        self.rows: list[dict[str, Any]] = []
        self.stopped = False

    def case(self, **facts: Any) -> "Case":
        """One measurement, guarded."""
        return Case(self, facts)

    def late(self) -> bool:
        """Whether the section's time is nearly up; noted once."""
        up = time.monotonic() > self.ends
        if up and not self.stopped:
            self.stopped = True
            with self.case(status="time is up, the rest is left out"):
                pass
        return up


class Case:
    """Writes down what a measurement gave, or why it gave nothing."""

    def __init__(self, setting: Setting, facts: dict[str, Any]) -> None:
        self.setting, self.facts = setting, facts

    def __enter__(self) -> dict[str, Any]:
        self.began = time.monotonic()
        return self.facts

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is not None:
            self.facts["status"] = "out of memory" if isinstance(error, torch.OutOfMemoryError) else "failed"
            self.facts["traceback"] = "".join(traceback.format_exception(error))[-4000:]
        self.facts.setdefault("status", "ok")
        self.facts["took_seconds"] = round(time.monotonic() - self.began, 2)
        self.setting.rows.append(self.facts)
        self.setting.file.write_text(json.dumps(self.setting.rows, indent=1))
        where = " ".join(str(value) for key, value in self.facts.items() if key not in ("traceback", "tail"))
        print(f"{self.setting.section}: {where}", flush=True)
        if error is not None and self.setting.device.type == "cuda":
            torch.cuda.empty_cache()
        return error is not None and isinstance(error, FAILURES)


def built(name: str, setting: Setting, causal: bool = True, train_length: int = 512) -> Encoding:
    """One encoding with drawn parameters."""
    geometry = Geometry(setting.heads, setting.width, setting.heads * setting.width, train_length, causal)
    encodings = build_encodings(SPECS[name], geometry, 1)
    initialise(encodings, torch.Generator().manual_seed(3))
    return encodings[0].to(setting.device)


def inputs(setting: Setting, length: int, dtype: torch.dtype, rows: int | None = None, batch: int = 1) -> list[Tensor]:
    """Queries, keys and values."""
    draw = torch.Generator(setting.device).manual_seed(length)
    shape = (setting.heads, length, setting.width)
    q, k, v = (
        torch.randn(batch, *shape, generator=draw, device=setting.device, dtype=torch.float32).to(dtype)
        for _ in range(3)
    )
    return [q[:, :, length - (rows or length) :].contiguous(), k, v]


def wait(setting: Setting) -> None:
    """Until the device has done what it was given."""
    if setting.device.type == "cuda":
        torch.cuda.synchronize()


def check(setting: Setting) -> None:
    """Values and gradients against the dense path in float32."""
    short = torch.bfloat16
    full = [(1, 512, 512), (1, 300, 300), (1, 130, 300), (2, 384, 384), (1, 1, 1), (1, 7, 45)]
    plans: list[tuple[str, torch.dtype, bool, list[tuple[int, int, int]]]] = []
    for name in ("dape 32", "alibi", "fire"):
        plans += [(name, short, True, full), (name, torch.float32, True, full[1:3])]
        plans += [(name, short, False, full[:3]), (name, torch.float32, False, full[1:2])]
    for name in ("dape 8", "dape alibi", "dape none", "kerple_log", "t5", "sandwich", "mep", "none", "dape_v2", "cope"):
        plans += [(name, short, True, full[:2]), (name, torch.float32, True, full[1:2])]
    for name, dtype, causal, sizes in plans:
        encoding = built(name, setting, causal, train_length=64)
        for batch, rows, length in sizes:
            if setting.late():
                return
            facts = {"encoding": name, "dtype": str(dtype)[6:], "causal": causal, "size": [batch, rows, length]}
            with setting.case(**facts) as result, torch.no_grad():
                result["path"], path = choose("auto", encoding, setting.device)
                q, k, v = inputs(setting, length, dtype, rows, batch)
                at = torch.arange(length, device=setting.device)
                ours = path.attend(q, k, v, encoding, at, causal).float()
                wanted = Dense.attend(q.float(), k.float(), v.float(), encoding, at, causal)
                compare(result, "values", ours, wanted, 1e-2 if dtype == short else 1e-5)
    for name, dtype in (
        ("alibi", short),
        ("kerple_log", short),
        ("kerple_log", torch.float32),
        ("dape 32", short),
        ("fire", short),
    ):
        if setting.late():
            return
        with setting.case(encoding=name, dtype=str(dtype)[6:], causal=True, size=[1, 512, 512]) as result:
            encoding = built(name, setting, train_length=64)
            result["path"], path = choose("auto", encoding, setting.device)
            drawn = inputs(setting, 512, dtype)
            ours = gradients(path, drawn, encoding)
            wanted = gradients(Dense, [each.float() for each in drawn], encoding)
            # A gradient that is zero but for rounding has no relative error of its own.
            floor = max(each.abs().max().item() for each in wanted) * 1e-2
            for label, mine, other in zip(("q", "k", "v", *names_of(encoding)), ours, wanted, strict=True):
                compare(result, f"d {label}", mine, other, 5e-2 if dtype == short else 1e-4, floor)


def names_of(encoding: Encoding) -> list[str]:
    """The learned parameters."""
    return [name for name, _ in encoding.named_parameters()]


def gradients(path: type[AttentionPath], drawn: list[Tensor], encoding: Encoding) -> list[Tensor]:
    """Of a weighted sum of the context, by queries, keys, values and parameters."""
    q, k, v = (each.detach().requires_grad_() for each in drawn)
    context = path.attend(q, k, v, encoding, torch.arange(k.shape[2], device=k.device), True)
    weights = torch.randn(context.shape, generator=torch.Generator().manual_seed(1)).to(context.device)
    found = torch.autograd.grad((context.float() * weights).sum(), [q, k, v, *encoding.parameters()], allow_unused=True)
    return [torch.zeros(()) if each is None else each.float() for each in found]


def compare(
    result: dict[str, Any], what: str, ours: Tensor, wanted: Tensor, allowed: float, floor: float = 0.0
) -> None:
    """Notes the relative error in the norm, the largest error, and whether the former is allowed."""
    error = ours.to(wanted.device) - wanted
    relative = error.norm().item() / max(wanted.norm().item(), floor * wanted.numel() ** 0.5, 1e-30)
    result.setdefault("errors", {})[what] = {"relative": relative, "largest": error.abs().max().item()}
    if not relative <= allowed:
        result["status"] = "wrong"


def as_published(q: Tensor, k: Tensor, v: Tensor, encoding: Encoding) -> Tensor:
    """The papers' formula in the model's dtype, with every matrix whole."""
    length, at = q.shape[2], torch.arange(q.shape[2], device=q.device)
    network = encoding.pair_network()
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    bias = encoding.bias(at, at)
    assert bias is not None
    bias = bias.to(q.dtype)[None]
    future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    if network is not None:
        first, first_bias, second, second_bias = (each.to(q.dtype) for each in network[:4])
        both = torch.cat([logits, bias.expand_as(logits)], dim=1)
        hidden = leaky_relu(linear(both.permute(0, 2, 3, 1), first, first_bias), network.leak)
        logits = logits + linear(hidden, second, second_bias).permute(0, 3, 1, 2)
    return (logits + bias).masked_fill(future, float("-inf")).softmax(-1) @ v


Run = Callable[[list[Tensor]], Tensor]


def candidates(setting: Setting) -> Iterator[tuple[str, str, Run]]:
    """Plain attention by each of PyTorch's kernels, then the encodings by path."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = {"default": None}
    if setting.device.type == "cuda":
        backends |= {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
    for name, backend in backends.items():

        def plain(drawn: list[Tensor], backend: SDPBackend | None = backend) -> Tensor:
            if backend is None:
                return scaled_dot_product_attention(*drawn, is_causal=True)
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(*drawn, is_causal=True)

        yield "plain", name, plain
    wanted_paths = [
        (name, "auto") for name in ("alibi", "kerple_log", "t5", "fire", "dape 32", "dape 8", "dape_v2", "cope")
    ]
    for name, wanted in [*wanted_paths, ("alibi", "blocked"), ("fire", "blocked"), ("dape 32", "blocked")]:
        encoding = built(name, setting)
        label, path = choose(wanted, encoding, setting.device)

        def ours(drawn: list[Tensor], encoding: Encoding = encoding, path: type[AttentionPath] = path) -> Tensor:
            return path.attend(*drawn, encoding, torch.arange(drawn[1].shape[2], device=drawn[1].device), True)

        yield name, label, ours
    for name in ("alibi", "fire", "dape 32"):
        encoding = built(name, setting)
        yield name, "as published", lambda drawn, encoding=encoding: as_published(*drawn, encoding)


def seconds_of(run: Callable[[], object], setting: Setting, repeat: int) -> float:
    """Seconds of one of `repeat` calls in a row."""
    wait(setting)
    if setting.device.type != "cuda":
        began = time.perf_counter()
        for _ in range(repeat):
            run()
        return (time.perf_counter() - began) / repeat
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeat):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / repeat


def in_turn(setting: Setting, group: dict[str, Any], runs: dict[tuple[str, str], Callable[[], object]]) -> None:
    """Times all candidates in turn; the unit of each round is its fastest plain attention."""
    repeat: dict[tuple[str, str], int] = {}
    for key, run in runs.items():
        if setting.late():
            return
        try:
            run()  # compiles
            took = seconds_of(run, setting, 1)
            repeat[key] = max(1, min(20, round(0.004 / took)))
        except FAILURES as error:
            # Only the case that writes a failure down can see it.
            with setting.case(**group, encoding=key[0], path=key[1]):
                raise error
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in repeat}
    for _ in range(3 if setting.smoke else 7):
        if setting.late() and all(len(each) >= 5 for each in seconds.values()):
            break
        for key, count in repeat.items():
            seconds[key].append(seconds_of(runs[key], setting, count))
    plain = [each for key, each in seconds.items() if key[0] == "plain"]
    unit = [min(each) for each in zip(*plain, strict=True)]
    for key, each in seconds.items():
        with setting.case(**group, encoding=key[0], path=key[1]) as result:
            result["milliseconds"] = statistics.median(each) * 1000
            result["spread"] = [min(each) * 1000, max(each) * 1000]
            result["times_plain"] = statistics.median(own / one for own, one in zip(each, unit, strict=True))


def speed(setting: Setting) -> None:
    """A call without gradients beside plain causal attention; the longest length first, being the one that counts."""
    found = list(candidates(setting))
    with torch.no_grad():
        for length in reversed(setting.lengths):
            if setting.late():
                return
            drawn = inputs(setting, length, setting.dtype)
            runs = {(name, path): lambda run=run, drawn=drawn: run(drawn) for name, path, run in found}
            in_turn(setting, {"length": length}, runs)


def peak(run: Callable[[], object], setting: Setting) -> float:
    """MiB of one call beyond what was held before."""
    run()
    wait(setting)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    wait(setting)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def memory(setting: Setting) -> None:
    """Peak memory of one call at each length."""
    if setting.device.type != "cuda":
        return
    found = [each for each in candidates(setting) if each[0] not in ("t5", "dape 8")]
    with torch.no_grad():
        for name, path, run in found:
            for length in setting.lengths:
                if setting.late():
                    return
                drawn = inputs(setting, length, setting.dtype)
                with setting.case(encoding=name, path=path, length=length) as result:
                    result["mebibytes"] = peak(lambda run=run, drawn=drawn: run(drawn), setting)


def train(setting: Setting) -> None:
    """A forward and a backward pass, its time beside plain attention's and its peak memory."""
    wanted = [("alibi", "auto"), ("kerple_log", "auto"), ("fire", "auto"), ("dape 32", "auto")]
    wanted += [(name, path) for name in ("kerple_log", "dape 32") for path in ("blocked", "checkpointed")]
    for length in (512, 4096, 16384) if not setting.smoke else (128,):
        if setting.late():
            return
        drawn = [each.requires_grad_() for each in inputs(setting, length, setting.dtype)]

        def plain(drawn: list[Tensor] = drawn) -> None:
            scaled_dot_product_attention(*drawn, is_causal=True).float().sum().backward()

        runs: dict[tuple[str, str], Callable[[], object]] = {("plain", "default"): plain}
        for name, path in wanted:
            encoding = built(name, setting)
            label, member = choose(path, encoding, setting.device)
            if (name, label) not in runs:
                runs[name, label] = backward_of(member, drawn, encoding)
        in_turn(setting, {"length": length}, runs)
        if setting.device.type == "cuda":
            for (name, label), run in runs.items():
                if setting.late():
                    return
                with setting.case(length=length, encoding=name, path=label) as result:
                    result["mebibytes"] = peak(run, setting)


def backward_of(path: type[AttentionPath], drawn: list[Tensor], encoding: Encoding) -> Callable[[], object]:
    """A forward and a backward pass."""
    at = torch.arange(drawn[1].shape[2], device=drawn[1].device)
    return lambda: path.attend(*drawn, encoding, at, True).float().sum().backward()


def tiles(setting: Setting) -> None:
    """Other tiles for DAPE's kernel, and for FlexAttention's."""
    if setting.device.type != "cuda":
        return
    length = setting.lengths[-1]
    drawn, at = inputs(setting, length, setting.dtype), torch.arange(length, device=setting.device)
    with torch.no_grad():
        encoding = built("dape 32", setting)
        own = fused_kernel.tile(setting.heads, setting.width, 32)
        assert own is not None
        others = [(16, 16, 8, 1), (16, 32, 8, 1), (32, 16, 16, 1), (16, 16, 16, 1), (16, 16, 16, 2), (16, 16, 8, 2)]
        for shape in [*others, (16, 32, 16, 1), (32, 16, 8, 1), (32, 32, 16, 1), (16, 16, 4, 1)]:
            if setting.late():
                return
            with setting.case(path="fused", tile=shape) as result:
                fused_kernel.tile = lambda *_, shape=shape: type(own)(*shape)
                result["milliseconds"] = several(lambda: fused.Fused.attend(*drawn, encoding, at, True), setting)
        for name, tile in (("alibi", (128, 64, 8, 2)), ("alibi", (128, 128, 8, 2)), ("alibi", (64, 64, 4, 2)),
                           ("fire", (128, 64, 8, 2)), ("fire", (128, 32, 8, 1)), ("fire", (64, 32, 4, 2))):  # fmt: skip
            if setting.late():
                return
            with setting.case(path="flex", encoding=name, tile=tile) as result:
                encoding = built(name, setting)
                names = ("fwd_BLOCK_M", "fwd_BLOCK_N", "fwd_num_warps", "fwd_num_stages")
                options = {"FORCE_USE_FLEX_ATTENTION": True, **dict(zip(names, tile, strict=True))}
                flex_kernels.options = lambda _, even, options=options: {**options, "IS_DIVISIBLE": even}
                flex_kernels.compiled.cache_clear()
                torch._dynamo.reset()
                result["milliseconds"] = several(partial(flex.Flex.attend, *drawn, encoding, at, True), setting)


def several(run: Callable[[], object], setting: Setting) -> float:
    """The median of five, after one that compiles."""
    run()
    return statistics.median(seconds_of(run, setting, 1) for _ in range(5)) * 1000


def steps(setting: Setting) -> None:
    """A step of the protocol `deepmind`, all runs of it; see `stacked.py`."""
    changes = {"layers": 1, "batch": 4, "seeds": [0]} if setting.smoke else {}
    protocol = CheProtocol.model_validate({**read_protocol("deepmind").model_dump(), **changes})
    for encoding in ("none", "rope", "kerple_log", "dape(kerple_log)"):
        for length in (5,) if setting.smoke else (10, 40):
            if setting.late():
                return
            with setting.case(encoding=encoding, length=length, runs=len(protocol.runs)) as result:
                made = stacked.candidates(EncodingSpec.parse(encoding), length, protocol, setting.device)
                result["milliseconds"] = stacked.medians(made, 3, setting.device, time.perf_counter)
                result["why_not_replayed"] = made["stack"]()


def tests(setting: Setting) -> None:
    """The tests of what needs the GPU."""
    for name in ("test_recorded.py", "test_fused.py", "test_flex.py"):
        command = [sys.executable, "-m", "pytest", f"tests/{name}", "-q", "--show-capture=no", "--tb=short"]
        command += {"test_flex.py": ["-k", "cuda"], "test_recorded.py": ["-k", "replay or recorded"]}.get(name, [])
        program(setting, command, {"file": name})


def command(setting: Setting) -> None:
    """`lpe-eval speed` for one length."""
    wanted = ["--encoding", "alibi,dape(kerple_log)", "--lengths", "4096", "--mode", "forward", "--width", "768"]
    wanted += ["--heads", "12", "--layers", "2", "--batch-tokens", "4096", "--device", setting.device.type]
    out = str(setting.file.parent / "speed")
    program(setting, [sys.executable, "-m", "lpe_eval", "speed", *wanted, "--out", out, "--overwrite"], {})


def program(setting: Setting, command: list[str], facts: dict[str, Any]) -> None:
    """Runs another program and keeps the end of what it said."""
    with setting.case(**facts) as result:
        left = max(5.0, setting.ends - time.monotonic())
        ended = subprocess.run(
            ["timeout", str(round(left)), *command], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        result["tail"] = ended.stdout.decode(errors="replace")[-6000:]
        result["status"] = "ok" if ended.returncode == 0 else f"exit code {ended.returncode}"


SECTIONS = {
    "check": check,
    "speed": speed,
    "memory": memory,
    "train": train,
    "tiles": tiles,
    "steps": steps,
    "tests": tests,
    "command": command,
}


def environment(device: torch.device) -> dict[str, Any]:
    """What the figures depend on."""
    facts = {"torch": torch.__version__, "python": sys.version.split()[0], "date": time.strftime("%Y-%m-%d %H:%M")}
    facts["triton"] = fused_kernel.triton.__version__ if fused_kernel.triton else None
    facts["paths"] = list(ATTENTIONS.names())
    if device.type == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(), "capability": torch.cuda.get_device_capability()}
        facts["memory"] = torch.cuda.get_device_properties(0).total_memory
    return facts


def markdown(whole: dict[str, Any]) -> str:
    """The tables of all sections."""
    lines = ["# Attention on a GPU", "", "```", json.dumps(whole["environment"]), "```", ""]
    for section, part in whole["sections"].items():
        lines += [f"## {section}: exit code {part['exit_code']}, {part['seconds']:.0f} s", ""]
        columns = list(dict.fromkeys(key for row in part["rows"] for key in row if key not in ("traceback", "tail")))
        lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(shown(row.get(column, '')) for column in columns)} |" for row in part["rows"]]
        lines += [
            "",
            *(
                f"    {row.get('traceback', '').strip().splitlines()[-1]}"
                for row in part["rows"]
                if row.get("traceback")
            ),
            "",
        ]
        lines += [part["tail"]] if part["exit_code"] else []
    return "\n".join(lines) + "\n"


def shown(value: object) -> str:
    """A number with four digits; anything else as it is."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return " ".join(shown(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Runs the sections one after the other and gathers what they wrote."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    if flags.section:
        SECTIONS[flags.section](Setting(flags, flags.section))
        return
    whole = {"environment": environment(torch.device(flags.device)), "sections": {}}
    for section in flags.only:
        file, started = flags.out / f"{section}.json", time.monotonic()
        file.unlink(missing_ok=True)
        again = [sys.executable, __file__, str(flags.out), "--section", section, "--device", flags.device]
        again = ["timeout", "-k", "5", str(LIMITS[section]), *again, *(["--smoke"] if flags.smoke else [])]
        paths = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")]))
        log = flags.out / f"{section}.log"
        with log.open("wb") as text:
            ended = subprocess.run(
                again, check=False, stdout=text, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": paths}
            )
        whole["sections"][section] = {
            "exit_code": ended.returncode,
            "seconds": time.monotonic() - started,
            "rows": json.loads(file.read_text()) if file.exists() else [],
            "tail": log.read_text(errors="replace")[-4000:],
        }
        (flags.out / "cuda.json").write_text(json.dumps(whole, indent=1))
        (flags.out / "cuda.md").write_text(markdown(whole))
        print(f"{section}: exit code {ended.returncode} after {time.monotonic() - started:.0f} s", flush=True)
    print((flags.out / "cuda.md").read_text())


if __name__ == "__main__":
    main()
