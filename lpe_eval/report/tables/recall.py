"""Tables of a run of recall: how far each model recalls, then each test's scores against the length."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lpe_eval.report.folders.recall_scores import Recalled
from lpe_eval.report.tables.best import best_of_columns
from lpe_eval.report.tables.reasons import reasons
from lpe_eval.screen import Cell, Column, Table, number, with_error, written

_SHOWN = ("gain_nats", "accuracy", "exact_match")
"""Metrics that tables show; the file has all of them."""


def recall_tables(rows: Sequence[Mapping[str, Any]], found: Sequence[Recalled]) -> list[Table]:
    """Effective lengths, then a table for each test.

    Args:
        rows: of `recall.csv`, missing values None.
        found: every model on every test.
    """
    tasks = list(dict.fromkeys(str(row["task"]) for row in rows))
    return [*([_effective(found, tasks)] if found else []), *(_scores(task, rows) for task in tasks)]


def _effective(found: Sequence[Recalled], tasks: Sequence[str]) -> Table:
    cells = {(each.first["model"], each.first["task"]): each for each in found}
    lines: list[list[Cell | str]] = []
    for model in dict.fromkeys(each.first["model"] for each in found):
        first = next(each.first for each in found if each.first["model"] == model)
        own = [_length(cells.get((model, task))) for task in tasks]
        lines.append([model, first["encoding"], written(first["train_length"]), *own])
    columns = [Column("model"), Column("encoding"), Column("train length", number=True)]
    heads = [Column(f"{task} (distance)" if _by_distance(found, task) else task, number=True) for task in tasks]
    rule = found[0].rule
    below = [
        f"in tokens, 95 % interval in brackets: the longest at which, as at all shorter ones, there is {rule}; "
        "≥ where that is the longest that was tried, 0 where nothing is recalled at the shortest"
    ]
    return Table("effective length of recall", [*columns, *heads], lines, kept=1, described=2, below=below)


def _by_distance(found: Sequence[Recalled], task: str) -> bool:
    return any(each.first["task"] == task and each.first["distance"] is not None for each in found)


def _length(each: Recalled | None) -> str:
    if each is None:
        return ""
    if each.status != "ok":
        return each.status
    value, low, high = each.effective[:3]
    most = "≥ " if value == each.scores.lengths[-1] else ""
    interval = "" if math.isnan(low) else f" [{low:.0f}, {high:.0f}]"
    return f"{most}{value}{interval}"


def _scores(task: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line a model, a column for each metric and length."""
    own = [row for row in rows if row["task"] == task and row["depth"] is None]
    metrics = [metric for metric in _SHOWN if any(row["metric"] == metric for row in own)] or [""]
    lengths = sorted({int(row["length"]) for row in own})
    cells = {(row["model"], row["metric"], row["length"]): row for row in own}
    lines = [
        [model, *(_value(cells.get((model, metric, at))) for metric in metrics for at in lengths)]
        for model in dict.fromkeys(row["model"] for row in own)
    ]
    by_distance = {int(row["length"]): int(row["distance"]) for row in own if row["distance"] is not None}
    heads = [Column(str(by_distance.get(at, at)), metric, number=True) for metric in metrics for at in lengths]
    guesses = {metric: _guess(own, metric) for metric in metrics if metric != "gain_nats"}
    where = "distance, half of the window" if by_distance else "length of the window"
    told = [f"{task}: {where}, in tokens; gain_nats is 0 without recall; ± is one standard error"]
    told += [f"{metric} of a guess: {guess}" for metric, guess in guesses.items() if guess]
    below = [*reasons(own, ("length",)), "; ".join(told)]
    found = Table(task, [Column("model"), *heads], lines, kept=1, below=below)
    # Of all metrics that are shown, more is better.
    return best_of_columns(found, dict.fromkeys(range(1, len(found.columns)), -1))


def _guess(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    known = {row["chance"] for row in rows if row["metric"] == metric and row["chance"] is not None}
    return " to ".join(dict.fromkeys(number(each, 2) for each in (min(known), max(known)))) if known else ""


def _value(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return with_error(row["value"], row["stderr"]) if row["status"] == "ok" else str(row["status"])
