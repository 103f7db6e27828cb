"""Tables of algorithmic problems for the screen: a line a problem, a column an encoding."""

from collections.abc import Iterator, Sequence

import pandas as pd

from lpe_eval.report.numbers.che_scores import TaskScore, task_scores
from lpe_eval.screen import Cell, Column, Table
from lpe_eval.table import LEVELS


def che_tables(frame: pd.DataFrame) -> list[Table]:
    """Accuracy in per cent beyond the lengths of training, then within them; the highest of a task is bold.

    Of several runs the highest is told and, in brackets, their mean.

    Args:
        frame: rows of `che.csv`.
    """
    return [table for in_range in (False, True) for table in _tables(frame, in_range)]


def _tables(frame: pd.DataFrame, in_range: bool) -> Iterator[Table]:
    best, averaged = (task_scores(frame, runs, in_range=in_range) for runs in ("max", "mean"))
    if not best:
        return
    found = {(score.task, score.line): score for score in best}
    mean = {(score.task, score.line): score for score in averaged}
    lengths = sorted({length for score in best for length in score.lengths})
    title = f"accuracy {'within' if in_range else 'beyond'} the lengths of training, per cent ({_range(lengths)})"
    if any(score.n_runs > 1 for score in best):
        title += "; highest (mean) of the runs"
    if not all(score.complete for score in best):
        title += "; * not at all lengths"
    lines = list(dict.fromkeys(score.line for score in best))
    rows = []
    for task, level in dict.fromkeys((score.task, score.level) for score in best):
        some = next(score for score in best if score.task == task)
        scores = [found.get((task, line)) for line in lines]
        highest = max((score.value for score in scores if score is not None and len(lines) > 1), default=None)
        cells = [_cell(score, mean.get((task, line)), highest) for score, line in zip(scores, lines, strict=True)]
        rows.append([task, LEVELS.get(level, level), _percent(some.chance), _percent(some.floor), *cells])
    fixed = [Column("task"), Column("level"), Column("chance", number=True), Column("no skill", number=True)]
    yield Table(title, [*fixed, *(Column(line, number=True) for line in lines)], rows, kept=1, described=len(fixed) - 1)


def _cell(best: TaskScore | None, mean: TaskScore | None, highest: float | None) -> Cell:
    if best is None or mean is None:
        return Cell("n/a")
    text = _percent(best.value) if best.n_runs == 1 else f"{_percent(best.value)} ({_percent(mean.value)})"
    return Cell(text if best.complete else f"{text}*", best.value == highest)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _range(lengths: Sequence[int]) -> str:
    return ", ".join(map(str, lengths)) if len(lengths) < 4 else f"{len(lengths)} from {lengths[0]} to {lengths[-1]}"
