"""The change of the loss from the training length on, paired: where models that hold are told from one another.

Perplexities of two models differ by far more than what length does to either of them. The change from the training
length has neither that difference nor the difficulty of the text in it, so its error is a tenth of a perplexity's.

Choices:
    * The axis is cut at `CLIPPED` nats above the training length, or at twice the smallest change where no model holds;
      a model's first value beyond it is a triangle at the edge, as in the other figures. What a model gains is never
      cut.
    * Only lengths from the training length on are told apart: below it the axis may cut lines, and no triangle says so,
      since less context costs every model something.
    * Values beyond the training length alone decide the lower end.
"""

import math
from collections.abc import Sequence

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lpe_eval.report.figures.labels import LABELS
from lpe_eval.report.figures.panels import GREY, Point, draw, label, line_names, ticks, train_lengths
from lpe_eval.report.figures.style import STYLE, styles_of
from lpe_eval.report.figures.ticks import thinned

CLIPPED = 0.15
"""Nats above the training length at which a model has failed: 16 % more perplexity."""

_CELL = ("run", "model", "protocol", "length")
_LEAST = 0.02
"""Nats that the axis shows at least, above and below."""
_FOOT = 0.38
"""Part of the axis below no change, at least."""
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


def change_figure(rows: Sequence[dict], all_rows: Sequence[dict]) -> Figure:
    """Change of the loss against length: a panel a protocol, a line a model, a band for its paired 95 % interval.

    Args:
        rows: with the columns of `text_tables.CHANGES`.
        all_rows: the rows of `rows.csv`, so that a model looks as it does in the other figures.
    """
    records = named_changes(rows, all_rows)
    names = line_names(records, ("protocol", "length"))
    points = [
        Point(row["protocol"], name, float(row["length"]), row["change"], row["ci_low"], row["ci_high"])
        for row, name in zip(records, names, strict=True)
    ]
    beyond = beyond_training(points, records)
    shown = list(_facts(all_rows).values())
    low, high = limits_of_change(beyond)
    told = {(point.panel, point.line, point.x) for point in beyond}
    below = {place for point in points if (place := (point.panel, point.line, point.x)) not in told}
    with style.context(["default", STYLE]):
        styles = styles_of([*line_names(shown, ("protocol", "length")), *names])
        figure, panels = draw(points, styles, train_lengths(records), (low, high), unmarked=below, at_the_foot=True)
        for axes in panels:
            axes.set_ylim(low, high)
            axes.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
            ticks(axes, thinned(sorted({int(row["length"]) for row in records})))
            _nats(axes, low, high)
        label(panels, LABELS["length"], LABELS["change"])
    return figure


def named_changes(rows: Sequence[dict], all_rows: Sequence[dict]) -> list[dict]:
    """The changes with what `rows.csv` says of their cells, so that their lines are named as in the other figures."""
    facts = _facts(all_rows)
    return [{**facts.get(tuple(row[name] for name in _CELL), {}), **row} for row in rows]


def beyond_training(points: Sequence[Point], records: Sequence[dict]) -> list[Point]:
    """The points of the length that changes are from, and of longer ones; these decide the axis."""
    return [point for point, row in zip(points, records, strict=True) if row["length"] >= row["from_length"]]


def _facts(all_rows: Sequence[dict]) -> dict[tuple, dict]:
    return {tuple(row[name] for name in _CELL): row for row in all_rows if row["metric"] == "perplexity"}


def limits_of_change(points: Sequence[Point]) -> tuple[float, float]:
    """Lower and upper end of the vertical axis."""
    values = [point.y for point in points if math.isfinite(point.y)]
    if not values:
        return -_LEAST, _LEAST
    last: dict[tuple[str, str], float] = {}
    for point in points:
        if math.isfinite(point.y):
            last[point.panel, point.line] = max(last.get((point.panel, point.line), -math.inf), point.y)
    highest, cut = max(values), max(CLIPPED, 2 * min(last.values()))
    high = cut if highest > cut else 1.06 * max(highest, _LEAST)
    # Below the line of no change stand the words beside the train length.
    return min(1.1 * min(values), -_LEAST, -_FOOT * high / (1 - _FOOT)), high


def _nats(axes: Axes, low: float, high: float) -> None:
    step = next((each for each in _STEPS if (high - low) / each <= 7), (high - low) / 5)
    places = [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    axes.yaxis.set_major_locator(FixedLocator(places))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.2g}" if abs(value) > 1e-9 else "0"))
    axes.yaxis.set_minor_locator(NullLocator())
