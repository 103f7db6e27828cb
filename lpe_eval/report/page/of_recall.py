"""Charts of recall against distance or length, and a heat map of needles for each model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lpe_eval.report.figures.panels import line_names
from lpe_eval.report.page.lines import lines_of
from lpe_eval.report.page.of_items import BANDS, Seen, length_ticks, marks_of, points_of
from lpe_eval.report.page.parts import Chart, HeatCell, HeatMap, View
from lpe_eval.screen import counted

_VIEWS = {
    "gain_nats": "gained by the far context (nats)",
    "accuracy": "share of right answers",
    "exact_match": "share of answers that are all right",
}
_LEAST = 0.1
"""Nats at the full colour, at least: below nothing is nothing."""


def recall_charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart | HeatMap]:
    """What can be drawn.

    Args:
        rows: of one or several `recall.csv`, missing values None.
    """
    valued = [row for row in rows if row["value"] is not None and math.isfinite(row["value"])]
    return [*_against_length(valued), *_needles([row for row in valued if row["metric"] == "gain_nats"])]


def _against_length(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    whole = [dict(row) for row in rows if row["depth"] is None and row["metric"] in _VIEWS]
    metrics = [metric for metric in _VIEWS if any(row["metric"] == metric for row in whole)]
    if not whole:
        return []
    names = line_names(whole, ("task", "length", "metric"))
    seen = [
        Seen(name, row["task"], metrics.index(row["metric"]), _at(row), row["value"], row["stderr"],
             over=counted(int(row["n_items"]), "item") if row["n_items"] is not None else "")
        for row, name in zip(whole, names, strict=True)
    ]  # fmt: skip
    panels = list(dict.fromkeys(each.panel for each in seen))
    lines = lines_of(names)
    views = [View(metric.replace("_", " "), _VIEWS[metric]) for metric in metrics]
    points = points_of(seen, [line.name for line in lines], panels)
    told = [
        f"{BANDS}; 0 nats is no recall",
        "a repeated passage is drawn against its distance, everything else against the length",
    ]
    marks = marks_of(whole, "task")
    return [
        Chart("How much is recalled from far away", told, "model", "test", panels, views, lines,
              "distance or length (tokens)", length_ticks(seen), points, marks)
    ]  # fmt: skip


def _at(row: Mapping[str, Any]) -> int:
    return int(row["length"] if row["distance"] is None else row["distance"])


def _needles(rows: Sequence[Mapping[str, Any]]) -> list[HeatMap]:
    deep = [dict(row) for row in rows if row["depth"] is not None]
    if not deep:
        return []
    most = max([_LEAST, *(row["value"] for row in deep)])
    found = []
    named = line_names(deep, ("task", "length", "depth"))
    for name in dict.fromkeys(named):
        own = [row for row, line in zip(deep, named, strict=True) if line == name]
        for task in dict.fromkeys(row["task"] for row in own):
            cells = {(row["depth"], row["length"]): row for row in own if row["task"] == task}
            lengths = sorted({length for _, length in cells})
            lines = [
                (f"{depth} %", [_cell(cells.get((depth, length)), most) for length in lengths])
                for depth in sorted({depth for depth, _ in cells})
            ]
            told = [f"nats gained by the needle; full colour is {most:.3g}, and less than nothing has none"]
            heads = [f"{length:,}" for length in lengths]
            found.append(HeatMap(f"{name}: {task} by depth and length", told, "depth", heads, lines))
    return found


def _cell(row: Mapping[str, Any] | None, most: float) -> HeatCell:
    if row is None:
        return HeatCell("–")
    error = "" if row["stderr"] is None else f" ± {row['stderr']!r}"
    # Adding nothing takes the sign from what is rounded to nothing.
    return HeatCell(f"{round(row['value'], 2) + 0.0:.2f}", min(max(row["value"] / most, 0.0), 1.0),
                    f"{row['value']!r}{error}")  # fmt: skip
