"""KERPLE, power kernel: a learned penalty that grows with a power of the distance.

Source: Chi, Fan, Ramadge and Rudnicky 2022, "KERPLE: Kernelized Relative Positional Embedding for
Length Extrapolation" (arXiv 2205.09921); code chijames/KERPLE at 25be3d7, class ParallelKerplePower.
With distance x = i - j the logits are

    logits * exp(-wei_a_h * x^wei_p_h)  -  bias_a_h * x^bias_p_h

and `form` says which factors there are: "bias" (`kerple_power_ap_`, the released model), "weight"
(`kerple_power__ap`), "bias_and_weight" (`kerple_power_ap_ap`), "original" (`kerple_power_original`:
no exponent, and the ALiBi slopes as a bias_a that is not trained).

Deviations and choices:
    * The bias is added after the scaling by sqrt(d), as in the code; the paper divides it too.
    * All parameters are at least 0.01 and exponents at most 2. As in kerple_log the forward pass
      reads clamped values, leaves the weights alone and lets the gradient through.
    * The clamp also lifts the fixed slopes of "original" that are below 0.01, as it does in the
      code: with 8 heads or more that form is not ALiBi.
    * `distance_dtype` as in kerple_log.
    * Released checkpoints share the parameters over layers.
    * Bidirectional: the authors have no such form. `future`: "symmetric" is ours, the distance |i - j| on both
      sides; "zero" gives every key in the future distance zero, which is what DAPE's copy of the class computes
      where nothing masks the future (bde344a, `torch.tril` of the distances). In a causal model both are the same.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lpe_eval.model.distance_kernels import KERPLE_FLOOR, alibi_slopes, clamped, rounded
from lpe_eval.model.encoding import Capabilities, Encoding, EncodingOptions, Geometry, Scores
from lpe_eval.model.encodings.kerple_log import KerpleLog
from lpe_eval.model.offsets import distances, spread_offsets

_HIGHEST_POWER = 2.0
"""Above this exponent the kernel is no longer conditionally positive definite."""


class KerplePower(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        form: Literal["bias", "weight", "bias_and_weight", "original"] = "bias"
        distance_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
        future: Literal["symmetric", "zero"] = "symmetric"

    title: ClassVar[str] = "KERPLE-power"
    paper: ClassVar[str] = "Chi et al. 2022, arXiv 2205.09921"
    bibtex: ClassVar[str] = KerpleLog.bibtex

    slopes: Tensor | None

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: KerplePower.Options = options
        self.has_weight = options.form in ("weight", "bias_and_weight")
        biased = options.form in ("bias", "bias_and_weight")
        self.bias_a, self.bias_p = (nn.Parameter(torch.ones(geometry.heads)) if biased else None for _ in "ap")
        self.wei_a, self.wei_p = (nn.Parameter(torch.ones(geometry.heads)) if self.has_weight else None for _ in "ap")
        slopes = alibi_slopes(geometry.heads) if options.form == "original" else None
        self.register_buffer("slopes", slopes, persistent=False)

    @property
    def capabilities(self) -> Capabilities:
        return super().capabilities._replace(offset_bias=self.options.form != "weight", adjusts=self.has_weight)

    def initialise(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            for parameter, high in ((self.bias_p, 2.0), (self.bias_a, 1.0), (self.wei_p, 2.0), (self.wei_a, 1.0)):
                if parameter is not None:
                    parameter.uniform_(0.0, high, generator=generator)

    def bias_by_offset(self, offset: Int[Tensor, " n"]) -> Float[Tensor, "h n"] | None:
        if self.options.form == "weight":
            return None
        scale = self.bias_a if self.slopes is None else self.slopes
        assert scale is not None
        return -self._power(offset, scale, self.bias_p)

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        if not self.has_weight:
            return super().adjust(scores)
        logits = scores.logits * spread_offsets(self._weight_by_offset, scores.q_at, scores.k_at)
        return logits if scores.bias is None else logits + scores.bias

    def _weight_by_offset(self, offset: Int[Tensor, " n"]) -> Float[Tensor, "h n"]:
        assert self.wei_a is not None
        return torch.exp(-self._power(offset, self.wei_a, self.wei_p))

    def _power(
        self, offset: Int[Tensor, " n"], scale: Float[Tensor, " h"], exponent: Float[Tensor, " h"] | None
    ) -> Float[Tensor, "h n"]:
        name = self.options.distance_dtype
        power = rounded(distances(offset, self.geometry.causal or self.options.future == "zero"), name)
        if exponent is not None:
            power = power ** rounded(clamped(exponent, KERPLE_FLOOR, _HIGHEST_POWER), name)[:, None]
        return (rounded(clamped(scale, KERPLE_FLOOR), name)[:, None] * power).to(scale.dtype)
