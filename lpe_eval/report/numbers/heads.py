"""What kind of head it is: local, anti-local or flat; and the rows that say what each head adds.

A head is local where what position adds falls by at least a nat from near keys to far ones, anti-local where it rises
by as much, and flat otherwise. Where several texts were read the change must be two standard errors as well: a change
that other texts would not show names no kind.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpe_eval import bias_tables, table
from lpe_eval.records import LayerBias

LEAST = 1.0
"""Nats of a change that names a kind."""


class Change(NamedTuple):
    """Of one head from near keys to far ones, over texts; NaN where there is none."""

    mean: float
    stderr: float
    kind: str


def change_of(by_text: NDArray[np.float64]) -> Change:
    """The change of one head.

    Args:
        by_text: [n], of each text; NaN where a query sees its own key alone.
    """
    mean, stderr = mean_and_error(by_text)
    if math.isnan(mean):
        return Change(mean, stderr, "")
    told = abs(mean) >= LEAST and not abs(mean) < 2 * stderr
    return Change(mean, stderr, ("anti-local" if mean > 0 else "local") if told else "flat")


def mean_and_error(by_text: NDArray[np.float64]) -> tuple[float, float]:
    """A mean over texts, and its standard error; that of one text is NaN, that of equal ones is zero."""
    mean = float(by_text.mean())
    if len(by_text) < 2:
        return mean, math.nan
    if (by_text == by_text[0]).all():
        # A sum of equal numbers divided by their count is not always one of them.
        return float(by_text[0]), 0.0
    return mean, float(by_text.std(ddof=1)) / math.sqrt(len(by_text))


def bias_rows(layers: Sequence[LayerBias], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of `bias.csv`: one for each layer, head and octave of distance.

    Args:
        layers: what was measured.
        facts: what every row repeats.
    """
    found = []
    for layer in layers:
        octaves = layer.octaves
        for head in range(len(layer.added)):
            change = change_of(layer.change[:, head])
            for place, (first, last) in enumerate(octaves.spans):
                added, error = mean_and_error(octaves.added[:, head, place])
                found.append(
                    {
                        **facts,
                        bias_tables.LAYER.name: layer.layer,
                        bias_tables.HEAD.name: head,
                        bias_tables.DISTANCE_FROM.name: first,
                        bias_tables.DISTANCE_TO.name: last,
                        bias_tables.STATIC.name: _at(octaves.static, head, place),
                        bias_tables.ADDED.name: added,
                        bias_tables.ADDED_STDERR.name: error,
                        bias_tables.OF_MEAN_KEY.name: _at(octaves.of_mean_key, head, place),
                        bias_tables.FAR_LESS_NEAR.name: change.mean,
                        bias_tables.FAR_LESS_NEAR_STDERR.name: change.stderr,
                        bias_tables.HEAD_KIND.name: change.kind,
                        table.SCHEMA_COLUMN.name: table.SCHEMA,
                    }
                )
    return found


def alike(layers: Sequence[LayerBias]) -> bool:
    """Whether all layers add the very same to every text, so that one stands for all."""
    first = layers[0]
    return len(layers) > 1 and all(
        each.fixed and np.array_equal(each.distance, first.distance) and np.array_equal(each.added, first.added)
        for each in layers
    )


def _at(values: NDArray[np.float64] | None, head: int, place: int) -> float | None:
    return None if values is None else float(values[head, place])
