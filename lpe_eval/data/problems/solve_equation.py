"""Solve equation: the digit that x stands for, in an expression with brackets whose value mod 5 is given.

    ((2-x)+1) = 4, x = 4      7 7 2 6 9 8 5 1 8 10 4   ->   4
                              (mask)                        1

Digits are 0 .. 4, 5 is +, 6 is - (also the sign of a digit), 7 and 8 are ( and ), 9 is x, 10 is =. The
expression has length - 2 tokens, drawn as told in `grammar.py`; x replaces the first digit at or after
a uniformly drawn token, going round at the end, so digits behind long runs of signs and brackets are
hidden more often. Strings of one or two tokens are zeros with answer 0. Source: the "solve_equation"
task of the released code (see `problem.py`). The paper's example holds a product, which the code does
not draw (and without which x is unique); the code is followed.

Choice: x occurs once, with a sign that brackets and minuses give it, so the values at x = 0 and x = 1
tell the solution.
"""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from lpe_eval.data.grammar import Grammar
from lpe_eval.data.problem import CHOMSKY_BIBTEX, Answer, Level, Problem, Sample, all_count, require_length

_GRAMMAR = Grammar(operators=2, opening=7, closing=8)
_X, _EQUALS = 9, 10


class SolveEquation(Problem):
    """See the module's docstring."""

    title: ClassVar[str] = "Solve equation"
    bibtex = CHOMSKY_BIBTEX
    level: ClassVar[Level] = "dcf"
    input_size: ClassVar[int] = 11
    classes: ClassVar[int] = 5

    @classmethod
    def draw(cls, batch: int, length: int, generator: torch.Generator, device: torch.device) -> Int[Tensor, "b t"]:
        return cls.sample(batch, length, generator, device).inputs

    @classmethod
    def sample(cls, batch: int, length: int, generator: torch.Generator, device: torch.device) -> Sample:
        require_length(cls, length)
        if length < 3:
            zeros = torch.zeros(batch, length, dtype=torch.long, device=device)
            return Sample(zeros, *all_count(zeros[:, :1]))
        expression, tree = _GRAMMAR.grow(batch, length - 2, generator)
        drawn = torch.randint(length - 2, (batch,), generator=generator, device=generator.device).cpu().numpy()
        place = _next_digit(expression, drawn)
        equation = np.empty((batch, length), dtype=np.int64)
        equation[:, :-2] = expression
        equation[:, -2] = _EQUALS
        equation[:, -1] = _GRAMMAR.evaluate(expression, tree)
        solution = torch.from_numpy(expression.take(place)[:, None]).to(device)
        equation[:, :-2].flat[place] = _X
        return Sample(torch.from_numpy(equation).to(device), *all_count(solution))

    @classmethod
    def solve(cls, inputs: Int[Tensor, "b t"]) -> Answer:
        if inputs.shape[1] < 3:
            return all_count(torch.zeros_like(inputs[:, :1]))
        equation = inputs.cpu().numpy()
        expression = equation[:, :-2]
        tree = _GRAMMAR.parse(np.where(expression == _X, 0, expression))
        at_zero, at_one = (_GRAMMAR.evaluate(np.where(expression == _X, x, expression), tree) for x in (0, 1))
        # The coefficient of x is 1 or -1 and so its own inverse.
        solution = (at_one - at_zero) * (equation[:, -1] - at_zero) % 5
        return all_count(torch.from_numpy(solution[:, None]).to(inputs.device))

    @classmethod
    def ceilings(cls, length: int) -> dict[str, float]:
        return {"by_position": 1.0 if length < 3 else cls.chance()}


def _next_digit(expression: Int[ndarray, "b t"], place: Int[ndarray, " b"]) -> Int[ndarray, " b"]:
    """The first digit of each row from `place` on, around its end if need be; counted through the whole batch."""
    batch, length = expression.shape
    row = np.arange(0, batch * length, length)
    digits = np.flatnonzero(expression < 5)
    behind = digits.take(digits.searchsorted(row + place), mode="clip")
    return np.where((behind < row + place) | (behind >= row + length), digits.take(digits.searchsorted(row)), behind)
