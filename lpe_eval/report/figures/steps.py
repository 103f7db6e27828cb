"""Loss of the checkpoints of one training against their step, a line a length."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

from lpe_eval.report.figures.files import save
from lpe_eval.report.figures.labels import LABELS
from lpe_eval.report.figures.style import STYLE, styles_of


def draw_steps(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draws one figure with a panel for each protocol; nothing where no row has a value and a step.

    Args:
        rows: with the columns of `text_tables.BY_STEP`, missing values None.
        folder: where it goes.

    Raises:
        OutputError: a file cannot be written.
    """
    valued = [
        row for row in rows
        if row["metric"] == "nll_nats" and None not in (row["step"], row["value"]) and math.isfinite(row["value"])
    ]  # fmt: skip
    return save(_figure(valued), folder, "steps") if valued else []


def _figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    protocols = list(dict.fromkeys(row["protocol"] for row in rows))
    styles = styles_of(str(length) for length in sorted({row["length"] for row in rows}))
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(2.4 + 2.8 * len(protocols), 3.2), layout="constrained")
        panels = list(figure.subplots(1, len(protocols), squeeze=False, sharey=True).flat)
        for protocol, axes in zip(protocols, panels, strict=True):
            axes.set(xlabel=LABELS["step"], ylabel=LABELS["nll_nats"], title=protocol)
            for length, line in styles.items():
                own = [row for row in rows if row["protocol"] == protocol and str(row["length"]) == length]
                places = sorted((row["step"], row["value"], row["stderr"]) for row in own)
                errors = [0.0 if error is None or math.isnan(error) else error for _, _, error in places]
                axes.errorbar(
                    [step for step, _, _ in places], [value for _, value, _ in places], yerr=errors, **line._asdict(),
                    label=f"length {length}",
                )  # fmt: skip
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", frameon=False, handlelength=2.6)
    return figure
