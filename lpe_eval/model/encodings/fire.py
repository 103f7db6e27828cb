"""FIRE: a small network of the distance relative to the query's position.

Source: Li, You, Guruganesh, Ainslie, Ontanon, Zaheer, Sanghai, Yang, Kumar and Bhojanapalli 2024,
"Functional Interpolation for Relative Positions Improves Long Context Transformers" (arXiv
2310.04418). The authors' code is not public; the listing is that of DAPE.py in chuanyang-Zheng/DAPE
at bde344a, class FIRE, and of mcleish7/arithmetic. With psi(x) = ln(1 + |c x|)

    bias(i, j) = f(psi(i - j) / (psi(max(L, i)) + eps)),    f = Linear(1, hidden) - ReLU - Linear(hidden, H),

where i counts from 0 and the threshold is L = |multiplier * init|, both c and the multiplier learned.

Deviations and choices:
    * `threshold`: the initial L is the train length. The listing says 512 and DAPE's training code
      half of its configured length; write `half_train_length`, or a number.
    * One hidden layer, as in every listing; the paper's text speaks of two.
    * `activation: leaky_relu` is what the DAPE code puts into a FIRE that DAPE wraps.
    * Distances are float32 and only the ratio is cast to the type of the weights, as in the code.
    * While every query of a block is below the threshold the bias depends on i - j alone, and f is
      computed once for each distance. The numbers are the same.
    * Bidirectional: the authors have no such form. `future`: "symmetric" gives future keys the
      distance |i - j|, as the listing of mcleish7/arithmetic; "zero" gives them distance 0, as the
      DAPE code. `normaliser`: "farthest" is ours, max(L, distance to the farthest key on either
      side), which keeps the ratio at most one; "query" is max(L, i) as in the causal form. In a
      causal model both are the same and the future is never looked at.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from lpe_eval.model.encoding import Encoding, EncodingOptions, Geometry, distances, reset_linear, spread_offsets


class Fire(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        hidden: PositiveInt = 32
        activation: Literal["relu", "leaky_relu"] = "relu"
        threshold: Literal["train_length", "half_train_length"] | PositiveFloat = "train_length"
        initial_c: float = 0.1
        initial_multiplier: float = 1.0
        eps: NonNegativeFloat = 1e-6
        future: Literal["symmetric", "zero"] = "symmetric"
        normaliser: Literal["farthest", "query"] = "farthest"

    title: ClassVar[str] = "FIRE"
    paper: ClassVar[str] = "Li et al. 2024, arXiv 2310.04418"
    per_layer: ClassVar[bool] = True

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: Fire.Options = options
        match options.threshold:
            case "train_length":
                self.initial_threshold = float(geometry.train_length)
            case "half_train_length":
                self.initial_threshold = float(geometry.train_length // 2)
            case number:
                self.initial_threshold = float(number)
        self.c = nn.Parameter(torch.tensor(options.initial_c))
        self.multiplier = nn.Parameter(torch.tensor(options.initial_multiplier))
        self.first = nn.Linear(1, options.hidden)
        self.second = nn.Linear(options.hidden, geometry.heads)

    def initialise(self, generator: torch.Generator) -> None:
        reset_linear(self.first, generator)
        reset_linear(self.second, generator)
        with torch.no_grad():
            self.c.fill_(self.options.initial_c)
            self.multiplier.fill_(self.options.initial_multiplier)

    def bias(self, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Float[Tensor, "h q k"]:
        reach = q_at
        if not self.geometry.causal and self.options.normaliser == "farthest":
            reach = torch.maximum(q_at - k_at.min(), k_at.max() - q_at)
        threshold = (self.multiplier * self.initial_threshold).abs()
        if int(reach.max()) < float(threshold.detach()):
            return spread_offsets(lambda offset: self._network(self._log(offset), threshold), q_at, k_at)
        offset = q_at[:, None] - k_at[None, :]
        normaliser = torch.maximum(threshold, reach.to(threshold.dtype))[:, None].expand(offset.shape)
        return self._network(self._log(offset).flatten(), normaliser).unflatten(-1, offset.shape)

    def _log(self, offset: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        distance = distances(offset, self.geometry.causal or self.options.future == "zero")
        return torch.log1p((self.c * distance).abs())

    def _network(self, numerator: Float[Tensor, " n"], normaliser: Float[Tensor, "..."]) -> Float[Tensor, "h n"]:
        denominator = torch.log1p((self.c * normaliser).abs()) + self.options.eps
        ratio = numerator / denominator.flatten()
        ratio = ratio.to(self.first.weight.dtype)
        # Heads-first from the start: the hidden layer is a matrix hidden x pairs, reused by the activation.
        hidden = torch.addmm(self.first.bias[:, None], self.first.weight, ratio[None])
        slope = 0.01 if self.options.activation == "leaky_relu" else 0.0
        hidden = F.leaky_relu(hidden, slope, inplace=True) if slope else F.relu(hidden, inplace=True)
        return torch.addmm(self.second.bias[:, None], self.second.weight, hidden)
