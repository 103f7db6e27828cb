"""Batches of the fifteen problems against the same strings made one at a time in plain Python.

    OMP_NUM_THREADS=1 python benchmarks/problems.py --lengths 40 500

Both make tensors of inputs, targets and mask. The plain Python is the tests' oracle: as the released code
does for six of the problems, it draws a string, computes its answer, and goes on to the next; arithmetic
is Python's own. Candidates take turns; of each the median counts.
"""

import argparse
import random
import statistics
import sys
import time
from pathlib import Path

import torch

from lpe_eval.data.problem import open_problem
from lpe_eval.registry import PROBLEMS

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from problem_oracles import one_by_one  # the tests' folder is not a package

CPU = torch.device("cpu")


def main() -> None:
    """Prints one table for each length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[40])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=50)
    asked = parser.parse_args()
    for length in asked.lengths:
        print(f"\n| length {length}, batch {asked.batch} | batched, ms | one by one, ms | ratio |\n|---|---|---|---|")
        totals = [0.0, 0.0]
        for name in PROBLEMS.names():
            ours, theirs = _medians(name, asked.batch, length, asked.rounds)
            totals = [totals[0] + ours, totals[1] + theirs]
            print(f"| {name} | {ours:.3f} | {theirs:.2f} | {theirs / ours:.0f} |")
        print(f"| all fifteen | {totals[0]:.3f} | {totals[1]:.2f} | {totals[1] / totals[0]:.0f} |")


def _medians(name: str, batch: int, length: int, rounds: int) -> list[float]:
    problem, generator, rng = open_problem(name), torch.Generator().manual_seed(0), random.Random(0)
    taken: list[list[float]] = [[], []]
    for _ in range(rounds):
        for place, (repeats, make) in enumerate(
            (
                (20, lambda: problem.sample(batch, length, generator, CPU)),
                (1, lambda: [torch.tensor(each) for each in one_by_one(name, batch, length, rng)]),
            )
        ):
            began = time.perf_counter()
            for _ in range(repeats):
                make()
            taken[place].append((time.perf_counter() - began) / repeats * 1000)
    return [statistics.median(each) for each in taken]


if __name__ == "__main__":
    main()
