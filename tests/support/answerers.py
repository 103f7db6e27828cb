"""Answerers of algorithmic problems whose score is known."""

from typing import Any

import torch
from torch import Tensor

from lpe_eval.data.problem import Problem, open_problem
from lpe_eval.measure.score_problem import (
    ProblemScore,
    score_problem,
)

CPU = torch.device("cpu")


MASKED = [open_problem(name) for name in ("stack_manipulation", "binary_addition", "binary_multiplication")]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scored(answer: Any, problem: type[Problem], length: int = 9, **changes: Any) -> ProblemScore:
    settings = {"samples": 40, "sub_batch": 16, "seed": 1, **changes}
    return score_problem(answer, problem, length, device=CPU, **settings)


def one_hot(answers: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(answers, classes).float()


def perfect(problem: type[Problem], length: int):
    """Solves what stands in front of the empty tokens."""

    def answer(tokens: Tensor, generator: torch.Generator) -> Tensor:
        outputs = problem.output_length(length)
        solved = problem.solve(tokens[:, : tokens.shape[1] - outputs]).targets
        before = solved.new_zeros(len(tokens), tokens.shape[1] - outputs)
        return one_hot(torch.cat([before, solved], dim=1), problem.classes)

    return answer


def constant(problem: type[Problem], token: int):
    return lambda tokens, generator: one_hot(torch.full_like(tokens, token), problem.classes)


def guessing(problem: type[Problem], seed: int = 7):
    source = seeded(seed)
    return lambda tokens, generator: torch.rand(*tokens.shape, problem.classes, generator=source)
