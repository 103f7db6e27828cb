"""What the figures of perplexity share: panels side by side, a line for each model, one legend.

Choices:
    * Models that extrapolate well stay apart although others explode: the axis ends at
      `OFF_SCALE` times the lowest perplexity (or at twice the median, if that is higher), and the
      loss axis at the logarithm of that. A model's first value beyond it, or an infinite one, is a
      triangle at the upper edge; the tables hold the number.
    * Models are listed in the order of their lines at the right end of the last panel.
"""

import math
import statistics
from collections.abc import Collection, Iterable
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lpe_eval.report.figures.labels import LABELS
from lpe_eval.report.figures.style import BEST, LineStyle
from lpe_eval.report.figures.ticks import short_length
from lpe_eval.table import OPTIMUM

OFF_SCALE = 20.0
"""How many times the lowest perplexity the axis shows at least."""

GREY = "#555555"
_PANELS_IN_A_ROW = 3
_TEXT = ("corpus", "split")
_TELLING_APART = ("task", "dtype", "seed", "stride", "run")
_OTHERS = LineStyle("#C8C8C8", "", "-")


class Point(NamedTuple):
    """A value of a line in a panel, with the ends of its interval."""

    panel: str
    line: str
    x: float
    y: float
    low: float
    high: float


def line_names(records: list[dict], place: tuple[str, ...]) -> list[str]:
    """The model's name, its text where texts differ, and whatever else is needed to have one value at each place."""
    names = [str(row["model"]) for row in records]
    for column in _TEXT:
        if len({str(row[column]) for row in records if column in row}) > 1:
            names = [f"{name} · {row[column]}" for name, row in zip(names, records, strict=True)]
    apart = _told_apart(names, records, place)
    for column in _TELLING_APART:
        if apart == len(names):
            break
        more = [f"{name} · {row.get(column)}" for name, row in zip(names, records, strict=True)]
        # What differs by length alone, as a stride does, would cut each line into its points.
        if (found := _told_apart(more, records, place)) > apart:
            names, apart = more, found
    return names


def _told_apart(names: list[str], records: list[dict], place: tuple[str, ...]) -> int:
    return len({(name, *(row[key] for key in place)) for name, row in zip(names, records, strict=True)})


def best_lines(records: Iterable[dict], names: Iterable[str]) -> list[str]:
    """The lines of the best possible guess, by the names of the records' lines."""
    pairs = zip(records, names, strict=True)
    return list(dict.fromkeys(name for row, name in pairs if row.get("encoding") == OPTIMUM))


def train_lengths(records: Iterable[dict]) -> dict[str, list[int]]:
    """The known train lengths of the models of each protocol, rising."""
    found: dict[str, set[int]] = {}
    for row in records:
        if not pd.isna(row["train_length"]):
            found.setdefault(row["protocol"], set()).add(int(row["train_length"]))
    return {protocol: sorted(lengths) for protocol, lengths in found.items()}


def limits(points: list[Point], logarithmic: bool) -> tuple[float, float]:
    """Lower and upper end of the vertical axis; see `OFF_SCALE`."""
    values = [point.y for point in points if math.isfinite(point.y) and (point.y > 0 or not logarithmic)]
    if not values:
        return 1.0, 10.0
    if not logarithmic:
        values = [math.exp(min(value, 300.0)) for value in values]
    low, high = min(values), max(values)
    cap = max(OFF_SCALE * low, 2 * statistics.median(values))
    margin = max((min(high, cap) / low) ** 0.06, 1.03)
    # A round number, because the legend names it.
    high = float(f"{cap:.1g}") if high > cap else high * margin
    if logarithmic:
        return low / margin, high
    return math.log(low / margin), round(math.log(high) + 0.05, 1)


def draw(
    points: list[Point],
    styles: dict[str, LineStyle],
    train: dict[str, list[int]],
    limits: tuple[float, float],
    others: Collection[str] = (),
    unmarked: Collection[tuple[str, str, float]] = (),
    at_the_foot: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each panel of the points, and those panels.

    Args:
        points: of all lines.
        styles: by line, in the order of drawing.
        train: train lengths by panel, each marked.
        limits: lower and upper end of the vertical axis.
        others: lines that are drawn in grey, below the rest, and share one entry of the legend.
        unmarked: panel, line and place of points that may lie above the axis without a triangle.
        at_the_foot: whether the words beside a train length stand below, where the lines leave room there.
    """
    drawn = {point.line for point in points}
    styles = {line: _OTHERS if line in others else own for line, own in styles.items() if line in drawn}
    styles = dict(sorted(styles.items(), key=lambda item: item[0] not in others))
    names = list(dict.fromkeys(point.panel for point in points)) or [""]
    columns = min(len(names), _PANELS_IN_A_ROW)
    lines = math.ceil(len(names) / columns)
    height = max(3.2 * lines - 0.4 * (lines - 1), 0.6 + 0.155 * (len(styles) - len(set(others) & drawn)))
    figure = Figure(figsize=(1.8 + 2.6 * columns, height), layout="constrained")
    grid = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    across = [point.x for point in points] + [float(length) for found in train.values() for length in found]
    left, right = min(across, default=1.0), max(across, default=10.0)
    margin = max((right / left) ** 0.045, 1.05) if right > left else 1.5
    for name, axes in zip(names, grid, strict=False):
        axes.set(title=name, xscale="log", xlim=(left / margin, right * margin))
        here = [point for point in points if point.panel == name]
        for line, line_style in styles.items():
            _draw_line(
                axes, sorted((point for point in here if point.line == line), key=lambda point: point.x), line_style
            )
        marked = [point for point in here if (point.panel, point.line, point.x) not in unmarked]
        _mark_off_scale(axes, marked, styles, limits[1], margin**0.6)
        _mark_train_lengths(axes, train.get(name, []), at_the_foot)
    told = [point for point in points if (point.panel, point.line, point.x) not in unmarked]
    _legend(figure, told, styles, limits[1], others)
    return figure, grid[: len(names)]


def _draw_line(axes: Axes, own: list[Point], line_style: LineStyle) -> None:
    def finite(values: Iterable[float]) -> list[float]:
        return [value if math.isfinite(value) else math.nan for value in values]

    across = [point.x for point in own]
    low, high = finite(point.low for point in own), finite(point.high for point in own)
    axes.fill_between(across, low, high, color=line_style.color, alpha=0.15, linewidth=0)
    axes.plot(across, finite(point.y for point in own), **line_style._asdict())


def _mark_off_scale(axes: Axes, here: list[Point], styles: dict[str, LineStyle], high: float, apart: float) -> None:
    first: dict[str, float] = {}
    for point in sorted(here, key=lambda point: point.x):
        if point.y > high:
            first.setdefault(point.line, point.x)
    for x in sorted(set(first.values())):
        together = [line for line in first if first[line] == x]
        for place, line in enumerate(together):
            # Triangles at one length stand side by side, not on top of each other.
            beside = x * apart ** (place - (len(together) - 1) / 2)
            axes.plot([beside], [high], "^", color=styles[line].color, markersize=4.8, clip_on=False, zorder=5)


def _mark_train_lengths(axes: Axes, lengths: list[int], at_the_foot: bool) -> None:
    for place, length in enumerate(lengths):
        axes.axvline(length, color=GREY, linestyle=(0, (4, 3)), linewidth=0.8, zorder=1)
        left, right = axes.get_xlim()
        side = -1 if math.log(length / left) > 0.1 * math.log(right / left) else 1
        axes.annotate(
            f"{LABELS['train_length']} {short_length(length)}" if place == 0 else short_length(length),
            (length, 0.03 if at_the_foot else 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(2 * side, 0),
            textcoords="offset points",
            rotation=90,
            ha="right" if side < 0 else "left",
            va="bottom" if at_the_foot else "top",
            fontsize=7,
            color=GREY,
        )


def ticks(axes: Axes, places: list[int]) -> None:
    """Marks numbers of tokens below an axis, as people write them."""
    axes.xaxis.set_major_locator(FixedLocator([float(place) for place in places]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_length(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def label(panels: list[Axes], x: str, y: str) -> None:
    """Writes the names of the axes where no other panel is in between."""
    columns = min(len(panels), _PANELS_IN_A_ROW)
    for place, axes in enumerate(panels):
        axes.tick_params(labelbottom=True, left=place % columns == 0)
        if place + columns >= len(panels):
            axes.set_xlabel(x)
        if place % columns == 0:
            axes.set_ylabel(y)


def _legend(
    figure: Figure, points: list[Point], styles: dict[str, LineStyle], high: float, others: Collection[str]
) -> None:
    """The best guess, then lines from top to bottom as they end in the last panel, those without a value there last."""
    last = [point for point in points if point.panel == points[-1].panel]
    right = max((point.x for point in last), default=0.0)
    ends = {point.line: point.y for point in last if point.x == right and not math.isnan(point.y)}
    order = sorted(
        (line for line in styles if line not in others),
        key=lambda line: (styles[line] != BEST, line not in ends, -ends.get(line, 0)),
    )
    valued = {point.line for point in points if not math.isnan(point.y)}
    names = [line if line in valued else f"{line} (no value)" for line in order]
    handles = [Line2D([], [], **styles[line]._asdict()) for line in order]
    if len(order) < len(styles):
        handles.append(Line2D([], [], **_OTHERS._asdict()))
        names.append(f"{len(styles) - len(order)} other models")
    if any(point.y > high for point in points):
        handles.append(Line2D([], [], color=GREY, marker="^", linestyle="none", markersize=4.8))
        names.append(f"above {high:.3g}, or infinite")
    if handles:
        figure.legend(handles, names, loc="outside right upper", frameon=False, handlelength=2.6, labelspacing=0.3)
