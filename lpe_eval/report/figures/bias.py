"""What each head adds against distance: a panel a layer, a line a head, both axes as far as they go.

Choices:
    * Lines are means over texts and over an eighth of an octave of distances; the shade is one standard error over
      texts. The query's own key has no place on a logarithmic axis; the tables hold it.
    * Dashed, in the head's colour: the static bias where the text adds to one; of encodings that turn or scale queries
      and keys, what they would add to the mean of all keys at that distance.
    * Dotted, of encodings that only turn: size * (decay - 1), what a logit of the size of this layer's content would
      lose if all pairs of channels had an equal share in it. `decay` is the mean of cos(distance * frequency).
    * The vertical axis is linear near zero and logarithmic from some nats on where a line goes beyond `LINEAR` nats.
    * More than eight heads are coloured from dark to light.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from lpe_eval.records import LayerBias
from lpe_eval.report.figures.files import save
from lpe_eval.report.figures.labels import LABELS
from lpe_eval.report.figures.panels import GREY, ticks
from lpe_eval.report.figures.style import STYLE, styles_of
from lpe_eval.report.figures.ticks import readable, thinned
from lpe_eval.report.numbers.heads import alike

LINEAR = 40.0
"""Nats; beyond them the axis is logarithmic."""
_TOLD_APART, _NAMED = 8, 12
"""Heads with colours of their own, and heads that the legend names at most."""
_COLUMNS = 4


def draw_bias(layers: Sequence[LayerBias], title: str, folder: Path) -> list[Path]:
    """Draws `bias.png` and `bias.svg`.

    Raises:
        OutputError: a file cannot be written.
    """
    return save(bias_figure(layers, title), folder, "bias")


def bias_figure(layers: Sequence[LayerBias], title: str) -> Figure:
    """A panel for each layer, or one for all where all add the same to every text.

    Args:
        layers: in the order of the panels.
        title: stands above.
    """
    same = alike(layers)
    shown = layers[:1] if same else layers
    heads = max(len(layer.added) for layer in shown)
    colours = _colours(heads)
    columns = min(len(shown), _COLUMNS)
    lines = -(-len(shown) // columns)
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(2.0 + 2.5 * columns, max(0.5 + 2.3 * lines, 3.0)), layout="constrained")
        figure.suptitle(title, fontsize=9)
        grid = list(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
        for axes in grid[len(shown) :]:
            axes.set_axis_off()
        for layer, axes in zip(shown, grid, strict=False):
            axes.set_title("every layer" if same else f"layer {layer.layer}")
            _draw_layer(axes, layer, colours)
        _scale(grid[0], shown)
        for place, axes in enumerate(grid[: len(shown)]):
            axes.tick_params(labelbottom=True, left=place % columns == 0)
            if place + columns >= len(shown):
                axes.set_xlabel(LABELS["distance"])
            if place % columns == 0:
                axes.set_ylabel(LABELS["added"])
        _legend(figure, shown, colours)
    return figure


def _draw_layer(axes: Axes, layer: LayerBias, colours: Sequence[str]) -> None:
    spans = layer.fine.spans[1:]
    across = [float(np.sqrt(low * high)) for low, high in spans]
    texts = len(layer.fine.added)
    for head, colour in zip(range(len(layer.added)), colours, strict=False):
        by_text = layer.fine.added[:, head, 1:]
        mean = by_text.mean(axis=0)
        if texts > 1 and not layer.fixed:
            error = by_text.std(axis=0, ddof=1) / np.sqrt(texts)
            axes.fill_between(across, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
        axes.plot(across, mean, color=colour, linewidth=1.1)
        beside = _beside(layer)
        if beside is not None:
            axes.plot(across, beside[head, 1:], color=colour, linewidth=0.9, linestyle=(0, (4, 2)))
    if layer.decay is not None:
        pooled = np.array([layer.decay[low : high + 1].mean() for low, high in spans])
        axes.plot(across, layer.content_size * (pooled - 1), color="black", linewidth=1.0, linestyle=(0, (1, 1.4)))


def _beside(layer: LayerBias) -> NDArray[np.float64] | None:
    """The dashed line of each head."""
    if layer.fixed:
        return None
    return layer.fine.of_mean_key if layer.fine.static is None else layer.fine.static


def _scale(axes: Axes, layers: Sequence[LayerBias]) -> None:
    """Both axes, which all panels share."""
    farthest = max(int(layer.distance.max()) for layer in layers)
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.9, max(farthest * 1.15, 2.0))
    ticks(axes, thinned([2**power for power in range(farthest.bit_length())] or [1]))
    low, high = axes.dataLim.y0, axes.dataLim.y1
    for each in axes.figure.axes:
        if np.isfinite(each.dataLim.y0):
            low, high = min(low, each.dataLim.y0), max(high, each.dataLim.y1)
    if not np.isfinite(low) or max(-low, high) <= LINEAR:
        return
    axes.set_yscale("asinh", linear_width=1.0)
    axes.set_ylim(1.15 * low if low < 0 else low - 0.2, 1.15 * high if high > 0.2 else 0.2)
    sizes = [step * 10**power for power in range(7) for step in (1, 3)]
    places = [0.0, *(sign * size for size in sizes for sign in (-1.0, 1.0))]
    axes.yaxis.set_major_locator(FixedLocator(sorted(each for each in places if 1.15 * low <= each <= max(high, 0))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))
    axes.yaxis.set_minor_locator(NullLocator())


def _colours(heads: int) -> list[str]:
    if heads <= _TOLD_APART:
        return [each.color for each in styles_of(str(head) for head in range(heads)).values()]
    shades = colormaps["viridis"](np.linspace(0.0, 0.92, heads))
    return ["#" + "".join(f"{round(255 * part):02x}" for part in shade[:3]) for shade in shades]


def _legend(figure: Figure, layers: Sequence[LayerBias], colours: Sequence[str]) -> None:
    named = range(0, len(colours), -(-len(colours) // _NAMED))
    handles = [Line2D([], [], color=colours[head], linewidth=1.3) for head in named]
    names = [f"head {head}" for head in named]
    dashed = {"static bias" if layer.fine.static is not None else "for the mean key"
              for layer in layers if _beside(layer) is not None}  # fmt: skip
    for name in sorted(dashed):
        handles.append(Line2D([], [], color=GREY, linewidth=0.9, linestyle=(0, (4, 2))))
        names.append(name)
    if any(layer.decay is not None for layer in layers):
        handles.append(Line2D([], [], color="black", linewidth=1.0, linestyle=(0, (1, 1.4))))
        names.append("an even logit's decay")
    figure.legend(handles, names, loc="outside right upper", frameon=False, handlelength=2.4, labelspacing=0.3)


def panels_of(layers: Sequence[int], most: int) -> list[int]:
    """Some layers spread evenly, the first and the last among them; all where there are no more than `most`."""
    if len(layers) <= most:
        return list(layers)
    return [layers[round(place * (len(layers) - 1) / (most - 1))] for place in range(most)]
