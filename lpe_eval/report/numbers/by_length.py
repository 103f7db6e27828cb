"""The cells of a run that scored the same text at several lengths, and what follows for each model.

`nonoverlap`, `sliding` and `anchored` score the same targets at every length, so that two lengths are paired. `last`
does not: it has no part here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lpe_eval.report.numbers.effective_length import EffectiveLength, effective_length
from lpe_eval.report.numbers.resampling import spread, together
from lpe_eval.table import BlockSum

_UNPAIRED = "last"
_ANCHORED = "anchored"

Cell = tuple[str, str, int, int | None]
"""Model, protocol, length and stride."""


class Sweep(NamedTuple):
    """One model under one protocol at every length.

    Attributes:
        rows: of `nll_nats`, by length, the shortest first.
        blocks: sums of each length that has a value.
    """

    model: str
    protocol: str
    rows: Mapping[int, Mapping[str, Any]]
    blocks: Mapping[int, Sequence[BlockSum]]

    @property
    def longest(self) -> Mapping[str, Any]:
        """The row of the longest length."""
        return self.rows[max(self.rows)]

    @property
    def train_length(self) -> int | None:
        """The train length, where a row knows it."""
        known = (row["train_length"] for row in self.rows.values())
        return next((int(length) for length in known if length is not None and length == length), None)

    @property
    def without_value(self) -> list[int]:
        """Lengths without a value."""
        return [length for length in self.rows if length not in self.blocks]


class Change(NamedTuple):
    """How the loss changes from one length to another, in nats a token."""

    length: int
    from_length: int
    change: float
    stderr: float
    low: float
    high: float
    method: str
    tokens: int


def sweeps(rows: Sequence[Mapping[str, Any]], blocks: Callable[[Cell], Sequence[BlockSum]]) -> Iterator[Sweep]:
    """Every model and protocol of a run whose lengths scored the same text, in the order of the rows.

    Args:
        rows: of `rows.csv`; missing values are None or NaN, never pandas' NA.
        blocks: the sums of a cell, empty where there are none; asked for when its sweep is.
    """
    found: dict[tuple[str, str, int], dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        model, protocol, length = str(row["model"]), str(row["protocol"]), int(row["length"])
        if row["metric"] == "nll_nats" and not protocol.startswith(_UNPAIRED):
            # A spec may have one protocol twice, with two strides: the first at one length belongs to the first at all.
            turn = 0
            while length in found.get((model, protocol, turn), ()):
                turn += 1
            found.setdefault((model, protocol, turn), {})[length] = row
    for (model, protocol, _), own in found.items():
        held = {}
        for length in sorted(own):
            cell = model, protocol, length, _whole(own[length]["stride"])
            if own[length]["status"] == "ok" and (sums := blocks(cell)):
                held[length] = sums
        yield Sweep(model, protocol, {length: own[length] for length in sorted(own)}, held)


def is_anchored(protocol: str) -> bool:
    """Whether a protocol scores the same blocks of targets at every length, each at the end of its window."""
    return protocol.startswith(_ANCHORED)


def effective_lengths(found: Sequence[Sweep]) -> Iterator[tuple[Sweep, EffectiveLength]]:
    """Of each model that was measured under `anchored` at several lengths."""
    for sweep in found:
        if is_anchored(sweep.protocol) and len(sweep.rows) > 1:
            yield sweep, effective_length(sweep.blocks, sweep.without_value)


def changes(sweep: Sweep) -> list[Change]:
    """From the training length, where it was measured, else from the shortest; empty where nothing can be paired."""
    if len(sweep.blocks) < 2:
        return []
    own = sweep.train_length
    first = min(sweep.blocks) if own is None or own not in sweep.rows else own
    if first not in sweep.blocks:
        return []
    lengths = list(sweep.blocks)
    found = together([sweep.blocks[length] for length in lengths])
    if found is None:
        return []
    at = lengths.index(first)
    return [
        Change(
            length,
            first,
            float(found.losses[place] - found.losses[at]),
            *spread(found.replicates[:, place] - found.replicates[:, at], found.drawn, found.noun),
            found.tokens,
        )
        for place, length in enumerate(lengths)
    ]


def _whole(stride: Any) -> int | None:
    return None if stride is None or stride != stride else int(stride)
