"""Units of text drawn again and again: what standard errors and intervals are made of.

`statistics.py` tells the choices and where they come from.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

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


UNKNOWN = Uncertainty(_NAN, _NAN, _NAN, "none")


def together(measurements: Sequence[Iterable[BlockSum]], seed: int = 0, replicates: int = 1000) -> Together | None:
    """Losses on blocks with equal (digest, block), as `statistics.paired_difference` pairs two of them.

    Every loss is finite. None where nothing is scored by all, or a single unit is.
    """
    sums = [by_text(blocks) for blocks in measurements]
    shared = set(sums[0]).intersection(*sums[1:])
    values = {key: tuple(number for each in sums for number in each[key]) for key in shared}
    if not values:
        return None
    units, noun = units_of(values)
    if len(units) < 2:
        return None
    nats, tokens = units[:, 0::2], units[:, 1::2]
    # The same draw for each pair of columns, so that no more than one of them has to be held.
    found = []
    for place in range(len(sums)):
        drawn = resample(units[:, 2 * place : 2 * place + 2], generator(["paired", seed]), replicates)
        found.append(drawn[:, 0] / drawn[:, 1])
    worth = tokens[:, -1].sum() ** 2 / (tokens[:, -1] ** 2).sum()
    return Together(
        losses=np.array([math.fsum(nats[:, at]) / math.fsum(tokens[:, at]) for at in range(len(sums))]),
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
    units, noun = units_of(sums)
    if len(units) < 2:
        return UNKNOWN
    return spread(value(resample(units, generator(parts), replicates)), len(units), noun)


def by_text(blocks: Iterable[BlockSum]) -> dict[tuple[str, str, int], tuple[float, float]]:
    """Nats and targets of each block of text; NaN where a loss that is not finite was left out of a sum."""
    found: dict[tuple[str, str, int], tuple[float, float]] = {}
    for block in blocks:
        if block.n_tokens > 0:
            key = (block.digest, "", block.block)
            nats, tokens = found.get(key, (0.0, 0.0))
            nats = _NAN if block.n_nonfinite and math.isfinite(block.nll_nats) else nats + block.nll_nats
            found[key] = (nats, tokens + block.n_tokens)
    return found


def units_of(sums: dict[tuple[str, str, int], tuple[float, ...]]) -> tuple[Float[np.ndarray, "u c"], str]:
    """The rows that are resampled, one a document or one a block, and which of the two."""
    ordered = sorted(sums)
    values = np.array([sums[key] for key in ordered], dtype=np.float64)
    documents = {document: place for place, document in enumerate(dict.fromkeys(key[:2] for key in ordered))}
    if len(documents) < MIN_DOCUMENTS:
        return values, "blocks"
    units = np.zeros((len(documents), values.shape[1]))
    np.add.at(units, [documents[key[:2]] for key in ordered], values)
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
