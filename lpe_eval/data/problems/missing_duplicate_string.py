"""Missing duplicate: a string stands twice with one token hidden; which?

    0 1 1 0 0 2 1 0   ->   1
    1 0 1 1 2 1 3     ->   0        3 fills up an odd length
    (mask)                 1

Token 2 hides one of the 2 * (length // 2) tokens, each as often as any other. A string of one token is
1 with answer 1. Source: the "missing_duplicate_string" task of the released code (see `problem.py`).
Both halves together hold an even number of ones, so the answer is also the parity of the ones that are
seen: a second way to the answer, for which the order does not matter.
"""

from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from lpe_eval.data.problem import CHOMSKY_BIBTEX, Answer, Level, Problem, all_count, uniform_below, uniform_tokens


class MissingDuplicateString(Problem):
    """See the module's docstring."""

    title: ClassVar[str] = "Missing duplicate"
    bibtex = CHOMSKY_BIBTEX
    level: ClassVar[Level] = "cs"
    input_size: ClassVar[int] = 4
    classes: ClassVar[int] = 2

    @classmethod
    def draw(cls, batch: int, length: int, generator: torch.Generator, device: torch.device) -> Int[Tensor, "b t"]:
        half = length // 2
        if half == 0:
            return torch.ones(batch, 1, dtype=torch.long, device=device)
        twice = uniform_tokens(batch, half, 2, generator, device).repeat(1, 2)
        twice.scatter_(1, uniform_below(2 * half, batch, generator, device)[:, None], 2)
        return torch.nn.functional.pad(twice, (0, 1), value=3) if length % 2 else twice

    @classmethod
    def solve(cls, inputs: Int[Tensor, "b t"]) -> Answer:
        half = inputs.shape[1] // 2
        if half == 0:
            return all_count(inputs)
        hidden = (inputs == 2).int().argmax(1, keepdim=True)
        return all_count(inputs.gather(1, (hidden + half) % (2 * half)))

    @classmethod
    def ceilings(cls, length: int) -> dict[str, float]:
        return {"by_position": 1.0 if length == 1 else 0.5}
