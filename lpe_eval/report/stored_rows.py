"""The rows of a run's table, chosen columns of them, as CSV and JSON at full precision or as a table for the screen.

In JSON, a number that is missing is null, and one that is infinite is the string `inf` or `-inf`, as in the reports of
a gate.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lpe_eval.errors import UnknownName
from lpe_eval.report.frames import csv_bytes
from lpe_eval.screen import Cell, Table, number, with_error, written
from lpe_eval.screen import Column as Head
from lpe_eval.table import OPTIMUM, Column

_PLACE = ("task", "corpus", "split", "protocol", "length", "stride", "metric", "distance", "depth", "level")
"""Columns that say where a value was measured: those that are equal in all of them compete for being the best."""


class Stored(NamedTuple):
    """A table as it is stored.

    Attributes:
        name: of its file.
        columns: in the order of the file.
        rows: values by the columns' names, missing ones None.
    """

    name: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]


def chosen(stored: Stored, names: Sequence[str]) -> Stored:
    """Some columns, in the order that is asked for; all where none is named.

    Raises:
        UnknownName: there is no such column.
    """
    known = {column.name: column for column in stored.columns}
    for name in names:
        if name not in known:
            raise UnknownName(f"column of {stored.name}", name, known)
    return stored._replace(columns=[known[name] for name in names]) if names else stored


def as_csv(stored: Stored) -> str:
    """A line of heads, then a line a row; with all columns, the bytes of the file itself."""
    lines = [[row[column.name] for column in stored.columns] for row in stored.rows]
    return csv_bytes(tuple(stored.columns), lines).decode("utf-8", "surrogatepass")


def as_json(stored: Stored) -> str:
    """A list of rows, each on a line, as mappings."""
    rows = [{column.name: plain(row[column.name]) for column in stored.columns} for row in stored.rows]
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    return f"[\n{lines}\n]\n" if rows else "[]\n"


def plain(value: Any) -> Any:
    """A value as JSON has it; see the module's docstring."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def stored_table(stored: Stored, direction: Callable[[str], int | None]) -> Table:
    """A line a row, numbers rounded; a value has its error beside it, unless the errors are a column of their own.

    Args:
        stored: columns as they were chosen; rows with all of them.
        direction: of a metric, 1 where more is worse and -1 where less is; the best of those that compete is bold.
    """
    names = [column.name for column in stored.columns]
    best = _best(stored.rows, direction)
    lines: list[list[Cell | str]] = [
        [_cell(column, row, "stderr" in names, best) for column in stored.columns] for row in stored.rows
    ]
    return Table("", [Head(column.name, number=column.kind != "string") for column in stored.columns], lines)


def _cell(column: Column, row: Mapping[str, Any], apart: bool, best: Mapping[tuple, float]) -> Cell | str:
    value = row[column.name]
    if column.kind != "float64" or value is None:
        return written(value)
    if column.name != "value":
        return number(value)
    text = number(value) if apart else with_error(value, row.get("stderr"))
    return Cell(text, _competes(row) and best.get(_place(row)) == value)


def _best(rows: Sequence[Mapping[str, Any]], direction: Callable[[str], int | None]) -> dict[tuple, float]:
    found: dict[tuple, list[float]] = {}
    for row in rows:
        if _competes(row) and row.get("value") is not None and direction(str(row["metric"])) is not None:
            found.setdefault(_place(row), []).append(row["value"])
    metric = _PLACE.index("metric")
    return {
        place: min(values) if direction(str(place[metric])) == 1 else max(values)
        for place, values in found.items()
        if len(values) > 1
    }


def _competes(row: Mapping[str, Any]) -> bool:
    return row.get("status") == "ok" and row.get("encoding") != OPTIMUM and "metric" in row


def _place(row: Mapping[str, Any]) -> tuple:
    return tuple(row.get(name) for name in _PLACE)
