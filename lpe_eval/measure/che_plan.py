"""The cells of a run on algorithmic problems, decided before anything is made: every name is looked up here."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lpe_eval.addresses import typed_address, without_protocol
from lpe_eval.data.problem import Problem, open_problem
from lpe_eval.errors import UnknownName
from lpe_eval.fetched import as_addressed
from lpe_eval.model.at_address import copy_of_encoders
from lpe_eval.model.encoder_folder import config_text, encoder_folders, read_encoder_config
from lpe_eval.registry import ENCODINGS
from lpe_eval.spec.che_checkpoint import CheCheckpointSpec, TrainedTask
from lpe_eval.spec.che_spec import CheProtocol, CheSpec
from lpe_eval.spec.che_task import read_problem_task
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.released import released_encoders
from lpe_eval.spec.task_files import problem_task_names


class CheTask(NamedTuple):
    """A problem, and the version of its task file; 0 where there is none."""

    name: str
    version: int
    problem: type[Problem]


class PlannedCell(NamedTuple):
    """A cell to be made: an encoding to be trained, or where its encoders are (`place`)."""

    name: tuple[str, str]
    task: CheTask
    encoding: EncodingSpec
    protocol: CheProtocol
    place: Path | None
    work: int

    @property
    def title(self) -> str:
        """The cell as people are told of it."""
        return " on ".join(self.name)


def plan_cells(spec: CheSpec) -> list[PlannedCell]:
    """What a spec asks for, encoding by encoding.

    Raises:
        UnknownName: a task or an encoding does not exist, or no checkpoint has the task.
        CheckpointError: a folder holds no encoders.
    """
    return _to_train(spec) if spec.encodings else _to_score(spec)


def config_of(cell: PlannedCell, chosen: Mapping[str, Mapping[str, Any]]) -> str:
    """What the checkpoint of an encoding says of itself, as text.

    Args:
        cell: any of the encoding.
        chosen: of each task that is done, what is said of the run that was chosen.
    """
    tasks = {task: TrainedTask.model_validate(each) for task, each in sorted(chosen.items())}
    config = CheCheckpointSpec(
        schema=1, name=cell.name[0], encoding=cell.encoding, selection=cell.protocol.selection, protocol=cell.protocol,
        tasks=tasks,
    )  # fmt: skip
    return config_text(config)


def _to_train(spec: CheSpec) -> list[PlannedCell]:
    protocol = spec.protocol
    assert protocol is not None
    for encoding in spec.encodings:
        _refuse_unknown(encoding)
    tasks = _tasks(protocol.tasks if spec.tasks == "all" else spec.tasks)
    steps = protocol.steps + spec.deepmind_compat
    return [
        PlannedCell((_name(encoding), task.name), task, encoding, protocol, None, steps)
        for encoding in spec.encodings
        for task in tasks
    ]


def _to_score(spec: CheSpec) -> list[PlannedCell]:
    places = [found for model in spec.models for found in encoder_folders(_place(model))]
    configs = [read_encoder_config(place) for place in places]
    names = [config.name for config in configs]
    known = {task for config in configs for task in config.tasks}
    if spec.tasks != "all" and (missing := [task for task in spec.tasks if task not in known]):
        raise UnknownName("task of these checkpoints", missing[0], known)
    cells = []
    for place, config in zip(places, configs, strict=True):
        name = config.name if names.count(config.name) == 1 else f"{config.name} ({as_addressed(str(place))})"
        for task in _tasks([each for each in config.tasks if spec.tasks == "all" or each in spec.tasks]):
            work = len(spec.test_set(config.protocol, task.problem.shortest_length).lengths)
            cells.append(PlannedCell((name, task.name), task, config.encoding, config.protocol, place, work))
    return cells


def _tasks(names: Iterable[str]) -> list[CheTask]:
    """Tasks by their files, or by the problem of that name where there is no file."""
    found = []
    for name in names:
        if name in problem_task_names():
            task = read_problem_task(name)
            found.append(CheTask(task.name, task.version, open_problem(task.problem)))
        else:
            found.append(CheTask(name, 0, open_problem(name)))
    return found


def _name(encoding: EncodingSpec) -> str:
    """The encoding as a row names it, with its options where it has some."""
    if encoding.layers:
        return str(encoding)
    options = ", ".join(f"{key}={value}" for key, value in encoding.options.items())
    inner = [] if encoding.base is None else [_name(encoding.base)]
    parts = [*inner, *([options] if options else [])]
    return f"{encoding.name}({', '.join(parts)})" if parts else encoding.name


def _refuse_unknown(encoding: EncodingSpec) -> None:
    for each in encoding.methods() if encoding.layers else ():
        _refuse_unknown(each)
    if encoding.layers:
        return
    ENCODINGS.load(encoding.name)
    if encoding.base is not None:
        _refuse_unknown(encoding.base)


def _place(model: str) -> Path:
    """Where a model that was named lies: a folder of the user comes before a released one of the same name."""
    if (address := typed_address(model)) is not None:
        return copy_of_encoders(address)
    path, released = Path(without_protocol(model)), released_encoders()
    if path.exists() or path.name != model:
        return path
    if model not in released:
        raise UnknownName("released encoder (and no folder)", model, released)
    return released[model]
