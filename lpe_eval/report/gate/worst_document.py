"""The document that a model got worse at, where the mean over all documents hides it.

Each part of the text (a document; with few documents, also each block) has a paired change x, in nats per token over
the row's mean loss. The part that stands out most is *worse* when

    x - median > t * scale    and    its own loss grew by more than the tolerance

The median and the scale are those of the other parts: the scale is the 80 % quantile of |x - median| over that of a
reference law, so that up to a fifth of the parts may be bad without hiding one another. The law is Student's t with 3
degrees of freedom, whose tails are heavier than those of any change that was measured, and t is its upper point for
`FALSE_ALARMS` divided by the number of parts that were looked at, times 1 + 4 / n for the error of a scale that comes
from n parts. `docs/gate.md` holds the simulated rates.

Choices:
    * A part of fewer targets than the median part varies more, by the root of the ratio. A larger one is not expected
      to vary less, since documents differ in what a change does to them.
    * With fewer than `MIN_DOCUMENTS` documents, every block is held against all other blocks, and every document
      against the blocks of the other documents.
    * With fewer than `MIN_OTHERS` parts to be held against, nothing is said.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lpe_eval.report.numbers.statistics import MIN_DOCUMENTS
from lpe_eval.report.numbers.student import upper_point
from lpe_eval.table import BlockSum

FALSE_ALARMS = 0.001
"""Rows that are called worse for a document though nothing changed, at most, under the reference law."""
MIN_OTHERS = 7
ROUNDING = 1e-5
"""Identical weights on another machine, batch size or attention path move a loss by less (measured: 1e-6)."""

_FREEDOM = 3
_QUANTILE = 0.8
_SMALL = 4.0


class Worst(NamedTuple):
    """The document that is worse.

    Attributes:
        document: its name; where a block gave it away, with that block.
        digest: of its content.
        change: growth of the loss of that part, in parts of its own loss.
        allowed: growth up to which it would have passed.
    """

    document: str
    digest: str
    change: float
    allowed: float


class Parts(NamedTuple):
    """Parts of the text: sums of nats, targets, the document that each belongs to, and its place there."""

    new: Float[np.ndarray, " p"]
    old: Float[np.ndarray, " p"]
    targets: Float[np.ndarray, " p"]
    names: list[str]
    digests: list[str]
    numbers: list[int]


def worst_document(new: Sequence[BlockSum], old: Sequence[BlockSum], tolerance: float) -> Worst | None:
    """The document that is worse beyond what the others explain, or None.

    Args:
        new: blocks of the run.
        old: the same blocks of the baseline, in the same order. Losses are finite; where the two scored unlike numbers
            of targets (bytes), each has its mean.
        tolerance: growth of a document's own loss that is always allowed.
    """
    blocks = Parts(
        np.array([mine.nll_nats * (its.n_tokens / mine.n_tokens) for mine, its in zip(new, old, strict=True)]),
        np.array([each.nll_nats for each in old]),
        np.array([float(each.n_tokens) for each in old]),
        [each.document for each in old],
        [each.digest for each in old],
        [each.block for each in old],
    )
    return worst_part(blocks, tolerance)


def worst_part(blocks: Parts, tolerance: float) -> Worst | None:
    """As `worst_document`, of the sums themselves."""
    if not blocks.old.sum() > 0:
        return None
    documents = _of_documents(blocks)
    count = len(documents.names)
    if count >= MIN_DOCUMENTS:
        return _most(documents, documents, count, tolerance)
    looks = count + len(blocks.names)
    whole = _most(documents, blocks, looks, tolerance) if count > 1 else None
    return whole or _most(blocks, blocks, looks, tolerance)


def _of_documents(blocks: Parts) -> Parts:
    digests = list(dict.fromkeys(blocks.digests))
    place = {digest: number for number, digest in enumerate(digests)}
    at = [place[digest] for digest in blocks.digests]
    sums = np.zeros((3, len(digests)))
    for row, column in zip(sums, blocks[:3], strict=True):
        np.add.at(row, at, column)
    named = dict(zip(reversed(blocks.digests), reversed(blocks.names), strict=True))
    return Parts(sums[0], sums[1], sums[2], [named[digest] for digest in digests], digests, [])


def _most(parts: Parts, among: Parts, looks: int, tolerance: float) -> Worst | None:
    """The one of `parts` that stands out most from those of `among` that are not in it, if that is enough."""
    level = among.old.sum() / among.targets.sum()
    shift = (parts.new - parts.old) / parts.targets / level
    others = (among.new - among.old) / among.targets / level
    middle = np.median(among.targets)
    weight, weights = (np.minimum(1.0, np.sqrt(side.targets / middle)) for side in (parts, among))
    grown = parts.new - parts.old > tolerance * parts.old
    if not grown.any():
        return None
    first = int(np.argmax(np.where(grown, (shift - np.median(others)) * weight, -np.inf)))
    # A part is not held against itself; a document not against its own blocks.
    kept = (
        np.arange(len(others)) != first
        if len(parts.names) == len(others)
        else np.array([digest != parts.digests[first] for digest in among.digests])
    )
    count = int(kept.sum())
    if count < MIN_OTHERS:
        return None
    centre = float(np.median(others[kept]))
    spread = float(np.quantile(np.abs(others[kept] - centre) * weights[kept], _QUANTILE))
    scale = max(spread, ROUNDING) / upper_point((1 - _QUANTILE) / 2, _FREEDOM)
    point = upper_point(FALSE_ALARMS / looks, _FREEDOM) * (1 + _SMALL / count)
    limit = centre + point * scale / float(weight[first])
    if shift[first] <= limit:
        return None
    # Of the row's mean loss, the limit becomes part of the document's own.
    own = float(parts.old[first] / parts.targets[first])
    change = float(parts.new[first] - parts.old[first]) / float(parts.old[first]) if own > 0 else np.inf
    allowed = max(tolerance, limit * float(level) / own) if own > 0 else tolerance
    name = f"{parts.names[first]}, block {parts.numbers[first]}" if parts.numbers else parts.names[first]
    return Worst(name, parts.digests[first], float(change), float(allowed))
