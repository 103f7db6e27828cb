"""Strings of the fifteen problems, drawn by the package from a seed."""

import torch

from lpe_eval.data.problem import Sample, open_problem
from tests.support.problem_oracles import ANSWER

CPU = torch.device("cpu")
NAMES = sorted(ANSWER)
ESTIMATED = {("binary_addition", "without_positions"), ("compute_sqrt", "without_positions")} | {
    ("binary_multiplication", ceiling) for ceiling in ("by_position", "without_positions")
}
"""Ceilings that the package estimates instead of counting."""


def drawn(name: str, batch: int, length: int, seed: int = 0) -> Sample:
    return open_problem(name).sample(batch, length, torch.Generator().manual_seed(seed), CPU)
