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
    tests    tests/attentions/test_flex.py, tests/attentions/test_fused.py, tests/train/test_recorded.py
    command  `lpe-eval speed`
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from cuda_sections.check import check
from cuda_sections.programs import command, tests
from cuda_sections.setting import LIMITS, Setting
from cuda_sections.steps import steps
from cuda_sections.tiles import tiles
from cuda_sections.timing import memory, speed, train

from lpe_eval.model import fused_kernel
from lpe_eval.registry import ATTENTIONS

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
