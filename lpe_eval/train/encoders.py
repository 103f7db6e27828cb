"""An encoding trained on an algorithmic problem and scored, as a stream of events.

All runs of the protocol are trained at once. Each validation is an event, and the last event is the end: the scores
of every run, and the weights of the one that is kept. Nothing is written here: whoever iterates keeps what the events
bring, and may stop anywhere, since training goes on from the last snapshot as if it had never stopped.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from lpe_eval.measure.che_plan import PlannedCell
from lpe_eval.measure.problem_rows import ScoredRows, rows_without_value, scored_rows
from lpe_eval.measure.progress import Advance
from lpe_eval.model.encoder_folder import weights_bytes
from lpe_eval.records import CheRow, StringCounts
from lpe_eval.spec.che_checkpoint import TrainedTask
from lpe_eval.spec.che_spec import CheProtocol, TestSet
from lpe_eval.train.problem import ProblemTrainer, Validation
from lpe_eval.train.snapshot import SnapshotError

_SECONDS_BETWEEN_SNAPSHOTS = 30.0

Log = list[list[Any]]
"""Rows of `training.csv`: for each validation, one for each run."""


class Validated(NamedTuple):
    """The runs have been validated.

    Attributes:
        validation: what was found.
        log: of the whole training until now, interruptions included.
        snapshot: what training goes on from, together with the log; None where none is due.
    """

    validation: Validation
    log: Log
    snapshot: bytes | None


class Trained(NamedTuple):
    """Training has ended, and every run has been scored.

    Attributes:
        rows: of every run.
        strings: how the run that is kept answered each string.
        log: of the whole training.
        chosen: what the config of the checkpoint says of the run that is kept.
        weights: of that run, as safetensors.
        why_not_replayed: why the steps were not replayed although the device is a GPU; else None.
    """

    rows: list[CheRow]
    strings: list[StringCounts]
    log: Log
    chosen: TrainedTask
    weights: bytes
    why_not_replayed: str | None


def train_encoders(
    cell: PlannedCell,
    row: CheRow,
    test: TestSet,
    *,
    device: torch.device,
    keep_dropout: bool,
    saved: tuple[Log, bytes] | None,
    advance: Advance,
) -> Iterator[Validated | Trained]:
    """Trains the runs of a cell, scores them, and chooses one.

    Args:
        cell: what is trained on what; `work` is the number of steps.
        row: what all rows repeat.
        test: what the trained runs are asked.
        device: where.
        keep_dropout: whether dropout acts in scoring.
        saved: log and snapshot of an earlier `Validated`; one that cannot be read back counts as none.
        advance: told of every step.

    Raises:
        SpecError: the encoding does not fit, or has no bidirectional form.
        LengthError: it has no positions for the strings of training.
    """
    problem, protocol = cell.task.problem, cell.protocol
    trainer = ProblemTrainer(problem, cell.encoding, protocol, device, cell.work)
    log = _resumed(trainer, saved)
    advance(trainer.step, cell.title)
    last: Validation | None = None
    saved_at = time.monotonic()
    for last in trainer.run(advance):
        log = [*log, *_log_rows(cell, last)]
        advance(0, f"{cell.title}, {100 * max(last.accuracy):.0f} % in range")
        due = not trainer.finished and time.monotonic() - saved_at > _SECONDS_BETWEEN_SNAPSHOTS
        yield Validated(last, log, trainer.snapshot() if due else None)
        if due:
            saved_at = time.monotonic()
    assert last is not None, "a training ends with a validation"
    advance(cell.work - trainer.step, f"{cell.title}, scoring")
    by_run: list[ScoredRows] = []
    for index, ((seed, rate), model) in enumerate(zip(protocol.runs, trainer.models, strict=True)):
        of_run = row._replace(run_index=index, seed=seed, learning_rate=rate, steps=trainer.step)
        if last.lost[index] is None:
            by_run.append(scored_rows(of_run, model.train(keep_dropout), problem, test, device, lambda done: None))
        else:
            note = f"diverged by step {last.lost[index]}; lower the learning rate"
            by_run.append(ScoredRows(rows_without_value(of_run, test.lengths, "error", note), []))
    best = _best_run([scored.rows for scored in by_run], last, protocol)
    seed, rate = protocol.runs[best]
    chosen = TrainedTask(
        model=trainer.spec, task_version=cell.task.version, run_index=best, seed=seed, learning_rate=rate,
        steps=trainer.step, in_range_accuracy=_mean_accuracy(by_run[best].rows, in_range=1),
    )  # fmt: skip
    rows = [each for scored in by_run for each in scored.rows]
    weights = weights_bytes(trainer.models[best])
    yield Trained(rows, by_run[best].strings, log, chosen, weights, trainer.stack.why_not_replayed)


def _resumed(trainer: ProblemTrainer, saved: tuple[Log, bytes] | None) -> Log:
    """Brings a trainer to where it was saved; the log until there."""
    if saved is None:
        return []
    log, snapshot = saved
    try:
        trainer.restore(snapshot)
    except SnapshotError:
        return []
    return log


def _log_rows(cell: PlannedCell, validation: Validation) -> Log:
    found = zip(validation.train_nll_nats, validation.nll_nats, validation.accuracy, strict=True)
    runs = enumerate(zip(cell.protocol.runs, found, strict=True))
    return [[*cell.name, index, seed, rate, validation.step, *values] for index, ((seed, rate), values) in runs]


def _best_run(by_run: Sequence[Sequence[CheRow]], last: Validation, protocol: CheProtocol) -> int:
    """Which run is kept: the rule of `ModelSelection`, and the lower held-out loss between equals."""
    within = int(protocol.selection == "in_range")

    def merit(index: int) -> tuple[bool, float, float]:
        mean = _mean_accuracy(by_run[index], within)
        mean = last.accuracy[index] if mean is None else mean
        return last.lost[index] is None, mean, -last.nll_nats[index]

    return max(range(len(by_run)), key=merit)


def _mean_accuracy(rows: Iterable[CheRow], in_range: int) -> float | None:
    found = [
        row.value for row in rows if row.metric == "accuracy" and row.in_range == in_range and row.value is not None
    ]
    return sum(found) / len(found) if found else None
