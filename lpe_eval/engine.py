"""A run on a cluster of Ray: shards as its tasks, whose files come back to whoever started the run.

Each task does one shard in a folder of its own and returns the files in it, so nothing has to be shared but the
models and the text, which every machine must find under the name that was typed. There are a few shards for each
worker: a worker that is lost costs the shard in its hands, and Ray gives that one to another worker.

Choices:
    * Ray is imported here and nowhere else, and only when it is asked for.
    * The order in which shards come back changes nothing; what is there already is not measured again.
    * What a task cannot do (a model that is not there) comes back as a sentence, since not every error can be sent.
"""

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from lpe_eval.commands.merge import merge
from lpe_eval.errors import LpeEvalError, MissingExtra, OutputError, SpecError
from lpe_eval.measure.denormals import denormals_as_zero
from lpe_eval.measure.progress import Progress, Tell
from lpe_eval.model.foreign.library_log import repeats_left_out
from lpe_eval.registry import COMMANDS, KINDS
from lpe_eval.report.folders.atomic import write_atomically
from lpe_eval.report.folders.marker import MARKER
from lpe_eval.report.folders.shared import PARTS, PLAN, agree, read_plan
from lpe_eval.run import Outcome, Settings
from lpe_eval.shard import Shard

_SHARDS_EACH = 4
"""Shards for each worker: what is lost with one, and how evenly all of them end."""
_RETRIES = 3
_PLACES = ("cells", PARTS, "by_token", "checkpoints")


class Engine(NamedTuple):
    """What is asked of a cluster.

    Attributes:
        address: of an existing one; "" takes the one that RAY_ADDRESS names, or starts one on this machine.
        workers: shards at a time; None for as many as the cluster has room for.
        gpus: of a worker; may be a part of one.
        cpus: of a worker.
    """

    address: str
    workers: int | None
    gpus: float
    cpus: float


class Returned(NamedTuple):
    """What a shard gives back: its files by their place in the folder, or why there are none, with an exit code."""

    files: Mapping[str, bytes]
    error: str = ""
    code: int = 0


def parse_engine(text: str, workers: int | None, gpus: float, cpus: float) -> Engine:
    """An engine from flags.

    Args:
        text: `ray`, or `ray://HOST:PORT` of a cluster.
        workers: how many at a time.
        gpus: of each.
        cpus: of each.

    Raises:
        SpecError: there is no such engine, or nothing could be run on it.
    """
    name, _, address = text.partition("://")
    if name != "ray" or ("://" in text and not address):
        raise SpecError(f"--engine {text}: it is ray, or ray://HOST:PORT of a cluster that is there")
    if (workers is not None and workers < 1) or gpus < 0 or cpus <= 0:
        raise SpecError("--workers is at least 1, --cpus-per-worker above 0, and --gpus-per-worker not below it")
    return Engine(text if address else "", workers, gpus, cpus)


def run_on(engine: Engine, spec: BaseModel, out: Path, progress: Progress, tell: Tell) -> Outcome:
    """Runs a spec on a cluster and merges what comes back.

    Args:
        engine: where.
        spec: what to run.
        out: folder of the run.
        progress: opens a progress bar.
        tell: takes a sentence for the user.

    Raises:
        MissingExtra: Ray is not installed.
        SpecError, OutputError: what a shard could not do, or other runs are in the folder.
    """
    ray = _ray()
    with _connected(ray, engine.address):
        workers = engine.workers or _room(ray.cluster_resources(), engine)
        total = workers * _SHARDS_EACH
        tell(f"{total} shards on {workers} workers of Ray")
        task = ray.remote(num_cpus=engine.cpus, num_gpus=engine.gpus, max_retries=_RETRIES)(shard_files)
        have = ray.put(_held(out))
        content, here = spec.model_dump(mode="json", by_alias=True), str(Path.cwd())
        waiting: list[Any] = []
        left = list(range(1, total + 1))
        with progress(total, "shards") as advance:
            while waiting or left:
                # No more than there are workers, so that each is asked only for what can begin.
                while left and len(waiting) < workers:
                    waiting.append(task.remote(content, left.pop(0), total, have, here))
                (done,), waiting = ray.wait(waiting)
                try:
                    found = Returned(*ray.get(done))
                except ray.exceptions.RayError as error:
                    tell(f"a shard was lost {_RETRIES + 1} times: {' '.join(str(error).split())[:200]}")
                    found = Returned({})
                if found.error:
                    for other in waiting:
                        ray.cancel(other, force=True)
                    raise SpecError(found.error) if found.code == SpecError.exit_code else OutputError(found.error)
                _keep(out, found.files)
                advance(1)
    return merge([out], None, tell)


def shard_files(content: Mapping[str, Any], number: int, total: int, have: Mapping[str, bytes], place: str) -> tuple:
    """Does one shard of a run, in a folder that is gone afterwards; what Ray calls on a worker.

    Args:
        content: the spec.
        number: of the shard, from 1.
        total: how many shards there are.
        have: files that earlier shards made, by their place in the folder.
        place: the folder from which paths in the spec count, where this machine has it.

    Returns:
        The fields of `Returned`.
    """
    kind = str(content["kind"])
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(place if Path(place).is_dir() else Path.cwd()):
        out = Path(folder) / "out"
        for name, each in have.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(each)
        settings = Settings(out, False, _no_progress, lambda sentence: None, shard=Shard(number, total))
        try:
            spec = KINDS.load(kind).spec.model_validate(content)
            with denormals_as_zero(), repeats_left_out():
                COMMANDS.function(kind, "run_spec")(spec, settings)
        except LpeEvalError as error:
            return tuple(Returned({}, str(error), error.exit_code))
        found = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
        wanted = (*_PLACES, MARKER, "spec.yaml")
        kept = {name: path.read_bytes() for name, path in found.items() if name.split("/")[0] in wanted}
        return tuple(Returned({name: each for name, each in kept.items() if have.get(name) != each}))


def _keep(out: Path, files: Mapping[str, bytes]) -> None:
    """Writes what came back; the plan first, which all shards must have made alike."""
    if not files:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / PARTS).mkdir()
            (Path(folder) / PARTS / PLAN).write_bytes(files[f"{PARTS}/{PLAN}"])
            plan = read_plan(Path(folder))
        assert plan is not None, "a shard has a plan"
        agree(out, plan)
        for name in sorted(files, key=lambda name: name in (MARKER, "spec.yaml")):
            if name != f"{PARTS}/{PLAN}":
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(out / name, files[name], private=True)
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}; what came back before is kept") from error


def _held(out: Path) -> dict[str, bytes]:
    """What a folder holds of an earlier start, for shards to go on from."""
    if not (out / MARKER).exists():
        return {}
    names = [out / MARKER, out / "spec.yaml", *(out / "cells").glob("*.json"), *(out / PARTS).glob("*-of-*.json")]
    kept = [path for path in names if path.is_file() and not path.name.startswith(("rank-", "shard-"))]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in kept}


def _room(resources: Mapping[str, float], engine: Engine) -> int:
    """Workers that a cluster has room for.

    Raises:
        SpecError: for none.
    """
    places = [resources.get("CPU", 0) / engine.cpus]
    if engine.gpus:
        places.append(resources.get("GPU", 0) / engine.gpus)
    if min(places) < 1:
        raise SpecError(
            f"the cluster has {resources.get('CPU', 0):g} processors and {resources.get('GPU', 0):g} GPUs, too few "
            f"for a worker of {engine.cpus:g} and {engine.gpus:g}"
        )
    return int(min(places))


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """A connection for as long as the context lasts, unless there was one before."""
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        where = {"address": address} if address else {}
        ray.init(**where, **quiet, **({} if address or os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}))
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise OutputError(
            f"no cluster of Ray at {address or 'this machine'}: {' '.join(str(error).split())[:200]}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _no_progress(total: int, unit: str) -> Iterator[Any]:
    yield lambda done, description=None, left=None: None


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtra("--engine ray", "ray") from error
