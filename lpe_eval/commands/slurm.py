"""A run as a SLURM job array, each task a shard, and a job behind it that merges.

What comes out is a shell script that anybody can read and change: it submits the array, and then the merging job, which
waits for all tasks to end, however they end. There is no scheduler here.

Choices:
    * Each task takes its shard from the array (`--shard slurm`), so a task that failed is run again as itself.
    * The same interpreter is called by its path, since a job does not know which environment was active.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lpe_eval.errors import SpecError

SHARED = ("ppl", "che", "recall", "run")
"""The commands whose work can be shared out."""
_FORBIDDEN = {
    "--shard": "each task of the array takes its own",
    "--baseline": "compare after merging: lpe-eval compare DIR --baseline NAME",
    "--dry-run": "look first, without slurm before it",
    "--overwrite": "remove the folder before you start",
}


class Job(NamedTuple):
    """What a task of the array asks of the queue.

    Attributes:
        tasks: how many; each is a shard.
        at_once: of them that may run at a time; None for as many as the queue gives.
        asked: options of sbatch, `gres` with `gpu:1` and the like; they hold for the array alone.
        more: lines that follow `#SBATCH` in both jobs as they are, such as `--account=mine`.
        setup: a line of shell before the command, such as one that activates something.
    """

    tasks: int
    at_once: int | None = None
    asked: Mapping[str, str] = {}
    more: Sequence[str] = ()
    setup: str = ""


def script_of(arguments: Sequence[str], job: Job, program: Sequence[str] = (sys.executable, "-m", "lpe_eval")) -> str:
    """The shell script that submits a command as a job array, and the merging job behind it.

    Args:
        arguments: of lpe-eval, the command's name first.
        job: what is asked of the queue.
        program: how lpe-eval is called on a node.

    Raises:
        SpecError: the command cannot be shared out, names no folder, or has a flag that belongs elsewhere.
    """
    out = _folder_of(arguments)
    if job.tasks < 1 or (job.at_once is not None and job.at_once < 1):
        raise SpecError("--array: a job array has at least one task")
    last = f"1-{job.tasks}" + (f"%{job.at_once}" if job.at_once else "")
    called = shlex.join(program)
    array = [
        "--job-name=lpe-eval",
        f"--array={last}",
        "--output=lpe-eval-%A_%a.log",
        *(f"--{name}={value}" for name, value in job.asked.items()),
        *job.more,
    ]
    after = ["--job-name=lpe-eval-merge", "--output=lpe-eval-%j-merge.log", *job.more]
    return "\n".join(
        [
            "#!/bin/bash",
            "# Submits the shards, and the job that merges them once all have ended.",
            "set -euo pipefail",
            "shards=$(sbatch --parsable <<'END'",
            *_lines(array, job.setup, f"{called} {shlex.join(arguments)} --shard slurm"),
            "END",
            ")",
            'echo "shards: job ${shards%%;*}"',
            "merging=$(sbatch --parsable --dependency=\"afterany:${shards%%;*}\" <<'END'",
            *_lines(after, job.setup, f"{called} merge {shlex.quote(out)}"),
            "END",
            ")",
            'echo "merging: job ${merging%%;*}"',
            "",
        ]
    )


def _lines(options: Sequence[str], setup: str, command: str) -> list[str]:
    for each in [*options, setup, command]:
        if "\n" in each or "\r" in each:
            raise SpecError("what is given to slurm has to stand on one line")
    return ["#!/bin/bash", *(f"#SBATCH {each}" for each in options), *([setup] if setup else []), command]


def _folder_of(arguments: Sequence[str]) -> str:
    """The folder that a command writes to."""
    if not arguments or arguments[0] not in SHARED:
        raise SpecError(f"slurm: name the command that is to be run, one of {', '.join(SHARED)}: slurm ppl -m ...")
    found = ""
    for place, each in enumerate(arguments):
        name, equals, value = each.partition("=")
        name = name.replace("_", "-")
        if name in _FORBIDDEN:
            raise SpecError(f"slurm: {name} does not go with a job array: {_FORBIDDEN[name]}")
        if name in ("--out", "-o"):
            found = value if equals else "".join(arguments[place + 1 : place + 2])
    if not found or found.startswith("-"):
        raise SpecError("slurm: give the command an --out on a file system that all nodes see")
    return found
