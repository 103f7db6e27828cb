"""Stack manipulation: what is on the stack in the end, from the top?

    0 1 1 P 4 3 P   ->   1 1 0 2 0 0 0 0        P is token 2
    (mask)               1 1 1 1 0 0 0 0

Tokens 0 and 1 fill the stack from the bottom, 2 pops, 3 pushes a 0 and 4 a 1; popping an empty stack does
nothing. The answer ends with 2. The number of fillers is uniform in 1 .. length-1, each action uniform
among the three; a string of one token is a filler. Source: the "stack_manipulation" task of the released
code (see `problem.py`).

Choice: no step is simulated. The height after each token is a walk reflected at zero, and what lies at
height k in the end is the last thing pushed to height k.
"""

from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from lpe_eval.data.problem import (
    CHOMSKY_BIBTEX,
    Answer,
    Level,
    Problem,
    majority_of_bits,
    uniform_below,
    uniform_tokens,
    with_end,
)

_PUSHES, _ONES = 0b11011, 0b10010
"""Bit k tells of token k: whether it pushes, and whether what it pushes is a one."""


class StackManipulation(Problem):
    """See the module's docstring."""

    title: ClassVar[str] = "Stack manipulation"
    bibtex = CHOMSKY_BIBTEX
    level: ClassVar[Level] = "dcf"
    input_size: ClassVar[int] = 5
    classes: ClassVar[int] = 3

    @classmethod
    def draw(cls, batch: int, length: int, generator: torch.Generator, device: torch.device) -> Int[Tensor, "b t"]:
        if length == 1:
            return uniform_tokens(batch, 1, 2, generator, device)
        content = 1 + uniform_below(length - 1, batch, generator, device)
        fillers = uniform_tokens(batch, length, 2, generator, device)
        actions = torch.randint(2, 5, (batch, length), generator=generator, device=device)
        return torch.where(torch.arange(length, device=device) < content[:, None], fillers, actions)

    @classmethod
    def solve(cls, inputs: Int[Tensor, "b t"]) -> Answer:
        batch, length = inputs.shape
        pushes = _PUSHES >> inputs & 1
        walk = (2 * pushes).sub_(1).cumsum(1)
        height = walk - walk.cummin(1).values.clamp_(max=0)
        size = height[:, -1:]
        # Later tokens win. Pops write to height zero, which is no place of the stack and is cleared.
        stack = inputs.new_zeros(batch, length + 1)
        later = (_ONES >> inputs & 1) + torch.arange(0, 2 * length, 2, device=inputs.device)
        stack.scatter_reduce_(1, height * pushes, later, "amax")
        stack[:, 0] = 0
        from_the_top = size - torch.arange(length + 1, device=inputs.device)
        return with_end(stack.gather(1, from_the_top.clamp_(min=0)).bitwise_and_(1), size[:, 0])

    @classmethod
    def output_length(cls, length: int) -> int:
        return length + 1

    @classmethod
    def ceilings(cls, length: int) -> dict[str, float]:
        sizes = _final_sizes(length)
        answers = sum(share * (size + 1) for size, share in enumerate(sizes))
        beyond = [sum(sizes[size:]) for size in range(1, length + 2)] + [0.0]
        by_position = sum(max(beyond[place] / 2, sizes[place]) for place in range(length + 1))
        constant = sum(share * max(size * majority_of_bits(size) if size else 0, 1) for size, share in enumerate(sizes))
        return {"by_position": by_position / answers, "without_positions": constant / answers}


def _final_sizes(length: int) -> list[float]:
    """How probable each size of the final stack is."""
    if length == 1:
        return [0.0, 1.0]
    sizes = torch.zeros(length + 1, dtype=torch.float64)
    for content in range(1, length):
        sizes[content] += 1 / (length - 1)
        after = torch.zeros_like(sizes)
        after[1:] = sizes[:-1] * 2 / 3
        after[:-1] += sizes[1:] / 3
        after[0] += sizes[0] / 3
        sizes = after
    return sizes.tolist()
