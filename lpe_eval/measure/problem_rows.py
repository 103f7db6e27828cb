"""One encoder on one problem: a row of `che.csv` for each length and metric, and how each string was answered."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from lpe_eval.data.problem import Problem
from lpe_eval.errors import LengthError
from lpe_eval.measure.progress import Advance
from lpe_eval.measure.score_problem import ProblemScore, metric_values, score_problem
from lpe_eval.model.transformer import Transformer
from lpe_eval.spec.che_spec import TestSet
from lpe_eval.table import CHE_METRICS, CheRow, StringCounts


class ScoredRows(NamedTuple):
    """The rows of one encoder on one problem, and the answers behind them, length by length."""

    rows: list[CheRow]
    strings: list[StringCounts]


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
