"""The style of a line, and the style that all figures share.

The colours are those of Okabe and Ito (2008), which the colour-blind tell apart, with a brown in
the place of their yellow, which is faint on white. From the ninth line on, the dashes differ as well;
no two of the first 32 lines are alike. Every setting is given here, so that a matplotlibrc
of the machine does not change a picture.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F3C00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
_DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1.2, 1.4)))
SHADES = ("#FFFFFF", "#BFD9EE", "#56A0D3", "#0072B2", "#003E63")
"""From nothing to the most, for heat maps."""

STYLE = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.2,
    "lines.markeredgewidth": 0.35,
    "lines.markeredgecolor": "white",
}


class LineStyle(NamedTuple):
    """Colour, marker and dashes, named as matplotlib names them."""

    color: str
    marker: str
    linestyle: str | tuple[int, tuple[float, ...]]


BEST = LineStyle("#000000", "", (0, (4, 2)))
"""Of the best possible guess, which is no model."""


def styles_of(lines: Iterable[str], best: Collection[str] = ()) -> dict[str, LineStyle]:
    """A style for each distinct line, in the order of their first appearance; `best` are those of the best guess."""
    models = dict.fromkeys(line for line in lines if line not in best)
    return dict.fromkeys(best, BEST) | {
        line: LineStyle(
            _COLOURS[place % len(_COLOURS)],
            _MARKERS[place % len(_MARKERS)],
            _DASHES[place // len(_COLOURS) % len(_DASHES)],
        )
        for place, line in enumerate(models)
    }
