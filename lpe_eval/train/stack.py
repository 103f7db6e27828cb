"""Several models of one shape, trained as one: a leading run axis through every weight.

The stack is the reference transformer itself, with parts that have a run axis: the runs stand one after
another in its batch, and only what holds weights knows where one run ends. So whatever the transformer
does (norms, dropout, positions) is written once, and the runs see the same strings, positions and masks.

Choices:
    * All weights lie in one matrix (m, p) and every parameter is a view. Clipping and Adam are a few
      operations on whole matrices, with a row, a norm and a learning rate for each run, and the models
      given to the stack share its memory, so they are always as trained as the stack is.
    * Adam is that of Kingma and Ba 2015 (arXiv 1412.6980) with constant rate and no weight decay, as Optax and
      DeepMind's training have it: m / (1 - b1^t) over sqrt(v / (1 - b2^t)) + eps.
    * With bfloat16 the products of linear layers and of attention are taken in bfloat16; weights, norms,
      residual sums, softmax, loss and optimiser are float32, as in `text.py`.
    * `torch.func.vmap` over the model was tried: it cost as much as the runs one after another, or more.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lpe_eval.errors import SpecError
from lpe_eval.model.transformer import Transformer
from lpe_eval.train.recorded import Recorded
from lpe_eval.train.run_axis import with_run_axis

_BETA_1, _BETA_2, _EPS = 0.9, 0.999, 1e-8


class Stack:
    """Some models as one, with their gradients and their optimiser.

    Args:
        models: reference transformers of one spec, in training mode or not; the stack takes over their weights.
        learning_rates: one for each.
        clip_norm: the largest norm of a run's gradient.
        compute_dtype: of the products.
        record: on a GPU, record the step of each length and replay it; see `recorded.py`.

    Raises:
        SpecError: the shape has parts that cannot be stacked.
    """

    def __init__(
        self,
        models: Sequence[Transformer],
        learning_rates: Sequence[float],
        clip_norm: float,
        compute_dtype: torch.dtype = torch.float32,
        record: bool = True,
    ) -> None:
        assert len(models) == len(learning_rates)
        if models[0].head is None or models[0].spec.adaptive is not None:
            raise SpecError("only models with an embedding and a head of their own can be trained together")
        self.models, self.clip_norm = list(models), clip_norm
        device = next(models[0].parameters()).device
        self.rates = torch.tensor(learning_rates, device=device)[:, None]
        self.weights = _joined_memory(self.models)
        self.first_moment, self.second_moment = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.steps = 0
        self.together, self.leaves = with_run_axis(self.models, self.weights, compute_dtype)
        state = (self.weights, self.first_moment, self.second_moment)
        self._recording = Recorded(state) if record and device.type == "cuda" else None

    def answer(
        self, tokens: Int[Tensor, "b t"], generator: torch.Generator, rows: int | None = None
    ) -> Float[Tensor, "m b r c"]:
        """Each run's logits of the last `rows` tokens (default: all)."""
        runs = len(self.models)
        hidden = self.together(tokens.repeat(runs, 1), generator, rows)
        return self.together.logits(hidden).float().unflatten(0, (runs, -1))

    def step(
        self, tokens: Int[Tensor, "b t"], targets: Int[Tensor, "b o"], generator: torch.Generator, rate: float = 1.0
    ) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
        """One step of every run: its mean cross-entropy over the last places, and its gradient's norm.

        Args:
            tokens: strings that all runs see.
            targets: what should be answered at the last places.
            generator: source of sampled positions and of dropout, shared by all runs.
            rate: what the learning rates are multiplied by in this step.
        """
        self.steps += 1
        given = (tokens, targets, self._factors(rate))
        if self._recording is None:
            return self._taken(*given, generator=generator)
        losses, norms = self._recording(self._taken, *given, generator=generator)
        return losses, norms

    @property
    def why_not_replayed(self) -> str | None:
        """Why the steps are not replayed although this is a GPU; else None."""
        return None if self._recording is None else self._recording.why_not

    def state(self) -> dict[str, Any]:
        """Everything needed to go on from this step."""
        return {
            "weights": self.weights,
            "first_moment": self.first_moment,
            "second_moment": self.second_moment,
            "steps": self.steps,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state; raises ValueError where it is of other models, and then nothing has changed."""
        mine = {name: tensor for name, tensor in self.state().items() if name != "steps"}
        for name, tensor in mine.items():
            if state[name].shape != tensor.shape:
                raise ValueError(f"{name} has the shape {list(state[name].shape)}, not {list(tensor.shape)}")
        self.steps = int(state["steps"])
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(state[name])

    def _factors(self, rate: float) -> Float[Tensor, "2"]:
        """What Adam multiplies eps and the learning rates by in this step.

        With the corrections taken out of the matrices, they are a factor of the rate and one of eps. They are a
        tensor, because a recorded step would hold numbers as they were.
        """
        unbias = (1 - _BETA_2**self.steps) ** 0.5
        factors = (_EPS * unbias, rate * unbias / (1 - _BETA_1**self.steps))
        return torch.tensor(factors).to(self.weights.device, non_blocking=True)

    def _taken(
        self,
        tokens: Int[Tensor, "b t"],
        targets: Int[Tensor, "b o"],
        factors: Float[Tensor, "2"],
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
        """The step itself: all that happens on the device, and nothing else."""
        logits = self.answer(tokens, generator, targets.shape[1])
        each = F.cross_entropy(logits.flatten(0, 2), targets.flatten().repeat(len(logits)), reduction="none")
        losses = each.unflatten(0, (len(logits), -1)).mean(1)
        return losses.detach(), self._update(self._gradients(losses.sum()), factors)

    def _gradients(self, loss: Float[Tensor, ""]) -> Float[Tensor, "m p"]:
        """The gradient of each run in a row, in the order of the weights."""
        runs, flat = len(self.models), [leaf for group in self.leaves for leaf in group]
        found = iter(torch.autograd.grad(loss, flat, allow_unused=True, materialize_grads=True))
        columns = [torch.cat([next(found).flatten() for _ in group]).view(runs, -1) for group in self.leaves]
        return torch.cat(columns, dim=1)

    @torch.no_grad()
    def _update(self, gradients: Float[Tensor, "m p"], factors: Float[Tensor, "2"]) -> Float[Tensor, " m"]:
        norms = torch.linalg.vector_norm(gradients, dim=1)
        gradients.mul_((self.clip_norm / norms.clamp(min=self.clip_norm))[:, None])
        self.first_moment.lerp_(gradients, 1 - _BETA_1)
        self.second_moment.mul_(_BETA_2).addcmul_(gradients, gradients, value=1 - _BETA_2)
        divisor = self.second_moment.sqrt().add_(factors[0])
        step = torch.div(self.first_moment, divisor, out=divisor)
        self.weights.sub_(step.mul_(self.rates * factors[1]))
        return norms


def _joined_memory(models: Sequence[Transformer]) -> Float[Tensor, "m p"]:
    """Moves all parameters into one matrix with a row for each model."""
    weights = torch.stack([torch.cat([each.detach().flatten() for each in model.parameters()]) for model in models])
    for model, row in zip(models, weights, strict=True):
        start = 0
        for parameter in model.parameters():
            stop = start + parameter.numel()
            parameter.data = row[start:stop].view(parameter.shape)
            start = stop
    return weights
