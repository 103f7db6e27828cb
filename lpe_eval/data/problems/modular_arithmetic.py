"""Modular arithmetic: the value mod 5 of an expression without brackets.

    1 + 2 * 3 - 4 = 3      1 5 2 7 3 6 4   ->   3
                           (mask)               1

Digits are 0 .. 4, 5 is +, 6 is -, 7 is *; products come first. Token 8 is declared by the released code
and never occurs. Source: its "modular_arithmetic" task (see `problem.py`). Expressions have odd length:
asked for an even one, the code gives one token less and is followed (the paper would give one more).

Choice: each product is evaluated in exponents of 2, which generates the units mod 5, so that a batch
needs one scatter and nothing overflows. The released evaluator multiplies in int32, unreduced; with
three kinds of operators its products are too short for that to show.
"""

import itertools
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from lpe_eval.data.problem import CHOMSKY_BIBTEX, Answer, Level, Problem, all_count, uniform_tokens

_NOTHING = 1 << 40
"""A logarithm so large that it stands for zero, and a multiple of 4."""
_LOGARITHM = (_NOTHING, 0, 1, 3, 2)
"""Of the digits, to the base 2 mod 5."""
_POWER = (1, 2, 4, 3)


class ModularArithmetic(Problem):
    """See the module's docstring."""

    title: ClassVar[str] = "Modular arithmetic"
    bibtex = CHOMSKY_BIBTEX
    level: ClassVar[Level] = "regular"
    input_size: ClassVar[int] = 9
    classes: ClassVar[int] = 5

    @classmethod
    def draw(cls, batch: int, length: int, generator: torch.Generator, device: torch.device) -> Int[Tensor, "b t"]:
        length -= length % 2 == 0
        digits = uniform_tokens(batch, length, 5, generator, device)
        digits[:, 1::2] = 5 + uniform_tokens(batch, length // 2, 3, generator, device)
        return digits

    @classmethod
    def solve(cls, inputs: Int[Tensor, "b t"]) -> Answer:
        digits, operators = inputs[:, ::2], inputs[:, 1::2]
        logarithm = torch.tensor(_LOGARITHM, device=inputs.device).take(digits)
        # A term begins with the first digit and after each + or -; a minus is a factor of 4 = 2^2.
        begins = torch.ones_like(digits)
        begins[:, 1:] = operators != 7
        logarithm[:, 1:].add_(operators == 6, alpha=2)
        terms = torch.full_like(digits, _NOTHING)
        terms.scatter_add_(1, begins.cumsum(1).sub_(1), logarithm.sub_(begins, alpha=_NOTHING))
        powers = torch.tensor(_POWER, device=inputs.device).take(terms & 3)
        return all_count((powers * (terms < _NOTHING)).sum(1, keepdim=True) % 5)

    @classmethod
    def ceilings(cls, length: int) -> dict[str, float]:
        # What is known of an expression so far: the sum of its finished terms, and the term at its end.
        step = torch.zeros(5, 5, 5, 5, dtype=torch.float64)
        for done, term, digit in itertools.product(range(5), repeat=3):
            step[done, term, (done + term) % 5, digit] += 1 / 15
            step[done, term, (done + term) % 5, -digit % 5] += 1 / 15
            step[done, term, done, term * digit % 5] += 1 / 15
        ends = torch.linalg.matrix_power(step.reshape(25, 25), (length - 1) // 2)[:5].mean(0).tolist()
        values = [sum(ends[5 * done + (value - done) % 5] for done in range(5)) for value in range(5)]
        return {"by_position": max(values)}
