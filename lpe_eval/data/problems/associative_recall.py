"""Associative recall: keys with their values, then all keys in another order; what are their values?

    3 17 . 9 20 9 3   ->   4 1      . is token 24
    (mask)                 1 1

Keys are tokens 0 to 15, their values 16 to 23 (answered as 0 to 7), and 24 fills up. A string holds up to four pairs,
as many as a third of its length; the keys are different, each value is any of the eight, and the pairs stand anywhere
in front of the questions, which are the last tokens: each key once, in any order. Strings have at least three tokens.

After multi-query associative recall (Arora et al. 2023, arXiv 2312.04927; HazyResearch/zoology
`data/multiquery_ar.py` at dbcb60d), for encoders that answer at empty tokens. Deviations, there and here:
    * A decoder answers theirs at each question. Here the answer to the first question stands at the first empty token.
    * Theirs has as many pairs as are asked for, up to 64 in 256 tokens. Here four, so that strings of at least twelve
      tokens differ in nothing but how far a question is from its pair, also beyond the lengths of training.
    * Theirs spreads the questions by a power law, and fills up with random tokens, keys among them, which then stand
      there without a value. Here what fills up is a token of its own.
    * Theirs draws values without replacement from thousands; here each is any of eight.
    * Theirs seeds numpy and draws what fills up with torch; here one generator draws all.

With so few keys, values and pairs a finite automaton can answer, so the problem is regular.
"""

import math
from fractions import Fraction
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from lpe_eval.data.problem import Answer, Level, Problem, all_count

_KEYS, _VALUES, _MOST = 16, 8, 4
_FILLER = _KEYS + _VALUES


class AssociativeRecall(Problem):
    """See the module's docstring."""

    title: ClassVar[str] = "Associative recall"
    level: ClassVar[Level] = "regular"
    input_size: ClassVar[int] = _FILLER + 1
    classes: ClassVar[int] = _VALUES
    shortest_length: ClassVar[int] = 3
    bibtex = r"""
    @misc{arora2023zoology,
      title = {{Zoology: Measuring and Improving Recall in Efficient Language Models}},
      author = {Arora, Simran and Eyuboglu, Sabri and Timalsina, Aman and Johnson, Isys and Poli, Michael
        and Zou, James and Rudra, Atri and R{\'e}, Christopher},
      year = {2023},
      eprint = {2312.04927},
      archivePrefix = {arXiv},
    }
"""

    @classmethod
    def draw(cls, batch: int, length: int, generator: torch.Generator, device: torch.device) -> Int[Tensor, "b t"]:
        pairs = cls.output_length(length)
        keys = _some_of(_KEYS, pairs, batch, generator, device)
        values = torch.randint(_KEYS, _FILLER, (batch, pairs), generator=generator, device=device)
        asked = _some_of(pairs, pairs, batch, generator, device)
        # Pairs take two places each: choose which of the pairs and fillers in a row are pairs.
        room = length - 2 * pairs
        chosen = _some_of(room, pairs, batch, generator, device).sort(1).values
        at = chosen + torch.arange(pairs, device=device)
        tokens = torch.full((batch, length), _FILLER, dtype=torch.long, device=device)
        tokens.scatter_(1, at, keys).scatter_(1, at + 1, values)
        tokens[:, length - pairs :] = keys.gather(1, asked)
        return tokens

    @classmethod
    def solve(cls, inputs: Int[Tensor, "b t"]) -> Answer:
        pairs = cls.output_length(inputs.shape[1])
        given, asked = inputs[:, :-pairs], inputs[:, -pairs:]
        # Of each question, the place of its key; the value stands behind it.
        at = (given[:, None] == asked[..., None]).int().argmax(2)
        return all_count(given.gather(1, at + 1) - _KEYS)

    @classmethod
    def output_length(cls, length: int) -> int:
        return min(_MOST, length // 3)

    @classmethod
    def ceilings(cls, length: int) -> dict[str, float]:
        return {"by_position": 1 / _VALUES, "without_positions": _most_frequent(cls.output_length(length))}


def _some_of(
    many: int, wanted: int, batch: int, generator: torch.Generator, device: torch.device
) -> Int[Tensor, "b w"]:
    """Different numbers below `many` in any order, for each row."""
    return torch.rand(batch, many, dtype=torch.float64, generator=generator, device=device).argsort(1)[:, :wanted]


def _most_frequent(draws: int) -> float:
    """Expected share of the most frequent of some values that are drawn one by one, each as likely as any other.

    P(no value more than m times) is draws! / values^draws times the coefficient of x^draws in
    (sum over k <= m of x^k / k!)^values.
    """
    expected = Fraction(0)
    for most in range(draws):
        series = [Fraction(1)] + [Fraction(0)] * draws
        for _ in range(_VALUES):
            series = [
                sum((series[power - k] / math.factorial(k) for k in range(min(most, power) + 1)), Fraction(0))
                for power in range(draws + 1)
            ]
        # E[max] is the sum over m of P(max > m).
        expected += 1 - series[draws] * math.factorial(draws) / Fraction(_VALUES) ** draws
    return float(expected / draws)
