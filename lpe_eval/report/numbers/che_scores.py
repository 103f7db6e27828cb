"""From the rows of `che.csv` to one score for each task and encoding.

The score of a run is the plain mean of a metric over test lengths, by default those beyond training, as in
DeepMind's code and in the papers that follow it. Of several runs (seeds x learning rates) the papers report
the highest; `runs="mean"` is their mean.

Choices:
    * Test sets of different lengths are independent, so the standard error of a run's mean over n lengths is
      sqrt(sum of their squares) / n. The error of the best run is its own; it knows nothing of the
      selection, which raises the best of n runs at chance by about as much as the highest of n draws.
    * The error of the mean over runs adds the spread between runs, s / sqrt(n), to the mean error of a run:
      all runs see the same strings, so that part does not shrink with their number.
    * A score stands above the trivial ceiling if it is more than `ERRORS` standard errors above it. Without a
      known ceiling the chance takes its place.
    * A length that has no value (a model without so many positions) is left out, and the score is
      marked as incomplete.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import pandas as pd

from lpe_eval.table import LEVELS

ERRORS = 2.0
"""How many standard errors a score has to be above what needs no skill."""

Runs = Literal["max", "mean"]

RUN_COLUMNS = ("run", "run_index", "seed", "learning_rate")
"""What tells the runs of a task and an encoding apart."""


class TaskScore(NamedTuple):
    """One number for a task and an encoding, and what it has to be compared with.

    Attributes:
        line: what tells the encoding's models apart: the encoding, followed by whatever else differs.
        floor: mean over the same lengths of the trivial ceiling, or of the chance where there is none.
        run: which run was the best, as values of `RUN_COLUMNS`; None for a mean over runs.
        lengths: the lengths the score is a mean over.
        complete: whether all lengths of the task have a value.
    """

    task: str
    level: str
    line: str
    value: float
    stderr: float
    floor: float
    chance: float
    run: tuple | None
    n_runs: int
    lengths: tuple[int, ...]
    complete: bool

    @property
    def above(self) -> bool:
        """Whether the score is more than its error above what needs no skill."""
        return self.value > self.floor + ERRORS * (0.0 if math.isnan(self.stderr) else self.stderr)


def task_scores(
    rows: pd.DataFrame, runs: Runs = "max", metric: str = "accuracy", in_range: bool = False
) -> list[TaskScore]:
    """The scores of all tasks and encodings, by level of the hierarchy and else in the order of the rows.

    Args:
        rows: rows of one or several `che.csv`.
        runs: the highest of all runs, or their mean.
        metric: which metric.
        in_range: score the lengths of training instead of those beyond it.
    """
    records = [row for row in records_of(rows, metric) if bool(row["in_range"]) == in_range]
    cells: dict[tuple[str, str], list[dict]] = {}
    for row in records:
        cells.setdefault((row["task"], row["line"]), []).append(row)
    asked: dict[str, set[int]] = {}
    for row in records:
        asked.setdefault(row["task"], set()).add(int(row["length"]))
    found = [score for own in cells.values() if (score := _score(own, runs, asked[own[0]["task"]])) is not None]
    return sorted(found, key=lambda score: level_order(score.level))


def records_of(rows: pd.DataFrame, metric: str) -> list[dict[str, Any]]:
    """The rows of a metric, with `line` added.

    The line is the encoding, followed by the model, the protocol and the dtype where these differ within a
    task.
    """
    records = [{**row, "line": str(row["encoding"])} for row in rows.to_dict("records") if row["metric"] == metric]
    for column in ("model", "protocol", "dtype"):
        found: dict[tuple[str, str], set[str]] = {}
        for row in records:
            found.setdefault((row["task"], row["line"]), set()).add(str(row[column]))
        several = {line for (_, line), values in found.items() if len(values) > 1}
        for row in records:
            if row["line"] in several:
                row["line"] = f"{row['line']} · {row[column]}"
    return records


def by_run(records: Iterable[Mapping[str, Any]]) -> dict[tuple, list[Mapping[str, Any]]]:
    """Rows of one task and line, by the run they belong to, in the order of the lengths."""
    found: dict[tuple, list[Mapping[str, Any]]] = {}
    for row in sorted(records, key=lambda row: row["length"]):
        # What is unknown is not even equal to itself in a frame.
        run = tuple(None if pd.isna(row[name]) else row[name] for name in RUN_COLUMNS)
        found.setdefault(run, []).append(row)
    return found


def level_order(level: str) -> int:
    """Place of a level in the hierarchy; unknown ones come last."""
    return [*LEVELS, level].index(level)


def is_known(value: Any) -> bool:
    """Whether a cell of a table holds a finite number."""
    return not pd.isna(value) and math.isfinite(value)


def _score(records: list[dict[str, Any]], runs: Runs, asked: set[int]) -> TaskScore | None:
    means = [mean for run, own in by_run(records).items() if (mean := _mean(run, own)) is not None]
    if not means:
        return None
    # Of runs with different lengths, those with most of them are compared.
    most = max(len(mean.lengths) for mean in means)
    means = [mean for mean in means if len(mean.lengths) == most]
    best = max(means, key=lambda mean: mean.value)
    value, stderr, run = best.value, best.stderr, best.run
    if runs == "mean":
        value, run = sum(mean.value for mean in means) / len(means), None
        stderr = _error_of_mean([mean.value for mean in means], [mean.stderr for mean in means])
    first = records[0]
    return TaskScore(
        *(first["task"], first["level"], first["line"], value, stderr, best.floor, best.chance),
        *(run, len(means), best.lengths, set(best.lengths) == asked),
    )


class _RunMean(NamedTuple):
    run: tuple
    value: float
    stderr: float
    floor: float
    chance: float
    lengths: tuple[int, ...]


def _mean(run: tuple, records: list[Mapping[str, Any]]) -> _RunMean | None:
    own = [row for row in records if is_known(row["value"])]
    if not own:
        return None
    size = len(own)
    squares = sum(float(row["stderr"]) ** 2 if is_known(row["stderr"]) else math.nan for row in own)
    floors = [row["ceiling"] if is_known(row["ceiling"]) else row["chance"] for row in own]
    return _RunMean(
        run,
        sum(float(row["value"]) for row in own) / size,
        math.sqrt(squares) / size,
        sum(map(float, floors)) / size,
        sum(float(row["chance"]) for row in own) / size,
        tuple(int(row["length"]) for row in own),
    )


def _error_of_mean(values: list[float], errors: list[float]) -> float:
    size = len(values)
    within = sum(error**2 for error in errors) / size
    mean = sum(values) / size
    between = sum((value - mean) ** 2 for value in values) / (size - 1) / size if size > 1 else 0.0
    return math.sqrt(within + between)
