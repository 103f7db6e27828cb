"""Units of text drawn again and again: what standard errors and intervals are made of.

`statistics.py` tells the choices and where they come from.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lpe_eval.records import columns_of
from lpe_eval.report.numbers.student import expansion
from lpe_eval.table import BlockSum

MIN_DOCUMENTS = 8
"""Fewest documents that are resampled as wholes: from here on the interval covers about 94 %
(simulated, 1000 replicates); its ends are then the 6th replicate from either side, while with
fewer they run into the most extreme ones (2nd or 3rd at 6 documents, 1st at 5, covering 92 %)."""

_RESAMPLED_AT_ONCE = 2**20
_NAN = float("nan")


class Uncertainty(NamedTuple):
    """A standard error, a 95 % interval, and how both were made."""

    stderr: float
    low: float
    high: float
    method: str


class Together(NamedTuple):
    """Losses of several measurements of the same text, resampled together.

    Attributes:
        losses: nats a token of each, on the text that all scored.
        replicates: the same for each resampling; a difference of two columns is paired.
        drawn: units that were resampled.
        worth: as many equal ones are worth as much: (Σ n)² / Σ n².
        noun: what they are, "documents" or "blocks".
        tokens: targets that all scored.
    """

    losses: Float[np.ndarray, " m"]
    replicates: Float[np.ndarray, "r m"]
    drawn: int
    worth: int
    noun: str
    tokens: int


class Placed(NamedTuple):
    """Sums by place in a text, in the order of places, each of which is there once.

    Attributes:
        texts: digest and document, sorted.
        text: which of them a row is of.
        block: number of its block.
        sums: c of each block.
    """

    texts: Sequence[tuple[str, str]]
    text: Int[np.ndarray, " n"]
    block: Int[np.ndarray, " n"]
    sums: Float[np.ndarray, "n c"]


UNKNOWN = Uncertainty(_NAN, _NAN, _NAN, "none")


def together(measurements: Sequence[Iterable[BlockSum]], seed: int = 0, replicates: int = 1000) -> Together | None:
    """Losses on blocks with equal (digest, block), as `statistics.paired_difference` pairs two of them.

    Every loss is finite. None where nothing is scored by all, or a single unit is.
    """
    several = [by_text(blocks) for blocks in measurements]
    values = shared(several)
    if not len(values.sums):
        return None
    units, noun = units_of(values)
    if len(units) < 2:
        return None
    nats, tokens = units[:, 0::2], units[:, 1::2]
    # The same draw for each pair of columns, so that no more than one of them has to be held.
    found = []
    for place in range(len(several)):
        drawn = resample(units[:, 2 * place : 2 * place + 2], generator(["paired", seed]), replicates)
        found.append(drawn[:, 0] / drawn[:, 1])
    worth = tokens[:, -1].sum() ** 2 / (tokens[:, -1] ** 2).sum()
    return Together(
        losses=np.array(
            [math.fsum(nats[:, at].tolist()) / math.fsum(tokens[:, at].tolist()) for at in range(len(several))]
        ),
        replicates=np.stack(found, axis=1),
        drawn=len(units),
        worth=max(2, round(worth)),
        noun=noun,
        tokens=round(tokens[:, -1].sum()),
    )


def resampled(
    sums: dict[tuple[str, str, int], tuple[float, ...]],
    parts: list[str | int | None],
    value: Callable[[Float[np.ndarray, "r c"]], Float[np.ndarray, " r"]],
    replicates: int = 1000,
) -> Uncertainty:
    """The uncertainty of what is made of several sums over the same text.

    Args:
        sums: by digest, document and block.
        parts: what seeds the resampling.
        value: from the totals of each replicate to its value.
        replicates: how often the units are resampled.
    """
    texts = [key[:2] for key in sums]
    values = np.array(list(sums.values()), dtype=np.float64)
    units, noun = units_of(placed(texts, np.arange(len(texts)), np.array([key[2] for key in sums]), values))
    if len(units) < 2:
        return UNKNOWN
    return spread(value(resample(units, generator(parts), replicates)), len(units), noun)


def by_text(blocks: Iterable[BlockSum]) -> Placed:
    """Nats and targets of each block of text; NaN where a loss that is not finite was left out of a sum."""
    found = columns_of(blocks)
    kept = found.n_tokens > 0
    nats = np.where((found.n_nonfinite > 0) & np.isfinite(found.nll_nats), _NAN, found.nll_nats)
    # A sum of nothing is +0.0, and so is what -0.0 is added to.
    sums = np.stack([nats + 0.0, found.n_tokens], axis=1)[kept]
    return placed([(digest, "") for _, digest in found.texts], found.text[kept], found.block[kept], sums)


def placed(
    texts: Sequence[tuple[str, str]],
    text: Int[np.ndarray, " n"],
    block: Int[np.ndarray, " n"],
    sums: Float[np.ndarray, "n c"],
) -> Placed:
    """Sums in the order of their places; those of one place are added up, what comes first to begin with.

    Args:
        texts: digest and document; one may be there twice.
        text: which of them a row is of.
        block: number of its block.
        sums: of the rows.
    """
    ordered = sorted(set(texts))
    places = {each: place for place, each in enumerate(ordered)}
    text = np.array([places[each] for each in texts], dtype=np.int64)[text]
    order = np.lexsort((block, text))
    text, block, sums = text[order], block[order], sums[order]
    new = np.append(True, (text[1:] != text[:-1]) | (block[1:] != block[:-1]))[: len(text)]
    found = sums[new]
    if not new.all():
        with np.errstate(invalid="ignore", over="ignore"):
            np.add.at(found, np.cumsum(new)[~new] - 1, sums[~new])
    return Placed(ordered, text[new], block[new], found)


def shared(several: Sequence[Placed]) -> Placed:
    """The places that all have, with the sums of all side by side."""
    first = several[0]
    if all(
        each.texts == first.texts and np.array_equal(each.text, first.text) and np.array_equal(each.block, first.block)
        for each in several[1:]
    ):
        return first._replace(sums=np.concatenate([each.sums for each in several], axis=1))
    texts = sorted({pair for each in several for pair in each.texts})
    places = {pair: place for place, pair in enumerate(texts)}
    blocks = np.unique(np.concatenate([each.block for each in several]))
    keys = [
        np.array([places[pair] for pair in each.texts], dtype=np.int64)[each.text] * len(blocks)
        + np.searchsorted(blocks, each.block)
        for each in several
    ]
    common = reduce(lambda one, other: np.intersect1d(one, other, assume_unique=True), keys)
    sums = [each.sums[np.searchsorted(own, common)] for each, own in zip(several, keys, strict=True)]
    text, block = np.divmod(common, max(len(blocks), 1))
    return Placed(texts, text, blocks[block], np.concatenate(sums, axis=1))


def units_of(values: Placed) -> tuple[Float[np.ndarray, "u c"], str]:
    """The rows that are resampled, one a document or one a block, and which of the two."""
    used, document = np.unique(values.text, return_inverse=True)
    if len(used) < MIN_DOCUMENTS:
        return values.sums, "blocks"
    units = np.zeros((len(used), values.sums.shape[1]))
    np.add.at(units, document, values.sums)
    return units, "documents"


def resample(units: Float[np.ndarray, "u c"], rng: np.random.Generator, replicates: int) -> Float[np.ndarray, "r c"]:
    """Column sums over as many rows as there are, drawn with replacement, for each replicate."""
    count = len(units)
    at_once = max(1, _RESAMPLED_AT_ONCE // count)
    parts = []
    for start in range(0, replicates, at_once):
        drawn = rng.integers(0, count, (min(at_once, replicates - start), count))
        parts.append(units[drawn].sum(axis=1))
    return np.concatenate(parts)


def spread(values: Float[np.ndarray, " r"], units: int, noun: str) -> Uncertainty:
    """The standard error and the expanded interval of what was computed from each replicate."""
    replicates = len(values)
    method = f"bootstrap-{noun}-{replicates}"
    if np.isnan(values).any():
        return Uncertainty(_NAN, _NAN, _NAN, method)
    finite = bool(np.isfinite(values).all())
    stderr = float(values.std(ddof=1)) * math.sqrt(units / (units - 1)) if finite else math.inf
    low, high = ends(values, units)
    return Uncertainty(stderr, low, high, method)


def ends(values: np.ndarray, units: int) -> tuple[float, float]:
    """The ends of the expanded interval, which are two of the values."""
    ordered = np.sort(values)
    low = max(math.ceil(_tail(units) * len(values)) - 1, 0)
    return float(ordered[low]), float(ordered[len(values) - 1 - low])


def generator(parts: list[str | int | None]) -> np.random.Generator:
    """The source of draws that belongs to some names and numbers."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _tail(units: int) -> float:
    """Share of replicates below the expanded interval: Φ(-sqrt(u / (u - 1)) t), t Student's 97.5 % point."""
    z, freedom = 1.959963984540054, units - 1
    # Below 5 degrees of freedom the series is off, and the interval is the range of the replicates either way.
    student = expansion(z, freedom)
    return 0.5 * math.erfc(math.sqrt(units / freedom) * student / math.sqrt(2))
