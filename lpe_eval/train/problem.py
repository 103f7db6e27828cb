"""Trains encoders on an algorithmic problem, all runs of a task and an encoding at once.

A run is a seed and a learning rate. The strings of step s are drawn by a generator seeded with
(data seed, s), so all runs and all encodings see the same strings in the same order, and a resumed training
goes on as if it had never stopped. The seed of a run decides its initial weights alone, as in
google-deepmind/neural_networks_chomsky_hierarchy at 2b8eb4b, whose loss this is: the mean cross-entropy over all
answer tokens, also those that the accuracy does not count.

Choices:
    * A step's length is uniform over the protocol's range, without lengths of which the problem has no string.
    * Strings are drawn on the CPU wherever the model is, so that they are the same on every device.
      Dropout and sampled positions are drawn on the model's device, once for all runs.
    * Every `check_every` steps the runs are validated on strings of their own: not those of training, which
      are drawn anew each time and could be short, and not the test's. Validation decides when a task is solved.
    * A run whose weights are no longer finite is lost; the others go on, and nothing else notices.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.nn import functional as F

from lpe_eval.data.problem import Problem, Sample, assemble
from lpe_eval.measure.progress import Advance
from lpe_eval.measure.score_problem import correct_answers, problem_test_set
from lpe_eval.model.transformer import Transformer
from lpe_eval.spec.che_spec import CheProtocol
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.model_spec import ModelSpec
from lpe_eval.train.snapshot import opened_snapshot, snapshot_of
from lpe_eval.train.stack import Stack

_VALIDATION_SEED = 7_919
"""Keeps the strings of a validation apart from those of the test, whose seeds are small."""


class Validation(NamedTuple):
    """The runs at some step: their loss and accuracy on strings that are not trained on.

    Attributes:
        step: steps taken.
        train_nll_nats: of each run, the mean loss since the validation before.
        nll_nats: of each run, the loss on the strings of validation, all answer tokens.
        accuracy: of each run, counted answer tokens that are right, mean over the in-range lengths.
        lost: of each run, the step of the first validation at which its weights were not finite, or None.
    """

    step: int
    train_nll_nats: tuple[float, ...]
    nll_nats: tuple[float, ...]
    accuracy: tuple[float, ...]
    lost: tuple[int | None, ...]

    def solved(self, at: float | None) -> bool:
        """Whether every run that is not lost has that accuracy."""
        alive = [found for found, lost in zip(self.accuracy, self.lost, strict=True) if lost is None]
        return not alive or (at is not None and min(alive) >= at)


class ProblemTrainer:
    """The runs of one problem and encoding, and the step they have reached.

    Args:
        problem: what is learned.
        encoding: of positions.
        protocol: how it is learned.
        device: where.
        steps: how many steps, if not those of the protocol.

    Raises:
        SpecError: the encoding does not fit, or has no bidirectional form.
        LengthError: it has no positions for the strings of training.
    """

    def __init__(
        self,
        problem: type[Problem],
        encoding: EncodingSpec,
        protocol: CheProtocol,
        device: torch.device,
        steps: int | None = None,
    ) -> None:
        self.problem, self.protocol, self.device = problem, protocol, device
        self.steps, self.step, self.finished = steps or protocol.steps, 0, False
        self.spec = encoder_of(problem, encoding, protocol)
        models = [new_encoder(self.spec, seed).to(device).train() for seed, _ in protocol.runs]
        rates = [rate for _, rate in protocol.runs]
        self.stack = Stack(models, rates, protocol.clip_norm, getattr(torch, protocol.compute_dtype))
        self.lost: list[int | None] = [None for _ in rates]
        seed = _VALIDATION_SEED + protocol.data_seed
        self._held_out = [
            Sample(*(each.to(device) for each in problem_test_set(problem, length, protocol.check_samples, seed)))
            for length in protocol.in_range_lengths
            if length >= problem.shortest_length
        ]
        wide = torch.float32 if device.type == "mps" else torch.float64
        self._losses = torch.zeros(len(rates), dtype=wide, device=device)
        self._since = 0

    @property
    def models(self) -> list[Transformer]:
        """One model for each run, as trained as the stack is."""
        return self.stack.models

    def run(self, advance: Advance) -> Iterator[Validation]:
        """Trains on, with a validation every so many steps and one at the end.

        Args:
            advance: told of every step.
        """
        while not self.finished:
            sample, draws = self._drawn(self.step)
            rate = rate_factor(self.protocol, self.step, self.steps)
            losses, _ = self.stack.step(assemble(sample, self.problem), sample.targets, draws, rate)
            self._losses += losses
            self._since += 1
            self.step += 1
            advance(1)
            if self.step % self.protocol.check_every == 0 or self.step == self.steps:
                found = self.validate()
                self.finished = self.step >= self.steps or found.solved(self.protocol.solved_at)
                yield found

    @torch.no_grad()
    def validate(self) -> Validation:
        """The runs at this step; forgets the losses since the validation before."""
        finite = self.stack.weights.isfinite().all(1).tolist()
        self.lost = [lost or (None if ok else self.step) for ok, lost in zip(finite, self.lost, strict=True)]
        self._eval(True)
        nll, accuracy = [], []
        for number, sample in enumerate(self._held_out):
            tokens = assemble(sample, self.problem)
            # What is hashed into a seed keeps its word, because another would draw other positions.
            draws = self._generator("look", number, self.device)
            logits = self.stack.answer(tokens, draws, sample.targets.shape[1])
            each = F.cross_entropy(logits.flatten(0, 2), sample.targets.flatten().repeat(len(logits)), reduction="none")
            nll.append(each.view(len(logits), -1).cpu().double().mean(1))
            accuracy.append(correct_answers(logits, sample).sum(1).cpu().double() / sample.mask.sum().cpu())
        self._eval(False)
        found = Validation(
            self.step,
            tuple((self._losses / max(1, self._since)).tolist()),
            tuple(torch.stack(nll).mean(0).tolist()),
            tuple(torch.stack(accuracy).mean(0).tolist()),
            tuple(self.lost),
        )
        self._losses.zero_()
        self._since = 0
        return found

    def snapshot(self) -> bytes:
        """Everything needed to go on from a validation, for `restore`."""
        return snapshot_of({"step": self.step, "lost": self.lost, "stack": self.stack.state()})

    def restore(self, snapshot: bytes) -> None:
        """Goes back to the validation at which the snapshot was taken.

        Raises:
            SnapshotError: it is damaged, or of another training.
        """
        with opened_snapshot(snapshot, self.device) as state:
            step, lost = int(state["step"]), list(state["lost"])
            self.stack.restore(state["stack"])
            self.step, self.lost = step, lost

    def _drawn(self, step: int) -> tuple[Sample, torch.Generator]:
        """The strings of a step, and the source of its positions and dropout."""
        generator = self._generator("strings", step, torch.device("cpu"))
        shortest, longest = self.protocol.train_lengths
        shortest = max(shortest, self.problem.shortest_length)
        length = int(torch.randint(shortest, longest + 1, (), generator=generator))
        sample = self.problem.sample(self.protocol.batch, length, generator, torch.device("cpu"))
        there = Sample(*(each.to(self.device, non_blocking=True) for each in sample))
        return there, self._generator("draws", step, self.device)

    def _generator(self, purpose: str, number: int, device: torch.device) -> torch.Generator:
        digest = hashlib.sha256(f"{purpose}/{self.protocol.data_seed}/{number}".encode()).digest()
        return torch.Generator(device).manual_seed(int.from_bytes(digest[:7]))

    def _eval(self, wanted: bool) -> None:
        for module in (self.stack.together, *self.models):
            module.train(not wanted)


def rate_factor(protocol: CheProtocol, step: int, steps: int) -> float:
    """What the learning rate of step `step` (from 0) of `steps` is multiplied by."""
    rising = (step + 1) / (protocol.warmup_steps + 1)
    falling = (steps - step) / (protocol.cooldown_steps + 1)
    return min(1.0, rising, falling)


def encoder_of(problem: type[Problem], encoding: EncodingSpec, protocol: CheProtocol) -> ModelSpec:
    """The model that learns a problem; its train length is the longest assembled string of training."""
    longest = max(protocol.train_lengths)
    return protocol.encoder(
        encoding, problem.input_size, problem.classes, longest + max(1, problem.output_length(longest))
    )


def new_encoder(spec: ModelSpec, seed: int) -> Transformer:
    """An encoder with the initial weights of a seed."""
    model = Transformer(spec)
    model.initialise(torch.Generator().manual_seed(seed))
    return model
