"""A difference and its standard error, weighed: worse, better, same, or too little to say.

    allowed    = max(tolerance, k * stderr)          beyond it a row is worse; k has Student's correction
    detectable = max(tolerance, k * stderr) + 1.645 * stderr        a change that is caught 95 times in 100

A row whose `detectable` exceeds what the rules say it must see is *inconclusive*, unless it is far worse or shown to be
better: what such a row allows is no evidence that nothing happened. `docs/gate.md` derives the numbers.
"""

import math
from typing import NamedTuple

from lpe_eval.report.gate.rules import Rules, Verdict
from lpe_eval.report.gate.worst_document import ROUNDING
from lpe_eval.report.numbers.student import student
from lpe_eval.table import CHE_METRICS

FEW_TRAININGS = 5
"""Trainings from which on their spread is known well enough to excuse a difference as large as itself."""

CAUGHT = 1.6448536269514722
"""Φ of this is 95 %."""
_MOST = 10**9


class Difference(NamedTuple):
    """What is weighed; an accuracy is a share, a loss in nats.

    Attributes:
        value: of the run.
        baseline: likewise.
        stderr: standard error of their difference; NaN where there is a single unit.
        units: blocks, documents, strings or trainings.
        least: standard error to be expected of a model that changed, on as much text or as many strings. Losses that
            changed have one of their own, so it serves where they are identical or in a single block; answers are right
            or wrong, so that few of them may be alike by chance, and it is the smallest one.
        identical: whether nothing but rounding differs, in any part.
        scale: what a change is a part of; None is the baseline's value.
    """

    value: float
    baseline: float
    stderr: float
    units: int
    least: float = 0.0
    identical: bool = False
    scale: float | None = None

    @property
    def whole(self) -> float:
        """What a change is a part of."""
        return self.baseline if self.scale is None else self.scale


def weighed(plain: Verdict, found: Difference, rules: Rules) -> Verdict:
    """The verdict on the difference of two measurements of the same text, or of the same strings.

    Args:
        plain: which row it is.
        found: what was measured.
        rules: when a difference counts.
    """
    numbers, harm = _with_numbers(plain, found, rules)
    if found.identical:
        return numbers._replace(verdict="same")
    if found.units > 1 and harm > numbers.allowed:
        return numbers._replace(verdict="worse")
    better = found.units > 1 and harm < -numbers.allowed
    bound = _relative(rules.blind_to(plain.metric), plain.metric, found)
    if better or numbers.detectable <= bound:
        return numbers._replace(verdict="better" if better else "same")
    if harm > _relative(rules.far(plain.metric), plain.metric, found):
        return numbers._replace(verdict="worse", reason="too large to be excused by too few units")
    why = f"a change of {100 * rules.blind_to(plain.metric):.3g} % could pass unseen"
    return numbers._replace(verdict="inconclusive", reason=why)


def weighed_trainings(plain: Verdict, found: Difference, rules: Rules) -> Verdict:
    """The verdict on a training beside several of its recipe, whose spread is in `stderr`.

    A difference passes up to k standard errors, without Student's correction, and not beyond what a row must be able to
    see (with `FEW_TRAININGS` and more: not beyond what is far worse). It is worse beyond k with that correction.
    """
    numbers, harm = _with_numbers(plain, found, rules)
    few = found.units < FEW_TRAININGS
    far = _relative(rules.far(plain.metric), plain.metric, found)
    bound = _relative(rules.blind_to(plain.metric), plain.metric, found) if few else far
    passes = max(_floor(rules), min(rules.sigmas * numbers.stderr, bound))
    if harm > numbers.allowed or (few and harm > far):
        return numbers._replace(verdict="worse")
    if harm < -numbers.allowed:
        return numbers._replace(verdict="better")
    if harm <= passes:
        return numbers._replace(verdict="same")
    return numbers._replace(verdict="inconclusive", needed=max(FEW_TRAININGS, 2 * found.units))


def units_needed(found: Difference, rules: Rules, metric: str) -> int:
    """Units as large and as noisy as those of `found` with which `detectable` is what `rules` ask for, about."""
    bound = rules.blind_to(metric) * (1.0 if metric in CHE_METRICS else found.whole)

    def enough(count: int) -> bool:
        measured = 0.0 if math.isnan(found.stderr) else found.stderr * math.sqrt(found.units / count)
        # Of answers the number that go wrong has an error, whatever the number that were asked.
        least = found.least * (found.units / count if metric in CHE_METRICS else math.sqrt(found.units / count))
        # Few units say little of their own noise, so it is taken for no less than that of a change that matters.
        error = max(least, measured)
        return (student(rules.sigmas, count - 1) + CAUGHT) * error <= bound

    low, high = 1, 2
    while high < _MOST and not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _with_numbers(plain: Verdict, found: Difference, rules: Rules) -> tuple[Verdict, float]:
    """The row with its numbers, and the change in the direction of harm."""
    difference = found.value - found.baseline
    if found.whole > 0:
        change, error = difference / found.whole, found.stderr / found.whole
        expected = _expected(found, plain.metric) / found.whole
    else:
        # Nothing is part of a loss (or an accuracy) of zero: an equal one is the same, any other one is not.
        change, error = math.copysign(math.inf, difference) if difference else 0.0, found.stderr * 0.0
        expected = error
    floor = _floor(rules)
    numbers = plain._replace(
        baseline=found.baseline, value=found.value, change=change, stderr=error, units=found.units, allowed=floor
    )
    harm = plain.worse_is * change
    if found.units < 2:
        return numbers._replace(detectable=math.inf), harm
    sigmas = student(rules.sigmas, found.units - 1)
    detectable = max(floor, sigmas * expected) + CAUGHT * expected
    return numbers._replace(allowed=max(floor, sigmas * error), detectable=detectable), harm


def _expected(found: Difference, metric: str) -> float:
    """Standard error of the change that a row should see."""
    if metric in CHE_METRICS:
        return max(found.least, 0.0 if math.isnan(found.stderr) else found.stderr)
    return found.least if found.identical or math.isnan(found.stderr) else found.stderr


def _relative(bound: float, metric: str, found: Difference) -> float:
    """A bound of `Rules` in parts of the baseline's value."""
    if metric not in CHE_METRICS:
        return bound
    return bound / found.baseline if found.baseline > 0 else math.inf


def _floor(rules: Rules) -> float:
    return max(rules.tolerance, ROUNDING)
