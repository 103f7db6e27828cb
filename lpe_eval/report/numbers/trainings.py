"""Several trainings of one recipe as one line: their mean, and how much they differ.

Trainings of one recipe are called `NAME`, `NAME-seed2`, `NAME-seed3` (as `train --seeds` and studies call them) or
`NAME@1`, `NAME@2`. The deviation is that of a sample, with the divisor n - 1: it says how much a further training would
differ from these, not how well their mean is known.
"""

import re
import statistics
from collections.abc import Iterable
from typing import NamedTuple

_SEED = re.compile(r"(.+?)(?:-seed\d+|@\d+)")


class Spread(NamedTuple):
    """Trainings of one recipe at one place."""

    mean: float
    deviation: float | None
    """None of a single training."""
    trainings: int


def recipe_of(model: str) -> str:
    """`alibi` of `alibi`, `alibi-seed2` and `alibi@2`."""
    found = _SEED.fullmatch(model)
    return found[1] if found else model


def spread(values: Iterable[float]) -> Spread:
    """Mean and deviation of at least one value."""
    found = list(values)
    return Spread(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))
