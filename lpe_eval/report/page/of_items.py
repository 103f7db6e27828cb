"""Charts of rows that have a value, an error and a length: of a kind that declares nothing of its own, and of speed."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lpe_eval.report.figures.labels import LABELS
from lpe_eval.report.figures.panels import line_names
from lpe_eval.report.figures.ticks import thinned
from lpe_eval.report.page.lines import lines_of
from lpe_eval.report.page.parts import Chart, Point, View
from lpe_eval.screen import number, with_error

ERRORS = 2.0
"""Standard errors that a band has on either side."""
BANDS = f"bands are {ERRORS:g} standard errors; what is infinite or missing is not drawn"

_OF_SPEED = {"times_plain": True, "pass_memory_mib": True, "median_tokens_per_second": True}


class Seen(NamedTuple):
    """A value before it has a place in a chart.

    Attributes:
        interval: its ends; None for `ERRORS` standard errors on either side.
    """

    line: str
    panel: str
    view: int
    x: float
    y: float | None
    stderr: float | None = None
    interval: tuple[float | None, float | None] | None = None
    over: str = ""


def points_of(seen: Iterable[Seen], lines: Sequence[str], panels: Sequence[str]) -> list[Point]:
    """Those that can be drawn, in the order of the lengths.

    Args:
        seen: in any order.
        lines: by name.
        panels: by name.
    """
    line_at, panel_at = ({name: place for place, name in enumerate(names)} for names in (lines, panels))
    found = []
    for each in seen:
        if each.y is None or not math.isfinite(each.y):
            continue
        error = each.stderr if each.stderr is not None and math.isfinite(each.stderr) else None
        low, high = each.interval or (None, None)
        if each.interval is None and error is not None:
            low, high = each.y - ERRORS * error, each.y + ERRORS * error
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
            low = high = None
        stored = f"{each.y!r}" if error is None else f"{each.y!r} ± {error!r}"
        told = number(each.y) if error is None else with_error(each.y, error)
        found.append(
            Point(
                line_at[each.line], panel_at[each.panel], each.view, float(each.x), float(each.y), low, high, told,
                stored, each.over,
            )
        )  # fmt: skip
    return sorted(found, key=lambda point: (point.line, point.x))


def length_ticks(seen: Iterable[Seen]) -> list[float]:
    """Numbers below an axis of lengths."""
    return [float(length) for length in thinned(sorted({round(each.x) for each in seen}))]


def marks_of(rows: Sequence[Mapping[str, Any]], panel: str) -> dict[str, list[int]]:
    """Train lengths by panel.

    Args:
        rows: missing values None.
        panel: the column that says the panel.
    """
    found: dict[str, set[int]] = {}
    for row in rows:
        if row.get("train_length") is not None:
            found.setdefault(str(row[panel]), set()).add(int(row["train_length"]))
    return {name: sorted(lengths) for name, lengths in found.items()}


def item_charts(rows: Sequence[Mapping[str, Any]], title: str, further: Collection[str] = ()) -> list[Chart]:
    """Each metric against length; empty where no row has a value, or lengths do not tell them apart.

    Args:
        rows: with the columns of `table.ITEM_ROWS`, missing values None.
        title: of the kind.
        further: columns that tell parts of a cell apart; only rows of the whole are drawn.
    """
    whole = [dict(row) for row in rows if all(row.get(name) is None for name in further) and row["metric"]]
    metrics = list(dict.fromkeys(str(row["metric"]) for row in whole))
    names = line_names(whole, ("task", "length", "metric")) if whole else []
    seen = [
        Seen(name, str(row["task"]), metrics.index(row["metric"]), row["length"], row["value"], row["stderr"],
             over=f"{row['n_items']:,} items" if row.get("n_items") is not None else "")
        for row, name in zip(whole, names, strict=True)
    ]  # fmt: skip
    panels = list(dict.fromkeys(each.panel for each in seen))
    lines = lines_of(names)
    points = points_of(seen, [line.name for line in lines], panels)
    if not points:
        return []
    units = {metric: next((row["unit"] for row in whole if row["metric"] == metric and row["unit"]), "")
             for metric in metrics}  # fmt: skip
    views = [View(metric, f"{metric} ({units[metric]})" if units[metric] else metric) for metric in metrics]
    marks = marks_of(whole, "task")
    return [
        Chart(f"{title} against length", [BANDS], "model", "task", panels, views, lines, LABELS["length"],
              length_ticks(seen), points, marks)
    ]  # fmt: skip


def speed_charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Time beside plain attention, memory and tokens a second, against length.

    Args:
        rows: of `speed.csv`, missing values None.
    """
    seen = [
        Seen(str(row["encoding"]), str(row["mode"]), view, row["length"], row[column], over=f"{row['rounds']} rounds")
        for view, column in enumerate(_OF_SPEED)
        for row in rows
        if row[column] is None or row[column] > 0
    ]
    panels = list(dict.fromkeys(each.panel for each in seen))
    lines = lines_of([each.line for each in seen])
    points = points_of(seen, [line.name for line in lines], panels)
    views = [
        View("time", LABELS["times_plain"], True), View("memory", LABELS["pass_memory_mib"], True),
        View("speed", "tokens a second", True),
    ]  # fmt: skip
    told = ["time is that of a pass over that of plain causal attention in the same round, median over the rounds"]
    chart = Chart("What each encoding costs", told, "encoding", "mode", panels, views, lines, LABELS["speed_length"],
                  length_ticks(seen), points, {})  # fmt: skip
    return [chart] if points else []
