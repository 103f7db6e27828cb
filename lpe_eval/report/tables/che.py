"""What a run on algorithmic problems says in short: a table for the screen, a table for a file, two figures.

A score is the mean accuracy over the lengths beyond training, or at those within it; see `che_scores.py`. Of
several runs the highest and the mean are told, because the highest of many rises by chance alone.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lpe_eval.report.figures.che import heat_map, length_curves
from lpe_eval.report.figures.ppl import save
from lpe_eval.report.folders.reading import typed_frame
from lpe_eval.report.numbers.che_scores import TaskScore, task_scores
from lpe_eval.table import CHE, LEVELS, CheRow

SUMMARY_COLUMNS = (
    *("task", "level", "encoding", "metric", "in_range", "n_runs", "max", "max_stderr", "mean", "mean_stderr"),
    *("chance", "floor", "n_lengths", "complete"),
)
"""Of `summary.csv`. `floor` is what needs no skill: the mean trivial ceiling, or the chance where it is not known."""


_GAP, _CELL = 3, 11
"""Characters between the columns of a table, and of a number and its mean."""


class Shown(NamedTuple):
    """A table for the screen."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def che_frame(rows: Sequence[CheRow]) -> pd.DataFrame:
    """Rows as a frame with the declared types."""
    return typed_frame(CHE, rows)


def shown(rows: Sequence[CheRow], width: int) -> list[Shown]:
    """A line a task, a column an encoding: accuracy in per cent beyond the lengths of training, then within.

    Args:
        rows: rows of `che.csv`.
        width: characters of a line; encodings that do not fit get tables of their own.
    """
    frame = che_frame(rows)
    tables = []
    for in_range in (False, True):
        best, mean = (task_scores(frame, runs, in_range=in_range) for runs in ("max", "mean"))
        if best:
            tables += _tables(best, {(score.task, score.line): score for score in mean}, in_range, width)
    return tables


def summary_records(rows: Sequence[CheRow]) -> list[list[str | int | float]]:
    """The lines of `summary.csv`."""
    frame = che_frame(rows)
    records = []
    for metric in dict.fromkeys(row.metric for row in rows):
        for in_range in (False, True):
            best, mean = (task_scores(frame, runs, metric, in_range) for runs in ("max", "mean"))
            for high, middle in zip(best, mean, strict=True):
                records.append(
                    [
                        *(
                            high.task,
                            high.level,
                            high.line,
                            metric,
                            int(in_range),
                            high.n_runs,
                            high.value,
                            high.stderr,
                        ),
                        *(middle.value, middle.stderr, high.chance, high.floor, len(high.lengths), int(high.complete)),
                    ]
                )
    return records


def draw_scores(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Draws the heat map and the curves, where there is a score to draw.

    Args:
        rows: rows of one or several `che.csv`.
        folder: where the figures go.

    Raises:
        OutputError: a file cannot be written.
    """
    if not task_scores(rows):
        return []
    return [*save(heat_map(rows), folder, "heat_map"), *save(length_curves(rows), folder, "length_curves")]


def _tables(
    best: list[TaskScore], mean: dict[tuple[str, str], TaskScore], in_range: bool, width: int
) -> Iterator[Shown]:
    found = {(score.task, score.line): score for score in best}
    lengths = sorted({length for score in best for length in score.lengths})
    title = f"accuracy {'within' if in_range else 'beyond'} the lengths of training, per cent ({_range(lengths)})"
    if any(score.n_runs > 1 for score in best):
        title += "; highest (mean) of the runs"
    if not all(score.complete for score in best):
        title += "; * not at all lengths"
    tasks = list(dict.fromkeys((score.task, score.level) for score in best))
    left = max(len(task) for task, _ in tasks) + sum(
        len(name) + _GAP for name in ("context-sensitive", "chance", "no skill")
    )
    block: list[str] = []
    for line in [*dict.fromkeys(score.line for score in best), None]:
        used = left + sum(max(len(each), _CELL) + _GAP for each in (*block, line or ""))
        if block and (line is None or used > width):
            rows = []
            for task, level in tasks:
                some = next(score for score in best if score.task == task)
                cells = [_cell(found.get((task, each)), mean.get((task, each))) for each in block]
                rows.append([task, LEVELS.get(level, level), _percent(some.chance), _percent(some.floor), *cells])
            yield Shown(title, ["task", "level", "chance", "no skill", *block], rows)
            block = []
        block += [] if line is None else [line]


def _cell(best: TaskScore | None, mean: TaskScore | None) -> str:
    if best is None or mean is None:
        return "n/a"
    told = _percent(best.value) if best.n_runs == 1 else f"{_percent(best.value)} ({_percent(mean.value)})"
    return told if best.complete else f"{told}*"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _range(lengths: Sequence[int]) -> str:
    return ", ".join(map(str, lengths)) if len(lengths) < 4 else f"{len(lengths)} from {lengths[0]} to {lengths[-1]}"
