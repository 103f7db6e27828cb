"""The figures of a run of recall: what is gained against the distance or length, and a heat map of needles."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lpe_eval.report.figures.files import save
from lpe_eval.report.figures.style import SHADES, STYLE, styles_of
from lpe_eval.report.figures.ticks import short_length, thinned

_COLOURS = LinearSegmentedColormap.from_list("gain", SHADES)

_IN_A_ROW = 5
"""Heat maps."""

_MOST_NUMBERS = 60
"""Cells of a heat map up to which each has its number written in it."""

_DARK = 0.6
"""Share of a colour scale from which on ink is white."""


def draw_recall(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draws `recall`, and `needle` where needles were hidden at depths; nothing where no row has a value.

    Args:
        rows: of `recall.csv`, missing values None.
        folder: where they go.

    Raises:
        OutputError: a file cannot be written.
    """
    valued = [row for row in rows if row["value"] is not None and math.isfinite(row["value"])]
    gains = [row for row in valued if row["metric"] == "gain_nats"]
    files = save(recall_figure(gains), folder, "recall") if gains else []
    deep = [row for row in gains if row["depth"] is not None]
    return files + (save(needle_figure(deep), folder, "needle") if deep else [])


def recall_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Nats gained against length, of `repeat` against distance: a panel a test, a line a model.

    Args:
        rows: of `gain_nats`; those of single depths are left out.
    """
    whole = [row for row in rows if row["depth"] is None]
    tasks = list(dict.fromkeys(row["task"] for row in whole))
    styles = styles_of(row["model"] for row in whole)
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(2.4 + 2.8 * len(tasks), max(3.2, 0.6 + 0.155 * len(styles))), layout="constrained")
        for task, axes in zip(tasks, figure.subplots(1, len(tasks), squeeze=False).flat, strict=True):
            own = [row for row in whole if row["task"] == task]
            distances = any(row["distance"] is not None for row in own)
            axes.axhline(0.0, color="#888888", linewidth=0.8)
            for model, line in styles.items():
                places = sorted(
                    (_at(row), row["value"], row["stderr"] or 0.0) for row in own if row["model"] == model
                )  # fmt: skip
                errors = [0.0 if math.isnan(error) else error for _, _, error in places]
                axes.errorbar(
                    [x for x, _, _ in places], [y for _, y, _ in places], errors, **line._asdict(), label=model
                )  # fmt: skip
            axes.set(xscale="log", title=task, xlabel=f"{'distance' if distances else 'length'} (tokens)")
            _mark(axes, thinned(sorted({_at(row) for row in own})))
        first = figure.axes[0]
        first.set_ylabel("gained by the far context (nats)")
        handles, names = first.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", frameon=False, handlelength=2.6, labelspacing=0.3)
    return figure


def _at(row: Mapping[str, Any]) -> int:
    return int(row["length"] if row["distance"] is None else row["distance"])


def _mark(axes: Axes, lengths: list[int]) -> None:
    axes.xaxis.set_major_locator(FixedLocator([float(length) for length in lengths]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_length(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def needle_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Nats gained by depth and length: a panel a model, one scale of colours for all.

    Args:
        rows: of `gain_nats` at depths.
    """
    models = list(dict.fromkeys(row["model"] for row in rows))
    lengths = sorted({int(row["length"]) for row in rows})
    depths = sorted({int(row["depth"]) for row in rows})
    # Below nothing is nothing: one colour.
    most = max([0.1, *(float(row["value"]) for row in rows)])
    columns = min(_IN_A_ROW, len(models))
    lines = -(-len(models) // columns)
    with style.context(["default", {**STYLE, "axes.grid": False}]):
        size = (
            1.6 + columns * max(1.5, 0.42 * len(lengths)),
            max(2.8, 0.7 + lines * max(1.3, 0.5 + 0.22 * len(depths))),
        )
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        shown = None
        for axes in panels.flat:
            axes.set_axis_off()
        for model, axes in zip(models, panels.flat, strict=False):
            axes.set_axis_on()
            values = {(row["depth"], row["length"]): float(row["value"]) for row in rows if row["model"] == model}
            grid = [[values.get((depth, length), math.nan) for length in lengths] for depth in depths]
            shown = axes.imshow(grid, cmap=_COLOURS, vmin=0.0, vmax=most, aspect="auto")
            axes.set_title(model)
            axes.set_xticks(range(len(lengths)), [short_length(length) for length in lengths], rotation=60)
            axes.set_yticks(range(len(depths)), [f"{depth} %" for depth in depths])
            axes.tick_params(length=0)
            if len(lengths) * len(depths) <= _MOST_NUMBERS:
                _write(axes, grid, most)
        for column in panels.T:
            # Where the last line of panels has no more, the one above has the numbers.
            [axes for axes in column if axes.axison][-1].tick_params(labelbottom=True)
        figure.supxlabel("length (tokens)", fontsize=STYLE["axes.labelsize"])
        figure.supylabel("depth of the needle", fontsize=STYLE["axes.labelsize"])
        if shown is not None:
            figure.colorbar(shown, ax=panels, label="gained by the needle (nats)", extend="min", shrink=0.8)
    return figure


def _write(axes: Axes, grid: Sequence[Sequence[float]], most: float) -> None:
    for row, values in enumerate(grid):
        for column, value in enumerate(values):
            if math.isfinite(value):
                ink = "white" if value > _DARK * most else "black"
                # Adding nothing takes the sign from what is rounded to nothing.
                axes.text(column, row, f"{round(value, 1) + 0.0:.1f}", ha="center", va="center", color=ink, fontsize=6)
