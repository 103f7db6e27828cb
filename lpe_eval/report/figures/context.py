"""Loss against context: what a target costs by how many tokens it sees.

Choices:
    * A point is the mean over neighbouring sizes of context that together have `TARGETS` targets, so that a line
      shows the model and not the noise of single tokens.
    * Of more than `NAMED` models those with the lowest loss at the longest context have a colour and a name; the
      others are grey. `lpe-eval plot --models` chooses others.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib import style
from matplotlib.figure import Figure

from lpe_eval.report.figures.labels import LABELS
from lpe_eval.report.figures.panels import Point, best_lines, draw, label, limits, line_names, ticks, train_lengths
from lpe_eval.report.figures.style import STYLE, styles_of
from lpe_eval.report.figures.ticks import short_length, thinned

TARGETS = 1000
"""Targets behind a point at least, where a line has as many."""
NAMED = 8
"""Models with a colour and a name at most."""


def position_figure(by_position: pd.DataFrame, rows: pd.DataFrame) -> Figure:
    """Mean loss against how much context a target had, at the longest length of each protocol.

    Args:
        by_position: sums by context, as `read_run` gives them.
        rows: the rows of the same run, for the train lengths.
    """
    points, titles = context_points(by_position)
    of_rows = [row for row in rows.to_dict("records") if row["metric"] == "perplexity"]
    train = {titles[name]: found for name, found in train_lengths(of_rows).items() if name in titles}
    # In the order of the rows, so that a model looks as it does in the other figure.
    names = line_names(of_rows, ("protocol", "length"))
    best = best_lines(of_rows, names)
    styles = styles_of([*names, *(point.line for point in points)], best)
    low, high = limits(points, logarithmic=False)
    with style.context(["default", STYLE]):
        plain = {name: each._replace(marker="") for name, each in styles.items()}
        figure, panels = draw(
            points, plain, train, (low, high), _others(each for each in points if each.line not in best)
        )
        for axes in panels:
            axes.set_ylim(low, high)
            shown = [math.log2(point.x) for point in points] or [0.0]
            ticks(axes, thinned([2**power for power in range(math.ceil(min(shown)), math.floor(max(shown)) + 1)]))
        label(panels, LABELS["context"], LABELS["nll_nats"])
    return figure


def context_points(by_position: pd.DataFrame) -> tuple[list[Point], dict[str, str]]:
    """What that figure shows: points without intervals, and the title of each protocol's panel.

    Args:
        by_position: sums by context, as `read_run` gives them.
    """
    records = [row for row in by_position.to_dict("records") if row["n_tokens"] > 0]
    longest: dict[str, int] = {}
    for row in records:
        longest[row["protocol"]] = max(longest.get(row["protocol"], 0), row["length"])
    records = [row for row in records if row["length"] == longest[row["protocol"]]]
    titles = {protocol: f"{protocol}, length {short_length(length)}" for protocol, length in longest.items()}
    lines: dict[tuple[str, str], list[Mapping[Any, Any]]] = {}
    for row, name in zip(records, line_names(records, ("protocol", "length", "context_from")), strict=True):
        lines.setdefault((titles[row["protocol"]], name), []).append(row)
    points = [Point(*line, *place, math.nan, math.nan) for line, own in lines.items() for place in _pooled(own)]
    return points, titles


def _pooled(buckets: Iterable[Mapping[Any, Any]]) -> list[tuple[float, float]]:
    """Context and mean loss of neighbouring buckets pooled until `TARGETS` are there; a rest joins the last point."""
    pools: list[list[Mapping[Any, Any]]] = [[]]
    for bucket in sorted(buckets, key=lambda each: each["context_from"]):
        if sum(each["n_tokens"] for each in pools[-1]) >= TARGETS:
            pools.append([])
        pools[-1].append(bucket)
    if len(pools) > 1 and sum(each["n_tokens"] for each in pools[-1]) < TARGETS:
        pools[-2:] = [[*pools[-2], *pools[-1]]]
    found = []
    for pool in pools:
        count = sum(each["n_tokens"] for each in pool)
        first, last = max(pool[0]["context_from"], 1), max(pool[-1]["context_to"], 1)
        found.append((math.sqrt(first * last), sum(each["nll_nats"] for each in pool) / count))
    return found


def _others(points: Iterable[Point]) -> set[str]:
    """The lines beyond the `NAMED` whose loss is the lowest where they end."""
    ends: dict[str, tuple[float, float]] = {}
    for point in points:
        ends[point.line] = max(ends.get(point.line, (0.0, 0.0)), (point.x, point.y))
    order = sorted(ends, key=lambda line: (math.isnan(ends[line][1]), ends[line][1]))
    return set(order[NAMED:])
