"""Arithmetic expressions mod 5 with brackets: grown, read and evaluated a whole batch at a time.

An expression of n tokens is d, -d, (d) or (-d) for n = 1 .. 4, and (left o right) for more, with o
uniform among the operators and the length of `left` uniform in 1 .. n-4: the grammar of the released code
of the Chomsky-hierarchy tasks (see `problem.py`). So a bracket that is longer than four tokens holds
exactly one operator of its own, and parts of two tokens make signs stand behind operators, as in (3--2).

All rows of a batch lie end to end, and every step treats all brackets of one depth, of all rows. The
steps run in numpy on the CPU also for other devices: a depth holds about a hundred brackets, which is far
too little for a GPU and, in torch, mostly overhead.

Choice: each place of a batch needs at most one random number, since it becomes a digit, an operator, or
the bracket that decides a split; one float64 for each place serves all three.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

_MINUS = 6


class Tree(NamedTuple):
    """Where the parts of all expressions stand, counted through the whole batch."""

    signs: Int[ndarray, " n"]
    """Minus signs that belong to a digit."""
    wraps: Int[ndarray, " n"]
    """Brackets around nothing but a digit and perhaps its sign."""
    levels: list[tuple[Int[ndarray, " n"], Int[ndarray, " n"]]]
    """Of each depth from the outside, the other opening brackets and their operators."""


class Grammar(NamedTuple):
    """The tokens of a language: 0 .. 4 digits, 5 +, 6 -, perhaps 7 *, and the brackets."""

    operators: int
    opening: int
    closing: int

    def grow(self, batch: int, length: int, generator: torch.Generator) -> tuple[Int[ndarray, "b t"], Tree]:
        """Random expressions of `length` tokens, and their trees."""
        draws = torch.rand(batch, length, dtype=torch.float64, generator=generator, device=generator.device)
        uniform = draws.cpu().numpy().ravel()
        tokens = (uniform * 5).astype(np.int64)
        start = np.arange(0, batch * length, length)
        size = np.full(batch, length)
        levels: list[tuple[ndarray, ndarray]] = []
        starts, sizes = [start], [size]
        while True:
            splits = (size > 4).nonzero()[0]
            if not len(splits):
                break
            start, size = start.take(splits), size.take(splits)
            left = (uniform.take(start) * (size - 4)).astype(np.int64) + 1
            operator = start + left + 1
            levels.append((start, operator))
            start, size = np.concatenate((start + 1, operator + 1)), np.concatenate((left, size - left - 3))
            starts.append(start)
            sizes.append(size)
        start, size = np.concatenate(starts), np.concatenate(sizes)
        operator = np.concatenate([each for _, each in levels]) if levels else start[:0]
        tokens[operator] = 5 + (uniform.take(operator) * self.operators).astype(np.int64)
        bracketed = size > 2
        opened = start[bracketed]
        tokens[opened] = self.opening
        tokens[opened + size[bracketed] - 1] = self.closing
        signs = np.concatenate((start[size == 2], start[size == 4] + 1))
        tokens[signs] = _MINUS
        return tokens.reshape(batch, length), Tree(signs, start[bracketed & (size < 5)], levels)

    def parse(self, tokens: Int[ndarray, "b t"]) -> Tree:
        """The trees of expressions that are already there."""
        flat = tokens.ravel()
        opening, closing = flat == self.opening, flat == self.closing
        behind_value = np.roll((flat < 5) | closing, 1)
        behind_value[:: tokens.shape[1]] = False
        signs = (flat == _MINUS) & ~behind_value
        operators = (flat >= 5) & (flat < 5 + self.operators) & behind_value
        wraps = opening & (np.roll(closing, -2) | (np.roll(closing, -3) & np.roll(signs, -1)))
        depth = np.cumsum(opening.astype(np.int64) - closing)
        starts, middles = np.flatnonzero(opening & ~wraps), np.flatnonzero(operators)
        # Of one depth, brackets and operators alternate; so the k-th bracket has the k-th operator.
        starts = starts[np.argsort(depth[starts], kind="stable")]
        middles = middles[np.argsort(depth[middles], kind="stable")]
        ends = np.cumsum(np.bincount(depth[starts]))
        levels = list(zip(np.split(starts, ends), np.split(middles, ends), strict=True))
        return Tree(np.flatnonzero(signs), np.flatnonzero(wraps), levels)

    def evaluate(self, tokens: Int[ndarray, "b t"], tree: Tree) -> Int[ndarray, " b"]:
        """The value mod 5 of each expression."""
        values = tokens.flatten()
        values[tree.signs] = -values[tree.signs + 1] % 5
        values[tree.wraps] = values[tree.wraps + 1]
        for start, operator in reversed(tree.levels):
            place = values.take(operator) * 25 + values.take(start + 1) * 5 + values.take(operator + 1)
            values[start] = _RESULTS.take(place)
        return values[:: tokens.shape[1]]


def distribution(length: int, operators: int = 3) -> Float[ndarray, "n v"]:
    """How probable each value is in expressions of 0 .. `length` tokens; row 0 is empty."""
    spread = np.zeros((5, 5, 5))
    left, right = np.indices((5, 5))
    for operator in range(operators):
        np.add.at(spread, (left, right, _RESULTS[(5 + operator) * 25 + left * 5 + right]), 1 / operators)
    rows = np.zeros((max(length, 4) + 1, 5))
    rows[1:5] = 0.2
    for size in range(5, length + 1):
        parts = rows[1 : size - 3]
        rows[size] = np.einsum("lr,lrv->v", parts.T @ parts[::-1], spread) / len(parts)
    return rows[: length + 1]


def _results() -> Int[ndarray, " n"]:
    """left operator right mod 5, at 25 * operator + 5 * left + right."""
    left, right = np.indices((5, 5))
    unused = np.zeros((5, 5), dtype=np.int64)
    return np.stack([*[unused] * 5, left + right, left - right, left * right]).ravel() % 5


_RESULTS = _results()
