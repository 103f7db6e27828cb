"""KERPLE, logarithmic kernel: a learned penalty that grows with the logarithm of the distance.

Source: Chi, Fan, Ramadge and Rudnicky 2022, "KERPLE: Kernelized Relative Positional Embedding for
Length Extrapolation" (arXiv 2205.09921); code chijames/KERPLE at 25be3d7, class ParallelKerpleLog.
The bias is -p_h * ln(1 + a_h * (i - j)), with p drawn from U(0, 2) and a from U(0, 1).

Deviations and choices:
    * The bias is added after the scaling by sqrt(d), as the code does and every released checkpoint
      needs; equation (1) of the paper divides the bias too.
    * p and a are at least 0.01. The code writes the clamped values back into the weights at every
      forward pass. Here the forward pass reads clamped values and leaves the weights alone. The
      gradient passes as if nothing had been clamped, as it does there; a weight that an optimizer
      pushes below the floor therefore stays below it here and is set back to the floor there.
    * `form`: "log" is the method; "three_parameter" is -p * ln(1 + a * d^r) of the paper's tables 5
      and 6, for which no code was released, so that r starts in U(0, 2) and is kept in [0.01, 2] by
      our choice; "nemo" is what NeMo calls KERPLE (8cfedd7): the same three parameters without a
      clamp, p starting at the ALiBi slopes, a and r at one.
    * `distance_dtype`: distances, parameters and all that is computed from them are rounded to this
      type. Published runs used bfloat16 (KERPLE, MEP) and float16 (DAPE), which hold integers
      exactly to 256 and 2,048.
    * Released checkpoints share the parameters over layers; DAPE's copy has them per layer.
    * Bidirectional: the authors have no such form. `future`: "symmetric" is ours, the distance |i - j| on both
      sides; "zero" gives every key in the future distance zero, which is what DAPE's copy of the class computes
      where nothing masks the future (bde344a, `torch.tril` of the distances). In a causal model both are the same.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lpe_eval.model.distance_kernels import KERPLE_FLOOR, alibi_slopes, clamped, rounded
from lpe_eval.model.encoding import Encoding, EncodingOptions, Geometry
from lpe_eval.model.offsets import distances


class KerpleLog(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        form: Literal["log", "three_parameter", "nemo"] = "log"
        distance_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
        future: Literal["symmetric", "zero"] = "symmetric"

    title: ClassVar[str] = "KERPLE-log"
    paper: ClassVar[str] = "Chi et al. 2022, arXiv 2205.09921"
    bibtex: ClassVar[str] = """
        @misc{chi2022kerple,
          title = {{KERPLE: Kernelized Relative Positional Embedding for Length Extrapolation}},
          author = {Chi, Ta-Chung and Fan, Ting-Han and Ramadge, Peter J. and Rudnicky, Alexander I.},
          year = {2022},
          eprint = {2205.09921},
          archivePrefix = {arXiv},
        }
    """

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: KerpleLog.Options = options
        self.bias_p = nn.Parameter(torch.ones(geometry.heads))
        self.bias_a = nn.Parameter(torch.ones(geometry.heads))
        self.exponent = nn.Parameter(torch.ones(geometry.heads)) if options.form != "log" else None

    def initialise(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            if self.options.form == "nemo":
                self.bias_p.copy_(alibi_slopes(self.geometry.heads))
                return
            self.bias_p.uniform_(0.0, 2.0, generator=generator)
            self.bias_a.uniform_(0.0, 1.0, generator=generator)
            if self.exponent is not None:
                self.exponent.uniform_(0.0, 2.0, generator=generator)

    def bias_by_offset(self, offset: Int[Tensor, " n"]) -> Float[Tensor, "h n"]:
        p, a, exponent = self.bias_p, self.bias_a, self.exponent
        if self.options.form != "nemo":
            p, a = clamped(p, KERPLE_FLOOR), clamped(a, KERPLE_FLOOR)
            exponent = None if exponent is None else clamped(exponent, KERPLE_FLOOR, 2.0)
        name = self.options.distance_dtype
        distance = rounded(distances(offset, self.geometry.causal or self.options.future == "zero"), name)
        if exponent is not None:
            distance = distance ** rounded(exponent, name)[:, None]
        bias = -rounded(p, name)[:, None] * torch.log(1 + rounded(a, name)[:, None] * distance)
        return bias if name == "float32" else bias.to(self.bias_p.dtype)
