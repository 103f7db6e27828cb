"""The figures of a speed measurement: time relative to plain attention, and memory, against length."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lpe_eval.report.figures.files import save
from lpe_eval.report.figures.labels import LABELS
from lpe_eval.report.figures.style import STYLE, styles_of
from lpe_eval.report.figures.ticks import readable, readable_ticks, short_length, thinned


def draw_speed(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draws time relative to plain attention, then memory.

    Raises:
        OutputError: a file cannot be written.
    """
    columns = {"speed": "times_plain", "memory": "pass_memory_mib"}
    return [path for name, column in columns.items() for path in save(speed_figure(rows, column), folder, name)]


def speed_figure(rows: Sequence[Mapping[str, Any]], column: str) -> Figure:
    """A column against length, both logarithmic: a panel a mode, a line an encoding.

    Args:
        rows: rows of `speed.csv`.
        column: `times_plain` or `pass_memory_mib`; values that are missing or zero have no point.
    """
    shown = [row for row in rows if row[column] is not None and math.isfinite(row[column]) and row[column] > 0]
    styles = styles_of(str(row["encoding"]) for row in shown)
    modes = list(dict.fromkeys(str(row["mode"]) for row in shown)) or [""]
    values = [float(row[column]) for row in shown] or [1.0]
    low, high = min(values) / 1.15, max(values) * 1.15
    if column == "times_plain":
        # Differences of a few per cent are noise, and must not fill the panel.
        low, high = min(low, 0.6), max(high, 2.0)
    lengths = thinned(sorted({int(row["length"]) for row in shown}))
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(2.4 + 2.8 * len(modes), 3.2), layout="constrained")
        panels = list(figure.subplots(1, len(modes), sharey=True, squeeze=False).flat)
        for mode, axes in zip(modes, panels, strict=True):
            axes.set(title=mode, xscale="log", yscale="log", ylim=(low, high), xlabel=LABELS["speed_length"])
            for encoding, line_style in styles.items():
                own = [row for row in shown if row["mode"] == mode and row["encoding"] == encoding]
                places = sorted((int(row["length"]), float(row[column])) for row in own)
                axes.plot([x for x, _ in places], [y for _, y in places], **line_style._asdict(), label=encoding)
            axes.xaxis.set_major_locator(FixedLocator([float(length) for length in lengths]))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_length(value)))
            axes.yaxis.set_major_locator(FixedLocator(readable_ticks(low, high)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_minor_locator(NullLocator())
        panels[0].set_ylabel(LABELS[column])
        handles, names = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, loc="outside right upper", frameon=False, handlelength=2.6)
    return figure
