"""A study from its spec to a folder of checkpoints: each training a process of its own, several at once.

A training that fails, or that is killed, leaves the others alone, and the same command does what is left:
finished trainings are not repeated, and interrupted ones go on from their last snapshot. On a CPU
every process gets one thread, because small models gain little from a second; on CUDA the processes
share the GPU, which one small model cannot fill.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import yaml

from lpe_eval.errors import OutputError
from lpe_eval.measure.device import pick_device
from lpe_eval.measure.progress import Progress, Tell
from lpe_eval.report.folders.atomic import write_atomically
from lpe_eval.report.folders.train import ended_training, read_log
from lpe_eval.report.model_card import model_card
from lpe_eval.spec.fingerprint import spec_text
from lpe_eval.spec.study_spec import StudySpec
from lpe_eval.spec.train_spec import TrainSpec

_JOBS_ON_GPU = 6
_LOOK_EVERY = 2.0


class StudyOutcome(NamedTuple):
    """What a study leaves behind."""

    folder: Path
    trained: list[str]
    failed: dict[str, str]
    """The last words of each training that failed."""


def study(
    spec: StudySpec, out: Path | None, device_name: str, jobs: int | None, progress: Progress, tell: Tell
) -> StudyOutcome:
    """Trains every model of `spec` into a folder of its own.

    Args:
        spec: what to train.
        out: folder of the folders; None is `results/runs/study-<name>`.
        device_name: where to train.
        jobs: trainings at once; None is one for each processor, or six on a GPU.
        progress: opens a progress bar.
        tell: takes a sentence that the user should read.
    """
    device = pick_device(device_name)
    on_gpu = device.type == "cuda"
    out = out or Path("results/runs") / f"study-{spec.name}"
    trainings = spec.trainings(on_gpu)
    if not on_gpu and spec.on_cpu:
        tell(f"no GPU is used, so the study trains with {yaml.safe_dump(spec.on_cpu, default_flow_style=True).strip()}")
    left = [each for each in trainings if ended_training(out / each.name, spec_text(each)) is None]
    failed: dict[str, str] = {}
    running: dict[str, subprocess.Popen] = {}
    waiting = list(left)
    at_once = jobs or (_JOBS_ON_GPU if on_gpu else os.cpu_count() or 1)
    total = sum(each.steps for each in left)
    done = 0
    try:
        with progress(total, "steps") as advance:
            while waiting or running:
                while waiting and len(running) < at_once:
                    each = waiting.pop(0)
                    running[each.name] = _start(each, out, device_name, on_gpu)
                time.sleep(_LOOK_EVERY)
                for name, process in list(running.items()):
                    if process.poll() is not None:
                        del running[name]
                        if process.returncode:
                            failed[name] = _last_words(out / f"{name}.log", process.returncode)
                reached = sum(_steps_done(out / each.name) for each in left)
                advance(max(0, reached - done), " ".join(running) or None)
                done = max(done, reached)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    for each in trainings:
        finished = ended_training(out / each.name, spec_text(each))
        if finished is not None:
            (out / f"{each.name}.log").unlink(missing_ok=True)
            card = model_card(each, *finished)
            write_atomically(out / each.name / "README.md", card.encode())
    return StudyOutcome(out, [each.name for each in trainings if each.name not in failed], failed)


def _start(spec: TrainSpec, out: Path, device_name: str, on_gpu: bool) -> subprocess.Popen:
    request = out / f"{spec.name}.yaml"
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(request, spec_text(spec).encode())
        log = (out / f"{spec.name}.log").open("wb")
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
    threads = {} if on_gpu else {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lpe_eval", "run", str(request), "--out", str(out / spec.name), "--quiet"]
    with log:
        return subprocess.Popen(
            [*command, "--device", device_name], stdout=log, stderr=log, env={**os.environ, **threads}
        )


def _steps_done(folder: Path) -> int:
    return max((row.step for row in read_log(folder)), default=0)


def _last_words(log: Path, code: int) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else f"it ended with exit code {code} and said nothing"
