"""xPos: RoPE whose logits also fade with the distance, faster for fast channels.

Source: Sun et al. 2022, "A Length-Extrapolatable Transformer" (arXiv 2212.10554); torchscale at 4d1e0e8
(`xpos_relative_position.py`). Channel pair i of a query at p is multiplied by zeta_i^(p / scale_base),
that of a key divided by it, with zeta_i = (2i / d + gamma) / (1 + gamma).

Deviations and choices:
    * `centre`: "length" counts p from -ceil(T / 2), as torchscale does, so that both halves stay near
      one; "zero" counts from 0. The logits are the same up to rounding.
    * `layout`: torchscale and NeMo turn interleaved pairs, so that is the default here, unlike in RoPE.
    * `scale_base` is 512 in torchscale, 2048 in NeMo.
    * The factor of the slowest-fading pair over the whole length must fit in float32. Longer inputs
      raise LengthError rather than give NaN; at scale_base 512 the limit is 35,147 tokens.
    * The paper also cuts attention into blocks at test time; that is an attention pattern and not done here.
    * The fading is one-sided: in a bidirectional model keys in the future grow with the distance.
      torchscale lets an encoder do that, the paper does not consider it, so it counts as ours.
"""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from lpe_eval.model.constants import constant
from lpe_eval.model.encoding import Encoding, EncodingOptions, Geometry
from lpe_eval.model.rotary import Layout, angles, inverse_frequencies, require_even_width, turn

_LARGEST_EXPONENT = 86.0
"""exp(86) is a factor of 15 below the largest float32."""


class XPos(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        theta: float = Field(default=10000.0, gt=1)
        layout: Layout = "interleaved"
        scale_base: float = Field(default=512.0, gt=0)
        gamma: float = Field(default=0.4, gt=0)
        centre: Literal["length", "zero"] = "length"

    title = "xPos"
    paper = "Sun et al. 2022, arXiv 2212.10554"
    bibtex: ClassVar[str] = """
        @misc{sun2022xpos,
          title = {{A Length-Extrapolatable Transformer}},
          author = {Sun, Yutao and Dong, Li and Patra, Barun and Ma, Shuming and Huang, Shaohan and
            Benhaim, Alon and Chaudhary, Vishrav and Song, Xia and Wei, Furu},
          year = {2022},
          eprint = {2212.10554},
          archivePrefix = {arXiv},
        }
    """

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: XPos.Options = options
        require_even_width(geometry.head_width, "xpos")

    @property
    def longest_length(self) -> int:
        strongest = math.log((1 + self.options.gamma) / self.options.gamma)
        return int(_LARGEST_EXPONENT * self.options.scale_base / strongest)

    def rotate(
        self, q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], at: Int[Tensor, " t"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b h t d"]]:
        options, width = self.options, self.geometry.head_width
        angle = angles(at, inverse_frequencies(width, options.theta))
        zeta = (torch.arange(0, width, 2, dtype=torch.float64) / width + options.gamma) / (1 + options.gamma)
        first = (-(at.max() + 1)).div(2, rounding_mode="floor") if options.centre == "length" else 0
        exponent = (at + first).float()[:, None] / options.scale_base
        scale = torch.exp(exponent * constant(tuple(zeta.log().tolist()), torch.float32, at.device))
        cos, sin = angle.cos(), angle.sin()
        return (
            turn(q, (cos * scale).to(q.dtype), (sin * scale).to(q.dtype), options.layout),
            turn(k, (cos / scale).to(k.dtype), (sin / scale).to(k.dtype), options.layout),
        )
