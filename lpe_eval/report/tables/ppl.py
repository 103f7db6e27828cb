"""The table of a perplexity run for the screen: a line a model, a column for each protocol and length."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lpe_eval.report.tables.far_context import EFFECTIVE_LENGTH
from lpe_eval.report.tables.reasons import reasons
from lpe_eval.screen import Cell, Column, Table, counted, missing, with_error, written
from lpe_eval.table import OPTIMUM

_DESCRIPTORS = (("encoding", "encoding"), ("train_length", "train length"))
_TELLING_APART = ("task", "corpus", "split", "dtype", "seed", "stride", "run")


class _Place(NamedTuple):
    protocol: str
    length: int


def perplexity_table(
    rows: Sequence[Mapping[str, Any]],
    metric: str = "perplexity",
    lengths: Mapping[str, str] | None = None,
    best_of: Callable[..., float] = min,
) -> Table:
    """The rows of one metric; the lowest value of a column is the best, that of the optimum apart.

    Args:
        rows: rows with the columns of `rows.csv`; missing is None, NaN or pandas' NA.
        metric: which.
        lengths: by model, its effective length as it is written; None or empty leaves the column out.
        best_of: `max` where the highest is the best.
    """
    shown = _told_apart([row for row in rows if row["metric"] == metric])
    if not shown:
        return Table("", [], [], below=[f"there is no row of {metric}"])
    protocols = list(dict.fromkeys(str(row["protocol"]) for row in shown))
    places = sorted(
        {_Place(str(row["protocol"]), int(row["length"])) for row in shown},
        key=lambda place: (protocols.index(place.protocol), place.length),
    )
    cells: dict[tuple[str, _Place], Mapping[str, Any]] = {}
    for row in shown:
        cells[str(row["model"]), _Place(str(row["protocol"]), int(row["length"]))] = row
    models = {at: row for at, row in cells.items() if row["encoding"] != OPTIMUM}
    best = {place: _best((row for (_, at), row in models.items() if at == place), best_of) for place in places}
    lines: list[list[Cell | str]] = []
    for model in dict.fromkeys(model for model, _ in cells):
        first = next(row for (name, _), row in cells.items() if name == model)
        values = [_cell(cells.get((model, place)), best[place]) for place in places]
        described = [written(first[name]) for name, _ in _DESCRIPTORS]
        described += [lengths.get(str(first.get("named", model)), "-")] if lengths else []
        lines.append([model, *described, *values])
    heads = [title for _, title in _DESCRIPTORS] + ([EFFECTIVE_LENGTH] if lengths else [])
    columns = [Column("model"), *(Column(title) for title in heads)]
    columns += [Column(str(place.length), place.protocol, number=True) for place in places]
    below = [*reasons(shown, ("protocol", "length")), caption(shown, metric)]
    return Table("", columns, lines, kept=1, described=len(heads), below=below)


def caption(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """One sentence: what was measured on what text, and what the sign of error means."""
    valued = [row for row in rows if row["status"] in ("ok", "error")]
    facts = [
        metric,
        f"corpus {_several(rows, 'corpus')}, {_several(rows, 'split')} split",
        f"{_range(valued, 'n_tokens', 'scored token')} in {_range(valued, 'n_documents', 'document')} for each value",
        f"protocol {_several(rows, 'protocol')}",
    ]
    methods = sorted({str(row["ci_method"]) for row in valued} - {"none"})
    if methods:
        facts.append(f"± is one standard error ({', '.join(methods)})")
    return "; ".join(facts) + "; bold is the lowest of its column"


def _told_apart(rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows whose model names also say what else differs, where one model has several values at a place."""
    for column in _TELLING_APART:
        if len({(row["model"], row["protocol"], row["length"]) for row in rows}) == len(rows):
            break
        if len({str(row[column]) for row in rows}) > 1:
            rows = [
                {**row, "model": f"{row['model']} ({written(row[column])})", "named": row.get("named", row["model"])}
                for row in rows
            ]
    return rows


def _cell(row: Mapping[str, Any] | None, best: float) -> Cell:
    if row is None:
        return Cell("")
    if row["status"] not in ("ok", "error"):
        return Cell(str(row["status"]))
    stderr = None if missing(row["stderr"]) else float(row["stderr"])
    value = with_error(None if missing(row["value"]) else float(row["value"]), stderr)
    return Cell(value, row["value"] == best) if row["status"] == "ok" else Cell(f"error ({value})")


def _best(rows: Iterable[Mapping[str, Any]], best_of: Callable[..., float]) -> float:
    return best_of((float(row["value"]) for row in rows if row["status"] == "ok"), default=math.nan)


def _several(rows: Sequence[Mapping[str, Any]], column: str) -> str:
    return ", ".join(dict.fromkeys(written(row[column]) for row in rows))


def _range(rows: Sequence[Mapping[str, Any]], column: str, noun: str) -> str:
    counts = [int(row[column]) for row in rows] or [0]
    low, high = min(counts), max(counts)
    return counted(low, noun) if low == high else f"{low:,} to {counted(high, noun)}"
