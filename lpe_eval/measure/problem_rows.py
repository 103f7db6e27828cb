"""One encoder on one problem: a row of `che.csv` for each length and metric, and how each string was answered."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from lpe_eval.data.problem import Problem, vocabulary_size
from lpe_eval.errors import CheckpointError, LengthError
from lpe_eval.measure.che_plan import PlannedCell
from lpe_eval.measure.progress import Advance
from lpe_eval.measure.score_problem import ProblemScore, metric_values, score_problem
from lpe_eval.model.encoder_folder import load_encoder, read_encoder_config, refuse_changed
from lpe_eval.model.transformer import Transformer
from lpe_eval.model.unchanged import Stamps
from lpe_eval.records import CheRow, StringCounts
from lpe_eval.spec.che_spec import TestSet
from lpe_eval.table import CHE_METRICS


class ScoredRows(NamedTuple):
    """The rows of one encoder on one problem, and the answers behind them, length by length."""

    rows: list[CheRow]
    strings: list[StringCounts]


def cell_row(cell: PlannedCell, run: str, device: torch.device) -> CheRow:
    """What all rows of a cell repeat, with the first of its runs."""
    return CheRow(
        run=run, task=cell.task.name, task_version=cell.task.version, level=cell.task.problem.level,
        model=cell.name[0], encoding=str(cell.encoding), run_index=0, seed=cell.protocol.seeds[0], learning_rate=None,
        steps=None, protocol=cell.protocol.name, length=0, metric="", value=None, stderr=None, n_samples=None,
        n_tokens=None, chance=None, ceiling=None, train_max_length=max(cell.protocol.train_lengths), in_range=None,
        device=device.type,
    )  # fmt: skip


def stored_rows(
    cell: PlannedCell,
    place: Path,
    row: CheRow,
    test: TestSet,
    planned: tuple[str, Stamps],
    *,
    device: torch.device,
    keep_dropout: bool,
    advance: Advance,
) -> ScoredRows:
    """Opens the encoder that a folder holds for a task, and scores it at every length.

    Args:
        cell: which task.
        place: the folder.
        row: what all rows repeat.
        test: what the encoder is asked.
        planned: digest and stamps of the folder when the run was planned.
        device: where.
        keep_dropout: whether dropout acts.
        advance: told of each length.

    Raises:
        CheckpointError: the weights are missing, damaged or do not fit, are of another problem of that name, or have
            changed since the run was planned.
        SpecError: the encoding does not exist or does not fit.
    """
    problem, config = cell.task.problem, read_encoder_config(place)
    entry = config.tasks[cell.task.name]
    advance(0, cell.title)
    if (entry.model.vocab_size, entry.model.outputs) != (vocabulary_size(problem), problem.classes):
        raise CheckpointError(f"{place}: {cell.task.name} was trained on another problem of that name")
    model = load_encoder(place, config, cell.task.name, device).train(keep_dropout)
    refuse_changed(place, *planned)
    of_run = row._replace(
        run_index=entry.run_index, seed=entry.seed, learning_rate=entry.learning_rate, steps=entry.steps
    )
    return scored_rows(of_run, model, problem, test, device, advance)


def scored_rows(
    row: CheRow,
    model: Transformer,
    problem: type[Problem],
    test: TestSet,
    device: torch.device,
    advance: Advance,
) -> ScoredRows:
    """Scores a model at every length; a length that it has no positions for gets rows with status `n/a`.

    Args:
        row: what all rows repeat.
        model: in training mode if its dropout is to act.
        problem: what is asked.
        test: lengths, strings of each, and how their mean is taken.
        device: where the model is.
        advance: told of each length.
    """
    row = row._replace(attention="+".join(model.path_names()))
    rows: list[CheRow] = []
    strings: list[StringCounts] = []
    for length in test.lengths:
        answers = problem.output_length(length)
        try:
            score = score_problem(
                lambda tokens, draws, answers=answers: model.logits(model(tokens, draws, answers)),
                *(problem, length, test.samples, test.sub_batch, test.seed, device),
            )
        except LengthError as error:
            rows += rows_without_value(row, [length], "n/a", str(error))
        else:
            rows += _rows(row, problem, length, score, test)
            strings.append(StringCounts(length, score.test_set, score.n_correct.tolist(), score.n_scored.tolist()))
        advance(1)
    return ScoredRows(rows, strings)


def rows_without_value(row: CheRow, lengths: Sequence[int], status: str, note: str) -> list[CheRow]:
    """A row for each length and metric that says why there is no value."""
    return [
        _placed(row, length)._replace(metric=metric, status=status, note=note)
        for length in lengths
        for metric in CHE_METRICS
    ]


def _rows(row: CheRow, problem: type[Problem], length: int, score: ProblemScore, test: TestSet) -> list[CheRow]:
    rows = []
    for metric, found in metric_values(score, problem, length).items():
        official = metric == "accuracy" and test.mean_of_sub_batches
        rows.append(
            _placed(row, length)._replace(
                metric=metric,
                value=score.official_accuracy(test.sub_batch) if official else found.value,
                stderr=found.stderr,
                n_samples=score.n_samples,
                n_tokens=score.n_tokens,
                chance=found.chance,
                ceiling=found.ceiling,
            )
        )
    return rows


def _placed(row: CheRow, length: int) -> CheRow:
    return row._replace(
        length=length, in_range=int(row.train_max_length is not None and length <= row.train_max_length)
    )
