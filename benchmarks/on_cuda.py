"""Everything that only a GPU can tell, in one go of 560 seconds at most, what makes most certain first.

    python benchmarks/on_cuda.py OUT                     everything; OUT must not exist or hold an earlier start
    python benchmarks/on_cuda.py OUT --only facts correct
    python benchmarks/on_cuda.py OUT --device cpu --smoke      tries the code of every step on a CPU, with tiny sizes

Each step is a process with a limit on its time, so that a crash, even one of the GPU, costs no more than the rest of
its step. Each result is a line of OUT/results.jsonl as soon as there is one. At the end OUT/summary.md says pass or
fail, a line a case, and OUT/on_cuda.tar.gz holds all of it. (Not called cuda.py, because torch imports a package of
that name.)

    facts      versions, the card, a tiny call of each path, while ten processes fill the kernel caches
    product    `lpe-eval ppl` of four models in float32 and bfloat16 beside rows computed on a CPU
    recording  training steps replayed
    correct    DAPE, ALiBi and FIRE against the dense oracle in float32
    gradients  the same of gradients, learned rows of values first
    others     all other encodings, and both directions
    speed      at 16,384 tokens beside the fastest plain causal attention, all in turn
    speeds     at shorter lengths
    train      a forward and a backward pass, time and memory
    tiles      other tiles for the kernels
    steps      training thirty small encoders as one stack, replayed and not, beside one after another
    memory     peak of one call beyond its inputs
    tests      `lpe-eval speed`, and what else the tests have for a GPU
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import torch
from cuda_sections.check import first_values, gradients, other_values
from cuda_sections.facts import facts, warm
from cuda_sections.programs import other_tests, product, recording
from cuda_sections.setting import Setting
from cuda_sections.steps import steps
from cuda_sections.tiles import tiles
from cuda_sections.timing import memory, speed_long, speed_others, train

IN_ALL = 560
"""Seconds."""

STEPS = {
    "facts": (40, facts),
    "product": (75, product),
    "recording": (50, recording),
    "correct": (40, first_values),
    "gradients": (35, gradients),
    "others": (45, other_values),
    "speed": (60, speed_long),
    "speeds": (35, speed_others),
    "train": (40, train),
    "tiles": (30, tiles),
    "steps": (45, steps),
    "memory": (20, memory),
    "tests": (45, other_tests),
}


def results(out: Path) -> list[dict[str, Any]]:
    """What has been written down; a line that was cut off by a crash is left out."""
    found = []
    for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines() if out.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def summary(rows: list[dict[str, Any]], ended: dict[str, tuple[int, float]]) -> str:
    """A line a case: pass, fail or left out; then how each step ended."""
    words = {"ok": "pass", "failed": "FAIL", "left out": "left out", "out of memory": "FAIL"}
    lines = ["# What a GPU told", ""]
    for row in rows:
        what = {key: value for key, value in row.items() if key not in ("step", "status", "traceback", "tail", "why")}
        last = row.get("traceback", "").strip().splitlines()[-1:]
        why = row.get("why") or (last[0][:200] if last else "")
        lines.append(f"- {words[row['status']]} {row['step']}: {shown(what)}{f' - {why}' if why else ''}")
    lines.append("")
    for step, (code, seconds) in ended.items():
        told = "ended" if code == 0 else "its time was up" if code in (124, 137) else f"FAIL: exit code {code}"
        lines.append(f"- {step}: {told} after {seconds:.0f} s")
    counts = {word: sum(words[row["status"]] == word for row in rows) for word in dict.fromkeys(words.values())}
    crashed = [step for step, (code, _) in ended.items() if code not in (0, 124, 137)]
    counted = ", ".join(f"{count} {word}" for word, count in counts.items())
    return "\n".join([*lines, "", f"{counted}; {f'crashed: {crashed}' if crashed else 'nothing crashed'}"]) + "\n"


def shown(value: object) -> str:
    """A number with four digits; anything else as it is."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(each)}" for key, each in value.items() if each not in ("", None))
    if isinstance(value, list | tuple):
        return " ".join(shown(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Runs the steps one after the other, and writes the summary after each."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--in-all", type=float, default=IN_ALL, help="seconds")
    parser.add_argument("--step", choices=(*STEPS, "warm"), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60, help=argparse.SUPPRESS)
    parser.add_argument("--warm", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    flags.out = flags.out.absolute()
    flags.out.mkdir(parents=True, exist_ok=True)
    if flags.step == "warm":
        warm(Setting(flags, flags.step), flags.warm)
        return
    if flags.step:
        STEPS[flags.step][1](Setting(flags, flags.step))
        return
    (flags.out / "results.jsonl").write_text("", encoding="utf-8")
    ended: dict[str, tuple[int, float]] = {}
    caches = {name: str(flags.out / "caches" / name) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
    root = Path(__file__).parent.parent
    paths = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    for step in flags.only:
        left = flags.in_all - (time.monotonic() - began) - 10
        if left < 10:
            break
        limit, started = min(STEPS[step][0], left), time.monotonic()
        again = [sys.executable, __file__, str(flags.out), "--step", step, "--device", flags.device]
        again += ["--seconds", str(limit), *(["--smoke"] if flags.smoke else [])]
        with (flags.out / f"{step}.log").open("wb") as text:
            done = subprocess.run(
                ["timeout", "-k", "5", str(round(limit)), *again],
                check=False,
                cwd=root,
                stdout=text,
                stderr=subprocess.STDOUT,
                env={**os.environ, **caches, "PYTHONPATH": paths},
            )
        ended[step] = done.returncode, time.monotonic() - started
        (flags.out / "summary.md").write_text(summary(results(flags.out), ended), encoding="utf-8")
        print(f"{step}: exit code {done.returncode} after {ended[step][1]:.0f} s", flush=True)
    with tarfile.open(flags.out / "on_cuda.tar.gz", "w:gz") as archive:
        for each in sorted(flags.out.iterdir()):
            if each.name not in ("caches", "on_cuda.tar.gz"):
                archive.add(each, each.name)
    print((flags.out / "summary.md").read_text(encoding="utf-8"))
    print(f"{flags.out / 'on_cuda.tar.gz'} after {time.monotonic() - began:.0f} s, torch {torch.__version__}")


if __name__ == "__main__":
    main()
