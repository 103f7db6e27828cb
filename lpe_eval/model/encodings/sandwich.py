"""Sandwich: the inner product of two sinusoidal position vectors, divided by a constant per head.

Source: Chi, Fan, Rudnicky and Ramadge 2023, "Dissecting Transformer Length Extrapolation via the
Lens of Receptive Field Analysis" (arXiv 2212.10356). With heads h = 1..H and x = i - j

    bias_h = (sum over n of cos(x / 10000^(2n / D)) - D / 2) / (8 h / H).

No code of the authors could be obtained; the numbers agree with NeMo at 8cfedd7, class
SandwichRelativePositionEmbedding.

Deviations and choices:
    * `first_index`: n runs over 1 .. D/2 in the formula and in NeMo (1, the default), or over
      0 .. D/2 - 1 in the paper's listing (0).
    * `dimension` D is 128, as in the paper, whatever the width of the model; NeMo passes the width
      of one head.
    * `centred` keeps the - D / 2, which the softmax removes; without it biases are positive.
    * Cosines are computed in float64, so that far distances keep their phase; for a device without it, on the CPU.
    * Bidirectional: the cosine is even, so the same formula gives the distance |i - j|, as in NeMo.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import PositiveInt
from torch import Tensor

from lpe_eval.model.encoding import Encoding, EncodingOptions, Geometry
from lpe_eval.model.gpu import device_of_float64
from lpe_eval.model.offsets import distances
from lpe_eval.model.rotary import require_even_width


class Sandwich(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        dimension: PositiveInt = 128
        first_index: Literal[0, 1] = 1
        centred: bool = True

    title: ClassVar[str] = "Sandwich"
    paper: ClassVar[str] = "Chi et al. 2023, arXiv 2212.10356"
    bibtex: ClassVar[str] = """
        @misc{chi2022sandwich,
          title = {{Dissecting Transformer Length Extrapolation via the Lens of Receptive Field Analysis}},
          author = {Chi, Ta-Chung and Fan, Ting-Han and Rudnicky, Alexander I. and Ramadge, Peter J.},
          year = {2022},
          eprint = {2212.10356},
          archivePrefix = {arXiv},
        }
    """

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: Sandwich.Options = options
        require_even_width(options.dimension, "sandwich")

    def bias_by_offset(self, offset: Int[Tensor, " n"]) -> Float[Tensor, "h n"]:
        half, heads, device = self.options.dimension // 2, self.geometry.heads, device_of_float64(offset.device)
        distance = distances(offset, self.geometry.causal).to(device).double()
        index = torch.arange(half, dtype=torch.float64, device=device) + self.options.first_index
        ripples = torch.cos(distance[:, None] * 10000.0 ** (-index / half)).sum(-1)
        if self.options.centred:
            ripples = ripples - half
        divisor = 8.0 / heads * torch.arange(1, heads + 1, dtype=torch.float64, device=device)
        return (ripples / divisor[:, None]).float().to(offset.device)
