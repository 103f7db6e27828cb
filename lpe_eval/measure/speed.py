"""Seconds of a forward pass and of a training pass, each encoding beside plain causal attention.

The unit is the same model without an encoding (`none`) on PyTorch's fused causal attention (path
`sdpa`). In every round the unit and the encodings take turns in one process, so that whatever else
the machine does falls on all of them alike.

Choices:
    * Seconds of a case are the median over the rounds. Its ratio is the median over the rounds of its
      seconds to the unit's *in the same round*, which a slow drift of the machine leaves alone. A
      round before the first is not counted: kernels are compiled and threads started in it.
    * A forward pass is what scoring does: hidden states of all tokens, logits in chunks, loss of every
      target in float32, without gradients. A training pass is the mean loss of all targets and its
      gradient; there is no optimiser step, which costs the same for all. As in `lpe-eval train`,
      weights are float32 then, and another dtype is that of autocast.
    * Weights are freshly drawn and tokens random: nothing here depends on their values.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch.nn import functional as F

from lpe_eval.data.batch import Batch
from lpe_eval.measure.score import target_losses
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.transformer import Transformer
from lpe_eval.model.transformer_model import TransformerModel
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.model_spec import CheckpointSpec, ModelSpec
from lpe_eval.spec.speed_spec import Mode

UNIT = "plain"
"""What the unit is called."""

_SHORTEST = 1e-9
"""Seconds: a tick of the clock."""


class Case(BaseModel):
    """What is timed: a model, a way to run it, and the batch it gets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSpec
    attention: str
    mode: Mode
    length: int
    windows: int
    dtype: str


class Timing(NamedTuple):
    """Seconds of one case over the rounds, and how they compare with the unit's."""

    median: float
    fastest: float
    slowest: float
    ratio: float | None
    """None where the unit could not be run."""


def unit_of(case: Case) -> Case:
    """Plain causal attention in the same model."""
    bare = case.model.model_copy(update={"encoding": EncodingSpec(name="none")})
    return case.model_copy(update={"model": bare, "attention": "sdpa"})


class Passes:
    """A model of a case, ready to be run.

    Raises:
        SpecError: the encoding does not exist or does not fit, or the attention path cannot compute it.
    """

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self.device, self.dtype = case, device, getattr(torch, case.dtype)
        self.model = Transformer(case.model, case.attention)
        self.model.initialise(torch.Generator().manual_seed(1))
        self.model.put(device, torch.float32 if case.mode == "train" else self.dtype)
        spec = CheckpointSpec(schema=1, name=str(case.model.encoding), model=case.model)
        self.scored = TransformerModel(self.model, spec, "", LoadOptions(device, self.dtype, case.attention), "native")

    @property
    def attention(self) -> str:
        """The attention path in use."""
        return self.scored.attention

    def once(self, length: int, windows: int) -> None:
        """One pass over so many windows of random tokens, finished when this returns.

        Raises:
            LengthError: the encoding has no position for some of the tokens.
        """
        draw = torch.Generator().manual_seed(length)
        text = torch.randint(0, self.case.model.vocab_size, (windows, length + 1), generator=draw).to(self.device)
        tokens, targets = text[:, :-1].contiguous(), text[:, 1:].contiguous()
        if self.case.mode == "forward":
            target_losses(self.scored, Batch(tokens, targets, torch.ones_like(targets, dtype=torch.bool)), draw)
        else:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                logits = self.model.logits(self.model(tokens, draw))
            F.cross_entropy(logits.float().flatten(0, 1), targets.flatten()).backward()
            self.model.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def seconds_in_turn(
    passes: Mapping[str, Callable[[], None]],
    rounds: int,
    done: Callable[[str], None],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each pass in each counted round; all take turns, in the order given.

    Args:
        passes: what is timed, by name; each returns when it is finished.
        rounds: how many are counted, after one that is not.
        done: told the name of each pass when it has ended.
        clock: seconds from any fixed moment.
    """
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds + 1):
        for name, run in passes.items():
            began = clock()
            run()
            # A clock that was set back has measured nothing; what is too short for it has not taken none.
            seconds[name].append(max(clock() - began, _SHORTEST))
            done(name)
    return {name: each[1:] for name, each in seconds.items()}


def timing(seconds: Sequence[float], unit: Sequence[float] | None) -> Timing:
    """Medians of a case, and of its ratio to the unit round by round."""
    ratio = None
    if unit is not None:
        ratio = statistics.median(own / plain for own, plain in zip(seconds, unit, strict=True))
    return Timing(statistics.median(seconds), min(seconds), max(seconds), ratio)
