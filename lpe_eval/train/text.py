"""Trains a language model; every draw comes from a seed, and a step depends on nothing but its number.

The batch of step s is drawn by a generator seeded with (seed, s), so two models with one seed see
the same text in the same order, and a resumed run continues as if it had never stopped.
"""

import math
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lpe_eval.errors import DataError, DivergedError
from lpe_eval.measure.progress import Advance
from lpe_eval.model.transformer import Transformer
from lpe_eval.records import LogRow
from lpe_eval.spec.train_spec import TrainSpec
from lpe_eval.train.snapshot import SnapshotError, opened_snapshot, refuse_misfit, snapshot_of

_LOG_EVERY = 20


class TrainingStep(NamedTuple):
    """One optimiser step, and the validation loss where one was measured."""

    step: int
    train_nll_nats: float
    gradient_norm: float
    learning_rate: float
    valid_nll_nats: float | None


class Logged(NamedTuple):
    """Some steps have been taken: their row of the log, and what training goes on from, None where none is due."""

    row: LogRow
    snapshot: bytes | None


class Trainer:
    """A model, its optimiser and the step it has reached.

    Args:
        spec: the recipe.
        tokens: the training stream.
        validation: the validation stream.
        device: where to train.

    Raises:
        DataError: a stream is shorter than one window.
    """

    def __init__(
        self, spec: TrainSpec, tokens: Int[Tensor, " n"], validation: Int[Tensor, " m"], device: torch.device
    ) -> None:
        length = spec.model.train_length
        for what, stream in (("training", tokens), ("validation", validation)):
            if len(stream) < length + 1:
                raise DataError(f"the {what} text has {len(stream)} tokens; a window needs {length + 1}")
        self.spec, self.device, self.step = spec, device, 0
        self.tokens, self.validation = tokens, validation
        self.model = Transformer(spec.model, spec.attention)
        self.model.initialise(torch.Generator().manual_seed(spec.seed))
        self.model.to(device)
        decayed = [each for each in self.model.parameters() if each.dim() >= 2]
        others = [each for each in self.model.parameters() if each.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=spec.learning_rate,
            betas=(0.9, 0.95),
        )

    def snapshot(self) -> bytes:
        """Everything needed to go on from this step, for `restore`."""
        state = {"step": self.step, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return snapshot_of(state)

    def restore(self, snapshot: bytes) -> None:
        """Goes back to the step at which the snapshot was taken.

        Raises:
            SnapshotError: it is damaged, or of another model.
        """
        with opened_snapshot(snapshot, self.device) as state:
            step = state["step"]
            if type(step) is not int or not 0 <= step <= self.spec.steps:
                raise SnapshotError(f"step {step!r} is none of {self.spec.steps}")
            self.model.load_state_dict(state["model"])
            # Rates and decays are the recipe's; what the snapshot says of them need not be believed.
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
            refuse_misfit(self.optimizer)
            self.step = step

    def run(self) -> Iterator[TrainingStep]:
        """Trains to the last step, yielding after each.

        Raises:
            DivergedError: the loss or the gradient is not finite.
        """
        spec = self.spec
        while self.step < spec.steps:
            rate = learning_rate(spec, self.step)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss, norm = self._train_step()
            self.step += 1
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise DivergedError(
                    f"training of {spec.name} diverged at step {self.step} (loss {loss}, gradient norm {norm}); "
                    "lower --learning-rate"
                )
            due = self.step % spec.validate_every == 0 or self.step == spec.steps
            yield TrainingStep(self.step, loss, norm, rate, self.validate() if due else None)

    @torch.no_grad()
    def validate(self) -> float:
        """Mean nats per token over non-overlapping windows of the validation stream."""
        length = self.spec.model.train_length
        usable = min(len(self.validation) - 1, self.spec.validation_tokens) // length * length
        starts = torch.arange(0, usable, length)
        self.model.eval()
        total = 0.0
        for chunk in starts.split(max(1, self.spec.batch_tokens // length)):
            total += self._loss(self.validation, chunk, self._generator(0)).item() * len(chunk)
        self.model.train()
        return total / len(starts)

    def _train_step(self) -> tuple[float, float]:
        generator = self._generator(self.step)
        windows = self.spec.batch_tokens // self.spec.model.train_length
        last = len(self.tokens) - self.spec.model.train_length
        starts = torch.randint(0, last, (windows,), generator=generator)
        loss = self._loss(self.tokens, starts, generator)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item(), norm.item()

    def _loss(
        self, stream: Int[Tensor, " n"], starts: Int[Tensor, " b"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        at = starts[:, None] + torch.arange(self.spec.model.train_length + 1)
        tokens = stream[at].to(self.device, torch.long)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.compute_dtype == "bfloat16"):
            logits = self.model.logits(self.model(tokens[:, :-1], generator))
        return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    def _generator(self, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.spec.seed * 1_000_003 + step)


def train_text(trainer: Trainer, seconds_before: float, advance: Advance) -> Iterator[Logged]:
    """Trains to the last step; an event for every twenty steps, and for every validation one with a snapshot.

    The last step is a validation, and the one that needs no snapshot.

    Args:
        trainer: goes on from the step it has reached.
        seconds_before: spent until that step.
        advance: told of every step.

    Raises:
        DivergedError: the loss or the gradient is not finite.
    """
    began = time.monotonic()
    pending: list[TrainingStep] = []
    shown: str | None = None
    for step in trainer.run():
        pending.append(step)
        validated = step.valid_nll_nats is not None
        if validated or step.step % _LOG_EVERY == 0:
            row = _log_row(pending, seconds_before + max(time.monotonic() - began, 0.0))
            pending.clear()
            yield Logged(row, trainer.snapshot() if validated and step.step < trainer.spec.steps else None)
            shown = f"{trainer.spec.name}  loss {row.train_nll_nats:.3f}"
        advance(1, shown)


def _log_row(steps: Sequence[TrainingStep], seconds: float) -> LogRow:
    """Means over some steps, and the rest from the last."""
    last = steps[-1]
    return LogRow(
        last.step,
        sum(step.train_nll_nats for step in steps) / len(steps),
        sum(step.gradient_norm for step in steps) / len(steps),
        last.learning_rate,
        last.valid_nll_nats,
        round(seconds, 1),
    )


def learning_rate(spec: TrainSpec, step: int) -> float:
    """Linear warm-up, then a cosine from the peak to `final_rate` of it at the last step."""
    if step < spec.warmup_steps:
        return spec.learning_rate * (step + 1) / spec.warmup_steps
    progress = (step - spec.warmup_steps) / max(1, spec.steps - spec.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return spec.learning_rate * (spec.final_rate + (1 - spec.final_rate) * cosine)
