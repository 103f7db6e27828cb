"""Tables become figures: perplexity against length, its change from the training length, and loss against context.

Each function takes frames and gives a matplotlib `Figure`; nothing here touches pyplot or its
global state, and settings of the machine (matplotlibrc) do not change a picture. `panels.py` has
what the figures share, `change.py` the change, and `context.py` the loss against context.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lpe_eval.report.figures.change import change_figure
from lpe_eval.report.figures.context import position_figure
from lpe_eval.report.figures.files import save
from lpe_eval.report.figures.labels import LABELS
from lpe_eval.report.figures.panels import Point, best_lines, draw, label, limits, line_names, ticks, train_lengths
from lpe_eval.report.figures.style import STYLE, styles_of
from lpe_eval.report.figures.ticks import readable, readable_ticks, thinned
from lpe_eval.report.folders.derived import Row, change_rows, sweeps_of
from lpe_eval.report.folders.ppl import Run
from lpe_eval.report.numbers.tokenizers import n_tokenizers
from lpe_eval.table import REGRET

_LEAST_REGRET = 1e-3


def draw_perplexity(runs: Sequence[Run], folder: Path, changes: Sequence[Row] | None = None) -> list[Path]:
    """Draws perplexity by length and its change, and of a single run the loss by context where it was kept.

    Where models have different tokenizers, bits per byte are drawn too, and regret where the optimum is known.

    Args:
        runs: their tables.
        folder: where figures go.
        changes: the rows of `changes.csv`; None where they are reckoned from the tables.
    """
    rows = pd.concat([run.rows for run in runs])
    metrics = ["perplexity"] if n_tokenizers([run.provenance for run in runs]) < 2 else ["perplexity", "bits_per_byte"]
    written = [path for each in metrics for path in save(perplexity_figure(rows, each), folder, each)]
    if REGRET in set(rows["metric"]):
        written += save(perplexity_figure(rows, REGRET), folder, "regret")
    if changes is None:
        changes = [row for run in runs for row in change_rows(sweeps_of(run))]
    if changes:
        written += save(change_figure(changes, rows.to_dict("records")), folder, "change")
    if len(runs) == 1 and len(runs[0].by_position):
        written += save(position_figure(runs[0].by_position, runs[0].rows), folder, "loss_by_context")
    return written


def perplexity_figure(rows: pd.DataFrame, metric: str = "perplexity") -> Figure:
    """Perplexity against evaluation length, both logarithmic: a panel a protocol, a line a model.

    Args:
        rows: rows of one or several runs, as `read_run` gives them; other metrics are left out.
        metric: `bits_per_byte` serves models with different tokenizers; `regret_nats` below a thousandth of a nat is
            not drawn.
    """
    records = [row for row in rows.to_dict("records") if row["metric"] == metric]
    names = line_names(records, ("protocol", "length"))
    points = [
        Point(row["protocol"], name, float(row["length"]), row["value"], row["ci_low"], row["ci_high"])
        for row, name in zip(records, names, strict=True)
    ]
    lengths = thinned(sorted({int(row["length"]) for row in records}))
    low, high = _of_regret(points) if metric == REGRET else limits(points, logarithmic=True)
    with style.context(["default", STYLE]):
        styles = styles_of(names, best_lines(records, names))
        figure, panels = draw(points, styles, train_lengths(records), (low, high))
        for axes in panels:
            axes.set_yscale("log")
            axes.set_ylim(low, high)
            ticks(axes, lengths)
            axes.yaxis.set_major_locator(FixedLocator(readable_ticks(low, high)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))
            axes.yaxis.set_minor_locator(NullLocator())
        label(panels, LABELS["length"], LABELS[metric])
    return figure


def _of_regret(points: Sequence[Point]) -> tuple[float, float]:
    """Lower and upper end of an axis of regret, which is never so high that it hides what is low."""
    values = [point.y for point in points if math.isfinite(point.y) and point.y > _LEAST_REGRET] or [_LEAST_REGRET]
    return min(values) / 1.2, max(values) * 1.2
