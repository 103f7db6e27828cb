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
    brackets: Int[ndarray, " n"]
    """The other opening brackets, the outermost first."""
    operators: Int[ndarray, " n"]
    """The operator of each."""
    ends: list[int]
    """Of each depth from the outside, the number of brackets up to it."""


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
        starts, sizes, brackets, operators, ends = [start], [size], [start[:0]], [start[:0]], [0]
        while True:
            splits = (size > 4).nonzero()[0]
            if not len(splits):
                break
            start, room = start.take(splits), size.take(splits) - 4
            before = (uniform.take(start) * room).astype(np.int64)
            operator = start + before + 2
            brackets.append(start)
            operators.append(operator)
            ends.append(ends[-1] + len(splits))
            start, size = np.concatenate((start + 1, operator + 1)), np.concatenate((before + 1, room - before))
            starts.append(start)
            sizes.append(size)
        start, size = np.concatenate(starts), np.concatenate(sizes)
        operator = np.concatenate(operators)
        tokens[operator] = 5 + (uniform.take(operator) * self.operators).astype(np.int64)
        bracketed = size > 2
        opened, signed_wraps = start.compress(bracketed), start.compress(size == 4)
        tokens[opened] = self.opening
        tokens[opened + size.compress(bracketed) - 1] = self.closing
        signs = np.concatenate((start.compress(size == 2), signed_wraps + 1))
        tokens[signs] = _MINUS
        wraps = np.concatenate((start.compress(size == 3), signed_wraps))
        return tokens.reshape(batch, length), Tree(signs, wraps, np.concatenate(brackets), operator, ends)

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
        ends = [0, *np.cumsum(np.bincount(depth[starts])).tolist()]
        return Tree(np.flatnonzero(signs), np.flatnonzero(wraps), starts, middles, ends)

    def evaluate(self, tokens: Int[ndarray, "b t"], tree: Tree) -> Int[ndarray, " b"]:
        """The value mod 5 of each expression."""
        values = tokens.flatten()
        values[tree.signs] = -values.take(tree.signs + 1) % 5
        values[tree.wraps] = values.take(tree.wraps + 1)
        # Operators stay what they are, so all that needs no value of a deeper bracket is done for all depths at once.
        kind, left, right = values.take(tree.operators) * 25, tree.brackets + 1, tree.operators + 1
        for start, end in zip(tree.ends[-2::-1], tree.ends[:0:-1], strict=True):
            depth = slice(start, end)
            place = kind[depth] + values.take(left[depth]) * 5 + values.take(right[depth])
            values[tree.brackets[depth]] = _RESULTS.take(place)
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
