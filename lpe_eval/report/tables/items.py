"""Tables of a kind of run that declares none of its own: a line a model, a column a length, one table a metric."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lpe_eval.report.tables.best import best_of_columns
from lpe_eval.report.tables.reasons import reasons
from lpe_eval.screen import Cell, Column, Table, with_error, written


def item_tables(
    rows: Sequence[Mapping[str, Any]], direction: Callable[[str], int | None] = lambda metric: None
) -> list[Table]:
    """One table for each metric.

    Args:
        rows: with the columns of `table.ITEM_ROWS`, missing values None.
        direction: of a metric, 1 where more is worse and -1 where less is; the best of a column is bold.
    """
    metrics = [metric for metric in dict.fromkeys(row["metric"] for row in rows) if metric] or [""]
    return [
        _table(metric, [row for row in rows if row["metric"] in (metric, "")], direction(metric))
        for metric in metrics
        if rows
    ]


def _table(metric: str, rows: Sequence[Mapping[str, Any]], way: int | None) -> Table:
    lengths = sorted({int(row["length"]) for row in rows})
    cells = {(row["model"], row["length"]): row for row in rows}
    columns = [Column("model"), Column("encoding"), Column("train length", number=True)]
    lines: list[list[Cell | str]] = []
    for model in dict.fromkeys(row["model"] for row in rows):
        first = next(row for row in rows if row["model"] == model)
        values = [_value(cells.get((model, length))) for length in lengths]
        lines.append([model, first["encoding"], written(first["train_length"]), *values])
    unit = next((row["unit"] for row in rows if row["unit"]), "")
    below = [
        *reasons(rows, ("length",)),
        f"{metric or 'no value'}{f' ({unit})' if unit else ''}; ± is one standard error",
    ]
    heads = [Column(str(length), number=True) for length in lengths]
    found = Table(metric, [*columns, *heads], lines, kept=1, described=2, below=below)
    return best_of_columns(found, dict.fromkeys(range(len(columns), len(found.columns)), way))


def _value(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return with_error(row["value"], row["stderr"]) if row["status"] == "ok" else row["status"]
