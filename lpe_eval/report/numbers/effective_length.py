"""How much context a model makes use of: one number from losses of the same targets with more and more context.

The rule, for lengths that scored the same targets (the protocol `anchored`), from the shortest up:

    1. The range ends before the first length that has no value, or whose loss is higher, beyond chance, than that of a
       shorter one.
    2. The effective length is the shortest length of the range whose loss no longer one of the range undercuts beyond
       chance.

So the last step up to it gains, no length on the way to it loses, and more context beyond it gains nothing that can be
told from chance. Where each length gains on the one before it, it is the last one; where none gains, the first.

Beyond chance is a paired difference above `LEAST` and above what one of all the comparisons of a length exceeds once in
forty times though nothing differs: the upper point of Student's t for 2.5 % over their number, times the standard
error. The interval says where the length may lie that the rule would find in endless text: on each resampled text, the
shortest length of the range that no longer one undercuts by more than `LEAST`; 95 % of them, and the length itself.

Choices:
    * Each length is held against all shorter and longer ones, not against its neighbour alone: of many small steps none
      may be beyond chance though all together are, and the answer must not depend on how finely lengths were taken.
    * RULER and NoLiMa ask for a score above a threshold. A loss has no such threshold, but what more context gains has
      one: nothing.
    * `LEAST` keeps gains out that are sure and of no use: a float's rounding may be the same in every window.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lpe_eval.report.numbers.resampling import Together, ends, together
from lpe_eval.report.numbers.student import upper_point
from lpe_eval.table import BlockSum

CHANCE = 0.025
"""How often one of all the differences of a length is taken for a gain (or for a loss) though there is none."""
LEAST = 0.001
"""Nats a token below which no difference counts: 0.1 % of the perplexity."""

BEYOND = ("level", "loses", "no value", "none")
"""What the next longer length may do; "none" where there is no longer one."""


class EffectiveLength(NamedTuple):
    """The answer for one model.

    Attributes:
        length: in tokens; None where there is none, and `note` says why.
        low: lower end of the 95 % interval.
        high: its upper end.
        beyond: one of `BEYOND`.
        gain: nats by which its loss is below that of the shortest length.
        gain_stderr: standard error of the gain.
        tokens: targets that all lengths of the range scored.
        method: how errors and interval were made.
        note: why there is none.
    """

    length: int | None
    low: int | None = None
    high: int | None = None
    beyond: str = ""
    gain: float = math.nan
    gain_stderr: float = math.nan
    tokens: int = 0
    method: str = "none"
    note: str = ""


def effective_length(
    measured: Mapping[int, Iterable[BlockSum]], without_value: Collection[int] = (), seed: int = 0
) -> EffectiveLength:
    """The effective length of one model.

    Args:
        measured: sums of each length that has a value.
        without_value: lengths that were measured and have none.
        seed: of the resampling.
    """
    end = min(without_value, default=math.inf)
    lengths = sorted(length for length in measured if length < end)
    if len(measured) + len(without_value) < 2:
        return EffectiveLength(None, note="a single length was measured; take several, such as 512:8192:x2")
    if not lengths:
        return EffectiveLength(None, note=f"the shortest length, {end}, has no value")
    found = together([measured[length] for length in lengths], seed)
    if found is None:
        return EffectiveLength(None, note="the text is a single block of 1024 targets, so chance cannot be told")
    at, stop = rule(found.losses, bounds_of(found))
    places = np.array([_undercut_by_none(row[:stop], np.array(LEAST)) for row in found.replicates])
    low, high = ends(places, found.drawn)
    if at < stop - 1:
        beyond = "level"
    elif stop < len(lengths):
        beyond = "loses"
    else:
        beyond = "no value" if without_value else "none"
    return EffectiveLength(
        length=lengths[at],
        low=lengths[min(int(low), at)],
        high=lengths[max(int(high), at)],
        beyond=beyond,
        gain=float(found.losses[0] - found.losses[at]),
        gain_stderr=_stderr(found)[0, at],
        tokens=found.tokens,
        method=f"bootstrap-{found.noun}-{len(places)}",
    )


def rule(losses: Float[np.ndarray, " l"], bounds: Float[np.ndarray, "l l"]) -> tuple[int, int]:
    """The place of the effective length, and how many lengths the range has.

    Args:
        losses: of each length, the shortest first.
        bounds: differences up to which two lengths do not differ.
    """
    loses = np.tril(losses[:, None] - losses[None] > bounds, -1).any(axis=1)
    stop = int(loses.argmax()) if loses.any() else len(losses)
    return _undercut_by_none(losses[:stop], bounds[:stop, :stop]), stop


def bounds_of(found: Together) -> Float[np.ndarray, "l l"]:
    """Differences up to which two of the measurements do not differ."""
    others = max(len(found.losses) - 1, 1)
    return np.maximum(upper_point(CHANCE / others, min(found.worth - 1, 1000)) * _stderr(found), LEAST)


def _undercut_by_none(losses: Float[np.ndarray, " l"], bounds: Float[np.ndarray, "..."]) -> int:
    """The place of the first length that no later one undercuts."""
    undercut = np.triu(losses[:, None] - losses[None] > bounds, 1).any(axis=1)
    return int((~undercut).argmax())


def _stderr(found: Together) -> Float[np.ndarray, "l l"]:
    """Standard error of each paired difference."""
    columns = found.replicates.T
    spread = np.array([(columns[at][None] - columns).std(axis=1, ddof=1) for at in range(len(columns))])
    return spread * math.sqrt(found.drawn / (found.drawn - 1))
