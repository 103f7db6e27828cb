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
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import yaml

from lpe_eval.commands.train import resolved
from lpe_eval.data.corpus import open_corpus
from lpe_eval.errors import OutputError, SpecError
from lpe_eval.measure.device import pick_device
from lpe_eval.measure.progress import Tell
from lpe_eval.measure.provenance import Account, run_facts
from lpe_eval.report.folders.atomic import write_atomically
from lpe_eval.report.folders.study import StudyFolder
from lpe_eval.report.folders.train import ended_training, read_log
from lpe_eval.report.model_card import model_card
from lpe_eval.run import Estimate, Outcome, Settings
from lpe_eval.screen import duration, listing, short_count
from lpe_eval.spec.fingerprint import run_id, spec_text
from lpe_eval.spec.study_spec import StudySpec
from lpe_eval.spec.train_spec import TrainSpec
from lpe_eval.train.estimate import seconds_of_training

_JOBS_ON_GPU = 6
_SECONDS_BETWEEN_POLLS = 2.0


def run_spec(spec: StudySpec, settings: Settings) -> Outcome:
    """Trains every model of `spec` into a folder of its own.

    Args:
        spec: what to train.
        settings: how; `jobs` None is one training for each processor at once, or six on a GPU.

    Raises:
        SpecError: the device does not exist.
        DataError: the text is not there.
        OutputError: the folder cannot be used.
    """
    device = pick_device(settings.device)
    on_gpu = device.type == "cuda"
    trainings = [resolved(each) for each in spec.trainings(on_gpu)]
    if not on_gpu and spec.on_cpu:
        recipe = yaml.safe_dump(spec.on_cpu, default_flow_style=True).strip()
        settings.tell(f"no GPU is used, so the study trains with {recipe}")
    # A study may grow, so it is known by its name.
    run = run_id({"kind": spec.kind, "name": spec.name})
    names = tuple(each.name for each in trainings)
    with StudyFolder(settings.folder(f"study-{spec.name}"), run, spec_text(spec), names) as folder:
        out, account = folder.directory, Account(device, folder.earlier_provenance())

        def write_provenance(failed: dict[str, str]) -> None:
            ended = {each.name: ended_training(out / each.name, spec_text(each)) for each in trainings}
            states = {name: "failed" if name in failed else "trained" if ended[name] else "left" for name in names}
            known = [found[1] for found in ended.values() if found]
            models = {name: facts for each in known for name, facts in each.get("models", {}).items()}
            facts = run_facts(spec.kind, run, models=models, seeds={each.name: each.seed for each in trainings})
            folder.write_provenance(account.provenance({**facts, "trainings": states}))

        write_provenance({})
        failed = _trained(trainings, out, settings, on_gpu)
        for each in trainings:
            finished = ended_training(out / each.name, spec_text(each))
            if finished is not None:
                (out / f"{each.name}.log").unlink(missing_ok=True)
                write_atomically(out / each.name / "README.md", model_card(each, *finished).encode())
        write_provenance(failed)
    done = len(trainings) - len(failed)
    sentence = f"{done} checkpoints in {out}; measure one: lpe-eval ppl -m {out}/NAME"
    why = "; ".join(f"{', '.join(those)}: {words}" for words, those in _grouped(failed).items())
    return Outcome(
        out, [sentence], f"{len(failed)} trainings of the study failed ({why}); the others are kept" if failed else ""
    )


def estimate(spec: StudySpec, tell: Tell, device: str, jobs: int | None) -> Estimate:
    """What `run_spec` would do, and how long it would take from the beginning.

    Args:
        spec: what would be trained.
        tell: told of each training as soon as it is known.
        device: where.
        jobs: trainings at once; None is as many as `run_spec` takes.

    Raises:
        SpecError: the device does not exist.
        DataError: a tokenizer is not there.
    """
    place = pick_device(device)
    on_gpu, rows, known = place.type == "cuda", [], dict[str, float]()
    trainings = [resolved(each) for each in spec.trainings(on_gpu)]
    threads = torch.get_num_threads()
    try:
        # As each of the processes on a CPU has it.
        torch.set_num_threads(threads if on_gpu else 1)
        for each in trainings:
            encoding = str(each.model.encoding.model_dump())
            try:
                if encoding not in known:
                    known[encoding] = seconds_of_training(each, place)
                took = duration(known[encoding])
            except SpecError as error:
                known[encoding], took = 0.0, f"failed: {error}"
            tell(f"{each.name}: {took}")
            tokens = short_count(each.steps * each.batch_tokens)
            rows.append((each.name, str(each.model.encoding), str(each.seed), f"{each.steps:,}", tokens, took))
    finally:
        torch.set_num_threads(threads)
    seconds = [known[str(each.model.encoding.model_dump())] for each in trainings]
    at_once = min(jobs or (_JOBS_ON_GPU if on_gpu else os.cpu_count() or 1), len(trainings))
    took = duration(max(*seconds, sum(seconds) / at_once))
    sentence = (
        f"about {took} with {at_once} of {len(trainings)} trainings at once, "
        "from two steps of each encoding alone; trainings that are finished in the folder are not repeated"
    )
    columns = ("name", "encoding", "seed", "steps", "tokens", "estimate, alone")
    return Estimate(listing("planned", columns, rows), sentence)


def _trained(trainings: Sequence[TrainSpec], out: Path, settings: Settings, on_gpu: bool) -> dict[str, str]:
    """Trains what is left, several at once; the last words of each training that failed."""
    left = [each for each in trainings if ended_training(out / each.name, spec_text(each)) is None]
    if left:
        # Text that is not there is one sentence, and not one for each training.
        open_corpus(left[0].corpus)
    failed: dict[str, str] = {}
    running: dict[str, subprocess.Popen] = {}
    waiting = list(left)
    at_once = settings.jobs or (_JOBS_ON_GPU if on_gpu else os.cpu_count() or 1)
    done = 0
    try:
        with settings.progress(sum(each.steps for each in left), "steps") as advance:
            while waiting or running:
                while waiting and len(running) < at_once:
                    each = waiting.pop(0)
                    running[each.name] = _start(each, out, settings.device, on_gpu)
                time.sleep(_SECONDS_BETWEEN_POLLS)
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
    return failed


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


def _grouped(failed: Mapping[str, str]) -> dict[str, list[str]]:
    """The trainings that ended with the same words, by those words."""
    found: dict[str, list[str]] = {}
    for name, words in failed.items():
        found.setdefault(words, []).append(name)
    return found


def _last_words(log: Path, code: int) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else f"it ended with exit code {code} and said nothing"
