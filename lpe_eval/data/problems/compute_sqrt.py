"""Compute sqrt: the integer part of the square root of a big-endian number.

    37 -> 6      1 0 0 1 0 1   ->   1 1 0
                 (mask)             1 1 1

The number is uniform in 1 .. 2^length - 1; both stand with leading zeros, the root in ceil(length / 2)
places and without an end token. Source: the "compute_sqrt" task of the released code (see `problem.py`).
The paper's text says little-endian; the code is big-endian and is followed.

Choice: the ceiling by position is counted, the one without positions is estimated.
"""

import math
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from lpe_eval.data.binary import each_number, nonzero_bits
from lpe_eval.data.problem import CHOMSKY_BIBTEX, Answer, Level, Problem, all_count, estimated_ceilings


class ComputeSqrt(Problem):
    """See the module's docstring."""

    title: ClassVar[str] = "Compute sqrt"
    bibtex = CHOMSKY_BIBTEX
    level: ClassVar[Level] = "cs"
    input_size: ClassVar[int] = 2
    classes: ClassVar[int] = 2

    @classmethod
    def draw(cls, batch: int, length: int, generator: torch.Generator, device: torch.device) -> Int[Tensor, "b t"]:
        return nonzero_bits(batch, length, generator, device)

    @classmethod
    def solve(cls, inputs: Int[Tensor, "b t"]) -> Answer:
        places = cls.output_length(inputs.shape[1])
        return all_count(each_number(inputs.flip(1), places, _root, math.isqrt).flip(1))

    @classmethod
    def output_length(cls, length: int) -> int:
        return (length + 1) // 2

    @classmethod
    def ceilings(cls, length: int) -> dict[str, float]:
        places, numbers = cls.output_length(length), 2**length - 1
        largest = math.isqrt(numbers)
        ones = [_numbers_below(largest + 1, place, numbers) / numbers for place in range(places)]
        by_position = sum(max(share, 1 - share) for share in ones) / places
        return {**estimated_ceilings(cls, length), "by_position": by_position}


def _numbers_below(end: int, place: int, most: int) -> int:
    """How many of the numbers 1 .. most have a root r < end whose digit of value 2^place is one.

    The roots with that digit come in runs from a to b-1, and the numbers with these roots run from a^2
    to b^2 - 1; only the last such stretch may be cut off by `end` or `most`.
    """
    step = 1 << place
    runs = end // (2 * step)
    # Whole runs k = 0 .. runs-1: ((2k + 2)^2 - (2k + 1)^2) * step^2 = (4k + 3) * step^2.
    whole = (2 * runs * (runs - 1) + 3 * runs) * step * step - max(0, (2 * runs * step) ** 2 - most - 1)
    start = (2 * runs + 1) * step
    return whole + max(0, min(end * end, most + 1) - start * start)


def _root(numbers: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Exact integer roots of numbers below 2^62: the float's is off by one at most, and integers decide."""
    root = numbers.double().sqrt().long()
    root.add_(root * root > numbers, alpha=-1)
    following = root + 1
    return root.add_(following * following <= numbers)
