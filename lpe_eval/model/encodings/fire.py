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
    * f is piecewise linear in one number, and below the threshold the bias depends on i - j alone;
      `model/fast/interpolation.py` computes it that way.
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

from lpe_eval.model.descriptions import RatioBias
from lpe_eval.model.encoding import Encoding, EncodingOptions, Geometry, reset_linear
from lpe_eval.model.fast.computed_by import computed_by
from lpe_eval.model.fast.interpolation import Interpolation, interpolated
from lpe_eval.model.fast.piecewise import RatioNetwork, linear_pieces
from lpe_eval.model.offsets import distances


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
    bibtex: ClassVar[str] = """
        @misc{li2023fire,
          title = {{Functional Interpolation for Relative Positions Improves Long Context Transformers}},
          author = {Li, Shanda and You, Chong and Guruganesh, Guru and Ainslie, Joshua and Ontanon, Santiago
            and Zaheer, Manzil and Sanghai, Sumit and Yang, Yiming and Kumar, Sanjiv and
            Bhojanapalli, Srinadh},
          year = {2023},
          eprint = {2310.04418},
          archivePrefix = {arXiv},
        }
    """
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

    @computed_by(lambda self, q_at, k_at: interpolated(self.interpolation(), q_at, k_at))
    def bias(self, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Float[Tensor, "h q k"]:
        numerator = self.psi(self.distance(q_at[:, None] - k_at[None, :]))
        ratio = numerator / self.denominator(q_at, k_at)[:, None]
        hidden = F.leaky_relu(self.first(ratio[..., None].to(self.first.weight.dtype)), self.leak)
        return self.second(hidden).movedim(-1, 0)

    def psi(self, distance: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """ln(1 + |c x|)."""
        return torch.log1p((self.c * distance).abs())

    def distance(self, offset: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The distance at each offset i - j; never negative."""
        return distances(offset, self.geometry.causal or self.options.future == "zero")

    def denominator(self, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Float[Tensor, " q"]:
        """What the numerator of every key of a query is divided by."""
        threshold = self.threshold
        return self.psi(torch.maximum(threshold, self.reach(q_at, k_at).to(threshold.dtype))) + self.options.eps

    def reach(self, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Int[Tensor, " q"]:
        """How far each query reaches: its position, or its distance to the farthest key."""
        if not self.geometry.causal and self.options.normaliser == "farthest":
            return torch.maximum(q_at - k_at.min(), k_at.max() - q_at)
        return q_at

    @property
    def threshold(self) -> Float[Tensor, ""]:
        """L, the least reach."""
        return (self.multiplier * self.initial_threshold).abs()

    @property
    def leak(self) -> float:
        """The factor of negative numbers in the activation."""
        return 0.01 if self.options.activation == "leaky_relu" else 0.0

    def interpolation(self) -> Interpolation:
        """What `bias` computes, part by part."""
        network = RatioNetwork(self.first.weight, self.first.bias, self.second.weight, self.second.bias, self.leak)
        causal, eps = self.geometry.causal, self.options.eps
        return Interpolation(network, self.distance, self.psi, self.threshold, self.reach, eps, causal)

    def ratio_bias(self) -> RatioBias | None:
        return RatioBias(
            numerator=lambda offset: self.psi(self.distance(offset)),
            denominator=self.denominator,
            pieces=lambda: linear_pieces(self.interpolation().network),
        )
