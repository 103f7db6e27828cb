"""Bucket sort: the tokens in ascending order.

    3 0 4 1 0   ->   0 0 1 3 4
    (mask)           1 1 1 1 1

Source: the "bucket_sort" task of the released code (see `problem.py`), with its five symbols. Without
positions the best answer at every place is the most frequent symbol. By position alone much can be
guessed, because the k-th of n sorted tokens is seldom far from 5 k / n.
"""

import math
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.data.problem import CHOMSKY_BIBTEX, Answer, Level, Problem, all_count, uniform_tokens


class BucketSort(Problem):
    """See the module's docstring."""

    title: ClassVar[str] = "Bucket sort"
    bibtex = CHOMSKY_BIBTEX
    level: ClassVar[Level] = "cs"
    input_size: ClassVar[int] = 5
    classes: ClassVar[int] = 5
    permutation_invariant: ClassVar[bool] = True

    @classmethod
    def draw(cls, batch: int, length: int, generator: torch.Generator, device: torch.device) -> Int[Tensor, "b t"]:
        return uniform_tokens(batch, length, cls.input_size, generator, device)

    @classmethod
    def solve(cls, inputs: Int[Tensor, "b t"]) -> Answer:
        (batch, length), one = inputs.shape, inputs.new_ones(1, 1)
        counts = inputs.new_zeros(batch, cls.classes).scatter_add_(1, inputs, one.expand_as(inputs))
        # How many tokens are at most 0, 1, ...: where the answer changes from a symbol to the next.
        upto = counts.cumsum(1)[:, :-1]
        changes = inputs.new_zeros(batch, length + 1).scatter_add_(1, upto, one.expand_as(upto))
        return all_count(changes.cumsum(1)[:, :length])

    @classmethod
    def output_length(cls, length: int) -> int:
        return length

    @classmethod
    def ceilings(cls, length: int) -> dict[str, float]:
        return {"by_position": _by_position(length), "without_positions": _most_frequent(length) / length}


def _by_position(length: int) -> float:
    """Mean over the places of the probability of the likeliest symbol there."""
    places = torch.arange(length, dtype=torch.float64)
    # The k-th sorted token is at most c if more than k tokens are, and their number is binomial.
    upto = [_binomial(length, (symbol + 1) / 5).flip(0).cumsum(0).flip(0)[1:] for symbol in range(4)]
    at_most = torch.stack([torch.zeros_like(places), *upto, torch.ones_like(places)])
    return float(at_most.diff(dim=0).amax(0).mean())


def _most_frequent(length: int) -> float:
    """Expected count of the most frequent of five symbols: the sum over m of 1 - P(no symbol occurs more than m times).

    Five counts that are independent and Poisson, given their sum, are multinomial; so the probability is
    one coefficient of the fifth power of a cut-off Poisson distribution. Counts more than twelve
    deviations above the mean are too rare for a float64 and are left out.
    """
    mean = length / 5
    counts = torch.arange(length + 1, dtype=torch.float64)
    poisson = (counts * math.log(mean) - mean - torch.lgamma(counts + 1)).exp()
    least, most = -(-length // 5), min(length, int(mean + 12 * mean**0.5) + 12)
    allowed = poisson * (counts <= torch.arange(least, most + 1)[:, None])
    size = 5 * length + 1
    together = torch.fft.irfft(torch.fft.rfft(allowed, size) ** 5, size)[:, length]
    exactly = math.exp(length * math.log(length) - length - math.lgamma(length + 1))
    return least + float((1 - together / exactly).sum())


def _binomial(count: int, probability: float) -> Float[Tensor, " n"]:
    """The distribution of the number of hits among `count` trials."""
    hits = torch.arange(count + 1, dtype=torch.float64)
    whole = torch.tensor(float(count + 1), dtype=torch.float64)
    ways = torch.lgamma(whole) - torch.lgamma(hits + 1) - torch.lgamma(whole - hits)
    return (ways + hits * math.log(probability) + (count - hits) * math.log1p(-probability)).exp()
