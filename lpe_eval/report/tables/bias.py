"""What each head adds, for the screen: a line a head, a column an octave of distance."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lpe_eval.records import LayerBias
from lpe_eval.report.numbers.heads import LEAST, alike, change_of, mean_and_error
from lpe_eval.screen import Column, Table, number, with_error


def bias_tables(layers: Sequence[LayerBias], title: str) -> list[Table]:
    """What position adds; and by itself the static bias, where the text adds to it.

    Args:
        layers: those that are shown.
        title: model, encoding and position.
    """
    shown, name = ([layers[0]], "all") if alike(layers) else (layers, "")
    added = [
        [
            name or str(layer.layer),
            str(head),
            (change := change_of(layer.change[:, head])).kind or "-",
            with_error(change.mean, change.stderr),
            *(number(mean_and_error(layer.octaves.added[:, head, place])[0], 3) for place in _places(layer)),
        ]
        for layer in shown
        for head in range(len(layer.added))
    ]
    heads = _heads(shown)
    told = [Column("layer", number=True), Column("head", number=True)]
    tables = [
        Table(
            f"added by position (nats): {title}",
            [*told, Column("kind"), Column("near to far", number=True), *heads],
            [[*row, *[""] * (len(heads) + 4 - len(row))] for row in added],
            kept=2,
            described=2,
            below=_below(shown),
        )
    ]
    beside = [layer for layer in shown if layer.octaves.static is not None and not layer.fixed]
    if beside:
        static = [
            [name or str(layer.layer), str(head), *(number(value, 3) for value in values)]
            for layer in beside
            for head, values in enumerate(_rows(layer.octaves.static))
        ]
        columns = _heads(beside)
        rows = [[*row, *[""] * (len(columns) + 2 - len(row))] for row in static]
        tables.append(Table("of that the static bias, which no token moves", [*told, *columns], rows, kept=2))
    return tables


def _below(layers: Sequence[LayerBias]) -> list[str]:
    texts = len(layers[0].change)
    below = [
        "a column is the mean over those distances from the query to the key; 0 is the query's own key",
        "near to far: the mean over the farther half of the keys less that over the distances 1 to 7",
        f"kind: local where that falls by {LEAST:g} nat or more and by two standard errors, anti-local where it rises "
        "so, else flat",
    ]
    if all(layer.fixed for layer in layers):
        return [*below, "the same for every text"]
    error = f"; ± is one standard error over {texts} texts" if texts > 1 else "; one text gives no error"
    return [*below, f"differs from text to text{error}"]


def _heads(layers: Sequence[LayerBias]) -> list[Column]:
    """The octaves of the layer that reaches farthest; where windows end earlier, the last one may be shorter."""
    spans = max((layer.octaves.spans for layer in layers), key=len)
    return [Column(str(low) if low == high else f"{low}-{high}", number=True) for low, high in spans]


def _places(layer: LayerBias) -> range:
    return range(len(layer.octaves.spans))


def _rows(values: NDArray[np.float64] | None) -> list[list[float]]:
    return [] if values is None else values.tolist()
