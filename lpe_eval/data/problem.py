"""The contract of an algorithmic problem: a batch of strings, what should be answered, and which answers count.

A problem answers two questions, both for a whole batch at once: which inputs there are (`draw`) and
what the answer to each of them is (`solve`, a pure function). The fifteen members follow the
Chomsky-hierarchy tasks of Delétang et al. 2022 (arXiv 2207.02098) as Ruoss et al. 2023 (arXiv 2305.16843)
use them: google-deepmind/randomized_positional_encodings at e8c6474, whose batches are those of
google-deepmind/neural_networks_chomsky_hierarchy at 2b8eb4b. Where a paper and this code disagree, the
code is followed and the member says so.

Deviations and choices:
    * Strings are token ids, not one-hot rows; answers to a single question keep a time axis of one.
    * Every draw comes from one `torch.Generator`, where the released code uses up to three global ones.
      A choice among k that depends on the row is floor(u * k) of a float64 u, uniform to 1 in 2^53 / k.
    * Only the default settings of the released code exist: modulus 5, five symbols to sort, binary strings.
    * The loss of the released code counts every answer token, also zeros after the end token, and the
      accuracy does not. `Sample.mask` is the accuracy's; the loss is the trainer's own business.
    * The released encoder can read computation tokens between the input and the answer
      (`computation_steps_mult`). By default it reads none, and there are none here.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lpe_eval.errors import SpecError
from lpe_eval.registry import PROBLEMS
from lpe_eval.spec.che_task import Level

_GUESSES = 1024
"""Strings in each half of an estimate."""


CHOMSKY_BIBTEX = r"""
    @misc{deletang2022chomsky,
      title = {{Neural Networks and the Chomsky Hierarchy}},
      author = {Del{\'e}tang, Gr{\'e}goire and Ruoss, Anian and Grau-Moya, Jordi and Genewein, Tim and
        Wenliang, Li Kevin and Catt, Elliot and Cundy, Chris and Hutter, Marcus and Legg, Shane
        and Veness, Joel and Ortega, Pedro A.},
      year = {2022},
      eprint = {2207.02098},
      archivePrefix = {arXiv},
    }

    @misc{ruoss2023randomized,
      title = {{Randomized Positional Encodings Boost Length Generalization of Transformers}},
      author = {Ruoss, Anian and Del{\'e}tang, Gr{\'e}goire and Genewein, Tim and Grau-Moya, Jordi and
        Csord{\'a}s, R{\'o}bert and Bennani, Mehdi and Legg, Shane and Veness, Joel},
      year = {2023},
      eprint = {2305.16843},
      archivePrefix = {arXiv},
    }
"""
"""Where the fifteen problems come from, and where they became a test of positional encodings."""


class Answer(NamedTuple):
    """What should be answered, and which answers count; `o` runs over answer tokens."""

    targets: Int[Tensor, "b o"]
    mask: Bool[Tensor, "b o"]


class Sample(NamedTuple):
    """Strings and their answers."""

    inputs: Int[Tensor, "b t"]
    targets: Int[Tensor, "b o"]
    mask: Bool[Tensor, "b o"]


class Problem(ABC):
    """One algorithmic problem. It has no state; everything is a class method."""

    title: ClassVar[str]
    """Display name in tables and plots."""
    level: ClassVar[Level]
    input_size: ClassVar[int]
    """Number of token ids the released code declares, some of which may never occur."""
    classes: ClassVar[int]
    """Number of answers to choose from at each place."""
    permutation_invariant: ClassVar[bool] = False
    """Whether the order of the input does not matter to the answer."""
    shortest_length: ClassVar[int] = 1
    bibtex: ClassVar[str] = ""
    """What to cite for the problem, as BibTeX; may hold several entries."""

    @classmethod
    @abstractmethod
    def draw(cls, batch: int, length: int, generator: torch.Generator, device: torch.device) -> Int[Tensor, "b t"]:
        """A batch of inputs with the official distribution; `length` is at least 1."""

    @classmethod
    @abstractmethod
    def solve(cls, inputs: Int[Tensor, "b t"]) -> Answer:
        """The answers to a batch of inputs that `draw` could have made."""

    @classmethod
    def sample(cls, batch: int, length: int, generator: torch.Generator, device: torch.device) -> Sample:
        """A batch of inputs with their answers.

        Raises:
            SpecError: there is no string of that length.
        """
        require_length(cls, length)
        inputs = cls.draw(batch, length, generator, device)
        return Sample(inputs, *cls.solve(inputs))

    @classmethod
    def output_length(cls, length: int) -> int:
        """Number of answer tokens for `length` input tokens."""
        return 1

    @classmethod
    def chance(cls) -> float:
        """Accuracy of guessing uniformly."""
        return 1 / cls.classes

    @classmethod
    def ceilings(cls, length: int) -> dict[str, float]:
        """Accuracies that need no skill at this length, of all counted answers as the score is.

        `by_position`: the length and the place in the answer are known, and nothing of the input; the
        most frequent answer at each place. `without_positions`, for answers of several tokens: one token
        for all places of an answer, the best one for each string. An encoder without positional
        information cannot do more, because it sees its empty tokens all alike; where the answer is a
        rearrangement of the input, it can do so much. Exact, unless the problem says that it estimates.
        """
        return {"by_position": cls.chance()}


def open_problem(name: str) -> type[Problem]:
    """The problem called `name`.

    Raises:
        UnknownName: no problem has that name.
        SpecError: what has that name is no problem, or does not say all that a problem must.
    """
    member = PROBLEMS.load(name)
    if not issubclass(member, Problem):
        raise SpecError(f"the problem {name!r} is not a subclass of lpe_eval.data.problem.Problem")
    for wanted in ("title", "level", "input_size", "classes"):
        if getattr(member, wanted, None) is None:
            raise SpecError(f"the problem {name!r} does not say its {wanted}; see lpe_eval.data.problem.Problem")
    return member


def require_length(problem: type[Problem], length: int) -> None:
    """Raises SpecError where a problem has no strings of that length."""
    if length < problem.shortest_length:
        raise SpecError(f"{problem.title} has no strings of length {length}; ask for {problem.shortest_length} or more")


def assemble(sample: Sample, problem: type[Problem]) -> Int[Tensor, "b s"]:
    """What the encoder reads, `s = t + o` tokens: the input, then an empty token for each answer token.

    The empty token has the id `input_size`. Answers are read at the empty tokens.

        reverse_string, 2 bits     1 0 2 2   ->   . . 0 1
    """
    return torch.cat([sample.inputs, sample.inputs.new_full(sample.targets.shape, problem.input_size)], dim=1)


def vocabulary_size(problem: type[Problem]) -> int:
    """Number of token ids that `assemble` uses: the inputs', and the empty token's."""
    return problem.input_size + 1


def uniform_tokens(
    batch: int, length: int, symbols: int, generator: torch.Generator, device: torch.device
) -> Int[Tensor, "b t"]:
    """Independent uniform tokens 0 .. symbols-1."""
    return torch.randint(symbols, (batch, length), generator=generator, device=device)


def uniform_below(
    bound: Int[Tensor, " b"] | int, batch: int, generator: torch.Generator, device: torch.device
) -> Int[Tensor, " b"]:
    """One uniform integer in 0 .. bound-1 for each row."""
    if isinstance(bound, int):
        return torch.randint(bound, (batch,), generator=generator, device=device)
    return (torch.rand(batch, dtype=torch.float64, generator=generator, device=device) * bound).long()


def all_count(targets: Int[Tensor, "b o"]) -> Answer:
    """An answer whose every token counts."""
    return Answer(targets, torch.ones_like(targets, dtype=torch.bool))


def with_end(digits: Int[Tensor, "b o"], size: Int[Tensor, " b"]) -> Answer:
    """An answer of `size` digits (zero beyond), an end token 2, and zeros that do not count."""
    at = torch.arange(digits.shape[1], device=digits.device)
    return Answer(digits.scatter(1, size[:, None], 2), at <= size[:, None])


def estimated_ceilings(problem: type[Problem], length: int) -> dict[str, float]:
    """The ceilings from samples: the likeliest answers of one half of them, scored on the other.

    The seed is the length, so the estimate is the same in every run; from length 41 on it is good to 0.005,
    and at a few tokens to 0.02.
    """
    generator = torch.Generator().manual_seed(length)
    _, targets, mask = problem.sample(2 * _GUESSES, length, generator, torch.device("cpu"))
    tokens = torch.stack([(targets == token) & mask for token in range(problem.classes)]).long()
    seen, unseen = tokens[:, :_GUESSES].sum(1), tokens[:, _GUESSES:].sum(1)
    by_position = unseen.gather(0, seen.argmax(0, keepdim=True)).sum() / mask[_GUESSES:].sum()
    without_positions = tokens.sum(2).amax(0).sum() / mask.sum()
    return {"by_position": float(by_position), "without_positions": float(without_positions)}


def majority_of_bits(length: int) -> float:
    """Expected share of the more frequent symbol among `length` fair bits: a mean absolute deviation.

    E max(k, L - k) = L / 2 + E |k - L / 2|, and by de Moivre the latter is
    ceil(L / 2) * C(L, ceil(L / 2)) / 2^L.
    """
    half = (length + 1) // 2
    return 0.5 + half * math.comb(length, half) / (length * 2**length)
