"""One number from many items: the sum of their totals over the sum of their counts, with its standard error.

The error is that of a ratio of two sums over items drawn independently, to first order (Cochran 1977, Sampling
Techniques, 6.4): with value R = T / N over n items, the variance is n / (n - 1) times the sum of (t - R c)^2, over N^2.
"""

import math
from collections.abc import Sequence

from lpe_eval.records import Item


def pooled(items: Sequence[Item]) -> tuple[float, float]:
    """Value and standard error; both NaN where nothing was counted, the error NaN for a single item."""
    count = sum(item.n for item in items)
    if count == 0:
        return math.nan, math.nan
    value = math.fsum(item.total for item in items) / count
    if len(items) < 2:
        return value, math.nan
    squares = math.fsum((item.total - value * item.n) ** 2 for item in items)
    return value, math.sqrt(squares * len(items) / (len(items) - 1)) / count
