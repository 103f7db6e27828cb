"""The Chomsky-hierarchy evaluation from its spec to a table: encoders are trained or opened, then scored.

A cell is one model (an encoding that is trained, or a folder of encoders) on one task. Names are looked up
before anything is made; what then turns out not to be possible is told in its cell, and the others go on.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import lpe_eval
from lpe_eval.errors import CheckpointError, LengthError, LpeEvalError, SpecError
from lpe_eval.measure.che_plan import PlannedCell, plan_cells
from lpe_eval.measure.device import pick_device
from lpe_eval.measure.heap import keep_freed_memory
from lpe_eval.measure.problem_rows import ScoredRows, rows_without_value, scored_rows
from lpe_eval.measure.progress import Advance, Progress, Tell
from lpe_eval.measure.provenance import begin, end, publishable
from lpe_eval.model import encoder_folder as stored
from lpe_eval.report.folders.che import CellName, CheCell, CheFolder, slug_of
from lpe_eval.report.tables.che import che_frame, draw_scores
from lpe_eval.spec.che_checkpoint import CheCheckpointSpec, TrainedTask
from lpe_eval.spec.che_spec import CheProtocol, CheSpec
from lpe_eval.spec.fingerprint import run_id
from lpe_eval.table import SCHEMA, CheRow
from lpe_eval.train.problem import Look, ProblemTrainer, SnapshotError

_SECONDS_BETWEEN_SNAPSHOTS = 30.0


class CheOutcome(NamedTuple):
    """What a run leaves behind.

    Attributes:
        folder: where it is.
        rows: every row of `che.csv`, in its order.
        failed: of each cell that failed, which it is and why.
        misfits: why some models cannot be asked something that was, a sentence each.
        figures: the files of all figures.
    """

    folder: Path
    rows: list[CheRow]
    failed: list[str]
    misfits: list[str]
    figures: list[Path]


class _Making(NamedTuple):
    """What all cells of a run need."""

    spec: CheSpec
    folder: CheFolder
    device: torch.device
    advance: Advance
    tell: Tell


def evaluate(spec: CheSpec, out: Path | None, overwrite: bool, progress: Progress, tell: Tell) -> CheOutcome:
    """Trains and scores, or scores, every model of `spec` on every task.

    Args:
        spec: what to run.
        out: folder of the results; None is `results/runs/che-<id>`.
        overwrite: discard another run that the folder holds.
        progress: opens a progress bar.
        tell: takes a sentence that the user should read.

    Raises:
        UnknownName: a task or an encoding does not exist, or no checkpoint has the task.
        SpecError: the device does not exist.
        CheckpointError: a folder holds no encoders.
        OutputError: the results cannot be written.
    """
    device = pick_device(spec.device)
    spec = spec.model_copy(update={"device": device.type})
    if spec.encodings and device.type == "cpu":
        keep_freed_memory()
    cells = plan_cells(spec)
    models = {cell.name[0]: stored.digest_of(cell.place) for cell in cells if cell.place is not None}
    run = run_id(_identity(spec, models))
    order = [cell.name for cell in cells]
    asked = {**spec.model_dump(mode="json"), "tasks": list(dict.fromkeys(cell.task.name for cell in cells))}
    with CheFolder(out or Path("results/runs") / f"che-{run}", asked, run, overwrite) as folder:
        began, start = time.monotonic(), begin(device, folder.provenance())
        todo = [cell for cell in cells if cell.name not in folder.finished()]
        if len(todo) < len(cells):
            tell(f"{folder.directory} already holds {len(cells) - len(todo)} of {len(cells)} cells; they are kept")
        facts = {"run": run, "models": models}
        folder.write_provenance(publishable({**facts, **start}))
        with progress(sum(cell.work for cell in todo), "steps" if spec.encodings else "lengths") as advance:
            for cell in todo:
                making = _Making(spec, folder, device, advance, tell)
                folder.save(cell.name, _made(cell, making))
                folder.collect(order)
        rows = folder.collect(order)
        folder.collect_strings(order)
        figures = draw_scores(che_frame(rows), folder.directory / "figures")
        folder.write_provenance(publishable({**facts, **end(start, time.monotonic() - began)}))
        held = folder.cells(order)
        failed = [
            f"{model} on {task}: {held[model, task].rows[0].note}" for model, task in order if held[model, task].failed
        ]
        misfits = _misfits(row for name in order for row in held[name].rows)
        return CheOutcome(folder.directory, rows, failed, misfits, figures)


def _made(cell: PlannedCell, making: _Making) -> CheCell:
    """The cell, or one that says why there is none."""
    told = 0

    def advance(done: int, description: str | None = None) -> None:
        nonlocal told
        told += done
        making.advance(done, description)

    try:
        counted = making._replace(advance=advance)
        return _trained(cell, counted) if cell.place is None else _scored(cell, cell.place, counted)
    except (SpecError, LengthError) as error:
        status, note = "n/a", str(error)
    except (LpeEvalError, torch.OutOfMemoryError) as error:
        status, note = "failed", str(error).partition("\n")[0]
    making.advance(cell.work - told)
    lengths = making.spec.test_set(cell.protocol, cell.task.problem.shortest_length).lengths
    return CheCell(rows_without_value(_row(cell, making), lengths, status, note), [], None, [])


def _trained(cell: PlannedCell, making: _Making) -> CheCell:
    spec, folder, device, advance, tell = making
    problem, protocol, what = cell.task.problem, cell.protocol, f"{cell.name[0]} on {cell.task.name}"
    test = spec.test_set(protocol, problem.shortest_length)
    trainer = ProblemTrainer(problem, cell.encoding, protocol, device, cell.work)
    log = _resumed(trainer, folder, cell.name)
    advance(trainer.step, what)
    saved = time.monotonic()
    look = trainer.last_look
    for look in trainer.run(advance):
        log += _log_rows(cell, look)
        advance(0, f"{what}, {100 * max(look.accuracy):.0f} % in range")
        if not trainer.finished and time.monotonic() - saved > _SECONDS_BETWEEN_SNAPSHOTS:
            folder.save_snapshot(cell.name, log, trainer.snapshot())
            saved = time.monotonic()
    assert look is not None
    if trainer.stack.why_not_replayed is not None:
        why_not = trainer.stack.why_not_replayed
        tell(f"{what}: the same results, more slowly, because steps were not replayed: {why_not}")
    advance(cell.work - trainer.step, f"{what}, scoring")
    by_run: list[ScoredRows] = []
    for index, ((seed, rate), model) in enumerate(zip(protocol.runs, trainer.models, strict=True)):
        row = _row(cell, making)._replace(run_index=index, seed=seed, learning_rate=rate, steps=trainer.step)
        model.train(spec.deepmind_compat)
        if look.lost[index] is None:
            by_run.append(scored_rows(row, model, problem, test, device, lambda done: None))
        else:
            note = f"diverged by step {look.lost[index]}; lower the learning rate"
            by_run.append(ScoredRows(rows_without_value(row, test.lengths, "error", note), []))
    best = _selected([scored.rows for scored in by_run], look, protocol)
    within = _mean(by_run[best].rows, in_range=1)
    chosen = TrainedTask(
        model=trainer.spec, task_version=cell.task.version, run_index=best, seed=protocol.runs[best][0],
        learning_rate=protocol.runs[best][1], steps=trainer.step, in_range_accuracy=within,
    )  # fmt: skip
    rows = [row for scored in by_run for row in scored.rows]
    finished = CheCell(rows, log, chosen.model_dump(mode="json"), by_run[best].strings)
    _save_checkpoint(cell, folder, finished, stored.weights_bytes(trainer.models[best]))
    return finished


def _scored(cell: PlannedCell, place: Path, making: _Making) -> CheCell:
    spec, _, device, advance, _ = making
    problem, config = cell.task.problem, stored.read_encoder_config(place)
    entry = config.tasks[cell.task.name]
    advance(0, f"{cell.name[0]} on {cell.task.name}")
    if (entry.model.vocab_size, entry.model.outputs) != (problem.input_size + 1, problem.classes):
        raise CheckpointError(f"{place}: {cell.task.name} was trained on another problem of that name")
    model = stored.load_encoder(place, config, cell.task.name, device).train(spec.deepmind_compat)
    row = _row(cell, making)._replace(
        run_index=entry.run_index, seed=entry.seed, learning_rate=entry.learning_rate, steps=entry.steps
    )
    test = spec.test_set(cell.protocol, problem.shortest_length)
    scored = scored_rows(row, model, problem, test, device, advance)
    return CheCell(scored.rows, [], None, scored.strings)


def _row(cell: PlannedCell, making: _Making) -> CheRow:
    """What all rows of a cell repeat."""
    return CheRow(
        run=making.folder.run, task=cell.task.name, task_version=cell.task.version, level=cell.task.problem.level,
        model=cell.name[0], encoding=str(cell.encoding), run_index=0, seed=cell.protocol.seeds[0], learning_rate=None,
        steps=None, protocol=cell.protocol.name, length=0, metric="", value=None, stderr=None, n_samples=None,
        n_tokens=None, chance=None, ceiling=None, train_max_length=max(cell.protocol.train_lengths), in_range=None,
        device=making.device.type,
    )  # fmt: skip


def _resumed(trainer: ProblemTrainer, folder: CheFolder, name: CellName) -> list[list[Any]]:
    saved = folder.snapshot(name)
    if saved is None:
        return []
    try:
        trainer.restore(saved.state)
    except SnapshotError:
        return []
    return saved.log


def _log_rows(cell: PlannedCell, look: Look) -> list[list[Any]]:
    runs = zip(cell.protocol.runs, look.train_nll_nats, look.nll_nats, look.accuracy, strict=True)
    return [
        [*cell.name, index, seed, rate, look.step, train, held_out, accuracy]
        for index, ((seed, rate), train, held_out, accuracy) in enumerate(runs)
    ]


def _selected(by_run: Sequence[Sequence[CheRow]], look: Look, protocol: CheProtocol) -> int:
    """Which run is kept: the rule of `Selection`, and the lower held-out loss between equals."""
    within = int(protocol.selection == "in_range")

    def merit(index: int) -> tuple[bool, float, float]:
        mean = _mean(by_run[index], within)
        mean = look.accuracy[index] if mean is None else mean
        return look.lost[index] is None, mean, -look.nll_nats[index]

    return max(range(len(by_run)), key=merit)


def _mean(rows: Iterable[CheRow], in_range: int) -> float | None:
    found = [
        row.value for row in rows if row.metric == "accuracy" and row.in_range == in_range and row.value is not None
    ]
    return sum(found) / len(found) if found else None


def _save_checkpoint(cell: PlannedCell, folder: CheFolder, finished: CheCell, weights: bytes) -> None:
    """The weights of the chosen run, and a config that names all tasks of this encoding that are done."""
    done = {task: held.chosen for (model, task), held in folder.cells([]).items() if model == cell.name[0]}
    config = CheCheckpointSpec(
        schema=1,
        name=cell.name[0],
        encoding=cell.encoding,
        selection=cell.protocol.selection,
        protocol=cell.protocol,
        tasks={
            task: TrainedTask.model_validate(chosen)
            for task, chosen in sorted({**done, cell.task.name: finished.chosen}.items())
            if chosen is not None
        },
    )
    folder.save_checkpoint(slug_of(cell.name[0]), cell.task.name, weights, stored.config_text(config))


def _identity(spec: CheSpec, models: dict[str, str]) -> dict[str, Any]:
    """What makes two runs the same: not the encodings and tasks, so that a folder can grow by more of them."""
    decides = spec.model_dump(mode="json", exclude={"encodings", "models", "tasks"})
    return {"spec": decides, "models": models, "schema": SCHEMA, "version": lpe_eval.__version__}


def _misfits(rows: Iterable[CheRow]) -> list[str]:
    """For each model with status `n/a` somewhere: the first reason, and how many places it has no value at."""
    found: dict[str, list[CheRow]] = {}
    for row in rows:
        if row.status == "n/a" and row.metric == "accuracy" and row.run_index == 0:
            found.setdefault(row.model, []).append(row)
    return [
        f"{model} has no value at {len(own)} of its lengths, at {own[0].length} of {own[0].task} because {own[0].note}"
        for model, own in found.items()
    ]
