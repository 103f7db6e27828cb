"""The figure of a kind of run that declares none of its own: each metric against length, a line a model."""

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
from lpe_eval.report.figures.ticks import short_length, thinned


def draw_items(rows: Sequence[Mapping[str, Any]], name: str, folder: Path) -> list[Path]:
    """Draws one figure with a panel a metric; nothing where no row has a value.

    Args:
        rows: with the columns of `table.ITEM_ROWS`, missing values None.
        name: of the files.
        folder: where they go.

    Raises:
        OutputError: a file cannot be written.
    """
    valued = [row for row in rows if row["value"] is not None and math.isfinite(row["value"])]
    return save(_figure(valued), folder, name) if valued else []


def _figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    styles = styles_of(row["model"] for row in rows)
    lengths = thinned(sorted({int(row["length"]) for row in rows}))
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(2.4 + 2.8 * len(metrics), 3.2), layout="constrained")
        panels = list(figure.subplots(1, len(metrics), squeeze=False).flat)
        for metric, axes in zip(metrics, panels, strict=True):
            unit = next((row["unit"] for row in rows if row["metric"] == metric and row["unit"]), "")
            axes.set(xscale="log", xlabel=LABELS["length"], ylabel=f"{metric} ({unit})" if unit else metric)
            for model, line in styles.items():
                own = [row for row in rows if row["metric"] == metric and row["model"] == model]
                places = sorted((row["length"], row["value"], row["stderr"] or 0.0) for row in own)
                axes.errorbar(
                    [x for x, _, _ in places],
                    [y for _, y, _ in places],
                    yerr=[0.0 if math.isnan(error) else error for _, _, error in places],
                    **line._asdict(),
                    label=model,
                )
            axes.xaxis.set_major_locator(FixedLocator([float(length) for length in lengths]))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_length(value)))
            axes.xaxis.set_minor_locator(NullLocator())
        handles, names = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, loc="outside right upper", frameon=False, handlelength=2.6)
    return figure
