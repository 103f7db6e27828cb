"""How far a model recalls: the longest length, or distance, up to which its score holds.

A score is the sum of an item's totals over that of its counts. Lengths are tried in order; the score must hold at a
length and at all shorter ones.

    own rule      score(L) >= share * score(shortest)       the model's own short-text score is the bar: NoLiMa's rule
                                                            (Modarressi et al. 2025, arXiv 2502.05167), share 0.85
    fixed rule    score(L) >= least                         one bar for all models: RULER's (arXiv 2404.06654), 85.6 %

A model whose score at the shortest length is not above nothing by two standard errors recalls nothing there: its
effective length is 0 by the own rule, since a part of nothing is reached by chance.

The interval is a percentile bootstrap: items are resampled as wholes, with their scores at all lengths, and each
resample has a length of its own. It is one of the lengths that were tried, as the value is.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

SURE = 2.0
"""Standard errors by which the score at the shortest length must exceed nothing."""

REPLICATES = 2000

_TAIL = 0.025


class Rule(NamedTuple):
    """What a score must reach.

    Attributes:
        share: of the score at the shortest length.
        least: a score that is the bar for all models, in place of the share.
    """

    share: float = 0.85
    least: float | None = None

    def __str__(self) -> str:
        if self.least is not None:
            return f"accuracy of at least {self.least:g}"
        return f"gain_nats of at least {self.share:g} of that at the shortest"


class Scores(NamedTuple):
    """What a model scored: `p` items at `l` lengths; both are zero where an item was not asked at a length.

    Attributes:
        totals: of each item, NaN where it has none though it was asked.
        counts: summands of each total.
        lengths: in order.
    """

    totals: Float[np.ndarray, "p l"]
    counts: Float[np.ndarray, "p l"]
    lengths: tuple[int, ...]


class Effective(NamedTuple):
    """The effective length and the ends of its 95 % interval; NaN where it cannot be told."""

    value: int
    low: float = math.nan
    high: float = math.nan
    method: str = "none"


def effective_length(scores: Scores, rule: Rule, noun: str = "prompts", seed: int = 0) -> Effective:
    """The effective length of a model.

    Args:
        scores: what it scored.
        rule: what holds.
        noun: what an item is called.
        seed: of the resamples.
    """
    items = len(scores.totals)
    value = int(lengths_of(np.ones((1, items)), scores, rule)[0])
    if items < 2:
        return Effective(value)
    found = np.sort(lengths_of(resamples(items, seed), scores, rule))
    low = math.ceil(_TAIL * REPLICATES) - 1
    return Effective(value, float(found[low]), float(found[-1 - low]), f"bootstrap-{noun}-{REPLICATES}")


def resamples(items: int, seed: int) -> Float[np.ndarray, "r p"]:
    """How often each item is drawn, as many with replacement as there are, in each resample."""
    draw = np.random.default_rng([seed % 2**32, items])
    return draw.multinomial(items, np.full(items, 1 / items), size=REPLICATES).astype(np.float64)


def lengths_of(weights: Float[np.ndarray, "r p"], scores: Scores, rule: Rule) -> Int[np.ndarray, " r"]:
    """The effective length of each of some weightings of the items."""
    with np.errstate(divide="ignore", invalid="ignore"):
        counts = weights @ scores.counts
        # Without any item there is no score, and what is no number reaches nothing.
        means = (weights @ scores.totals) / counts
        if rule.least is not None:
            holds = means >= rule.least
        else:
            holds = (means >= rule.share * means[:, :1]) & _above_nothing(weights, scores, means[:, 0])[:, None]
    reached = np.cumprod(holds, axis=1).sum(1)
    return np.array([0, *scores.lengths])[reached]


def _above_nothing(
    weights: Float[np.ndarray, "r p"], scores: Scores, means: Float[np.ndarray, " r"]
) -> Bool[np.ndarray, " r"]:
    """Whether the score at the shortest length exceeds nothing by `SURE` standard errors.

    The error is that of a ratio of sums over items, as in `items.pooled`.
    """
    totals, counts = scores.totals[:, 0], scores.counts[:, 0]
    squares = weights @ totals**2 - 2 * means * (weights @ (totals * counts)) + means**2 * (weights @ counts**2)
    drawn = weights.sum(1)
    error = np.sqrt(np.maximum(squares, 0.0) * drawn / np.maximum(drawn - 1, 1)) / (weights @ counts)
    return (means > 0) & (means > SURE * error)
