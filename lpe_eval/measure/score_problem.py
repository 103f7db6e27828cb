"""The share of right answers to an algorithmic problem, and how sure it is.

Two metrics, both over the answer tokens that count (`Sample.mask`):

    accuracy      right tokens over counted tokens, of the whole test set
    exact_match   strings whose counted tokens are all right, over strings

Source of the accuracy: `range_evaluation` of google-deepmind/randomized_positional_encodings at e8c6474.
It forms the ratio in each of 8 sub-batches of 64 strings and takes the plain mean of the 8 ratios.

Deviations and choices:
    * The ratio is formed once, over all strings, so that it does not depend on how they are divided into
      batches. Where every string has equally many counted tokens (all problems but stack_manipulation,
      binary_addition and binary_multiplication) and the sub-batches are of equal size, both are the same
      number; for those three they differ by the spread of the counts between sub-batches.
      `ProblemScore.official_accuracy` gives the mean of the ratios.
    * Strings are the independent units: the tokens of one answer are right and wrong together. The
      standard error of the accuracy is that of a ratio of two sums over n strings, of r right tokens among
      m counted ones (Cochran 1977, Sampling Techniques, 3rd edition, section 2.11; a cluster-robust
      error, with n - 1):

          se = sqrt( n / (n - 1) * sum_i (r_i - accuracy * m_i)^2 ) / sum_i m_i

      For exact_match it is sqrt(p (1 - p) / (n - 1)), the same formula with m = 1. It is zero where all
      strings are right, or all wrong, and NaN for a single string.
    * The arg-max takes the first of equal logits. A logit that is NaN makes the answer wrong.
    * The test set of a length depends on the problem, the length, the number of strings and the seed alone:
      it is drawn at once on the CPU, whatever the device and the sub-batch. A model that draws positions
      gets a CPU generator of its own, new for each length and seeded in the same way; it draws once more
      for each sub-batch, as the released code does.
    * A uniform guess gets a whole answer of m tokens right with probability classes^-m; the chance of
      exact_match is the mean of that over the test set. What it can reach without skill is known only
      where one token is asked for, and there it is that of the accuracy.
"""

import hashlib
import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.data.problem import Problem, Sample, assemble

OFFICIAL_SUB_BATCH = 64
"""Strings in a sub-batch of the released evaluation."""

Answerer = Callable[[Int[Tensor, "b t"], torch.Generator], Float[Tensor, "b t c"]]
"""From assembled tokens to the logits of each class at every place, or at the last places at least."""


class ProblemScore(NamedTuple):
    """The score of one model on one problem at one length; see the module's docstring.

    Attributes:
        n_correct: right tokens of each string, for comparing two models on the same strings.
        n_scored: counted tokens of each string.
        test_set: hash of the strings with their answers.
    """

    accuracy: float
    accuracy_stderr: float
    exact_match: float
    exact_match_stderr: float
    n_correct: Int[np.ndarray, " n"]
    n_scored: Int[np.ndarray, " n"]
    test_set: str

    @property
    def n_samples(self) -> int:
        """Strings in the test set."""
        return len(self.n_scored)

    @property
    def n_tokens(self) -> int:
        """Counted answer tokens in the test set."""
        return int(self.n_scored.sum())

    def official_accuracy(self, sub_batch: int = OFFICIAL_SUB_BATCH) -> float:
        """The plain mean of the accuracies of sub-batches, as the released code reports it."""
        parts = range(sub_batch, self.n_samples, sub_batch)
        pairs = zip(np.split(self.n_correct, parts), np.split(self.n_scored, parts), strict=True)
        return float(np.mean([right.sum() / counted.sum() for right, counted in pairs]))


class MetricValue(NamedTuple):
    """A metric's value and standard error, its value for a uniform guess, and the highest without skill."""

    value: float
    stderr: float
    chance: float
    ceiling: float | None


def score_problem(
    answer: Answerer,
    problem: type[Problem],
    length: int,
    samples: int,
    sub_batch: int,
    seed: int,
    device: torch.device,
) -> ProblemScore:
    """Scores answers to `samples` strings of one length, `sub_batch` of them at a time.

    Args:
        answer: gives logits; called without gradients. A model in training mode keeps its dropout.
        problem: what is asked.
        length: tokens of the input.
        samples: strings in the test set.
        sub_batch: strings in one call of `answer`; changes no sampled string.
        seed: seed of the test set.
        device: where the model is.

    Raises:
        SpecError: the problem has no strings of that length.
        LengthError: the model has no position for some of the tokens.
    """
    found = problem_test_set(problem, length, samples, seed)
    generator = _generator("positions", problem, length, samples, seed)
    pieces = []
    for start in range(0, samples, sub_batch):
        some = Sample(*(each[start : start + sub_batch].to(device) for each in found))
        with torch.inference_mode():
            logits = answer(assemble(some, problem), generator)
        pieces.append(correct_answers(logits, some).cpu())
    return score_of(torch.cat(pieces), found)


def problem_test_set(problem: type[Problem], length: int, samples: int, seed: int) -> Sample:
    """The strings that every model is tested on, on the CPU.

    Raises:
        SpecError: the problem has no strings of that length.
    """
    return problem.sample(samples, length, _generator("strings", problem, length, samples, seed), torch.device("cpu"))


def correct_answers(logits: Float[Tensor, "*m b t c"], sample: Sample) -> Int[Tensor, "*m b"]:
    """How many counted tokens of each answer are right, with any axes of runs in front of the batch.

    Args:
        logits: only the last places, as many as answer tokens, are read.
        sample: the strings of the batch, on the same device.
    """
    last = logits[..., logits.shape[-2] - sample.targets.shape[1] :, :]
    right = (last.argmax(-1) == sample.targets) & sample.mask & ~last.isnan().any(-1)
    return right.sum(-1)


def score_of(n_correct: Int[Tensor, " n"], sample: Sample) -> ProblemScore:
    """The score of a test set of which the right tokens of each answer are known."""
    right, counted = n_correct.cpu().numpy(), sample.mask.sum(1).cpu().numpy()
    whole = right == counted
    accuracy, accuracy_stderr = _ratio(right, counted)
    exact, exact_stderr = _ratio(whole.astype(np.int64), np.ones_like(counted))
    return ProblemScore(accuracy, accuracy_stderr, exact, exact_stderr, right, counted, digest_of_test_set(sample))


def metric_values(score: ProblemScore, problem: type[Problem], length: int) -> dict[str, MetricValue]:
    """The metrics of `table.CHE_METRICS`, each with what it has to be compared with."""
    ceiling, chances = best_ceiling(problem, length), float(problem.classes) ** -score.n_scored
    one_token = problem.output_length(length) == 1
    return {
        "accuracy": MetricValue(score.accuracy, score.accuracy_stderr, problem.chance(), ceiling),
        "exact_match": MetricValue(
            score.exact_match, score.exact_match_stderr, float(chances.mean()), ceiling if one_token else None
        ),
    }


@cache
def best_ceiling(problem: type[Problem], length: int) -> float:
    """The highest accuracy at this length that needs no skill."""
    return max(problem.ceilings(length).values())


def _ratio(above: Int[np.ndarray, " n"], below: Int[np.ndarray, " n"]) -> tuple[float, float]:
    """The ratio of two sums over independent units, and its standard error."""
    total, units = int(below.sum()), len(below)
    ratio = int(above.sum()) / total
    if units < 2:
        return ratio, math.nan
    squares = float(((above - ratio * below) ** 2).sum())
    return ratio, math.sqrt(units / (units - 1) * squares) / total


def digest_of_test_set(sample: Sample) -> str:
    """Hash of strings with their answers."""
    found = hashlib.sha256()
    for each in sample:
        found.update(f"{tuple(each.shape)} ".encode() + each.to(torch.int64).cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def _generator(purpose: str, problem: type[Problem], length: int, samples: int, seed: int) -> torch.Generator:
    name = problem.__module__.rpartition(".")[2]
    digest = hashlib.sha256(f"{purpose}/{name}/{length}/{samples}/{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))
