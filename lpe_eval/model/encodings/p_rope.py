"""p-RoPE: RoPE whose slow pairs of channels do not turn, so that they carry content alone.

Source: Barbero, Vitvitskyi, Perivolaropoulos, Pascanu and Velickovic 2024, "Round and Round We Go! What makes Rotary
Positional Encodings useful?" (arXiv 2410.06205). The paper's code could not be had; transformers 5.23
(`_compute_proportional_rope_parameters`, Gemma 4) is what this equals. Of the d/2 pairs the first m = floor(p * d/2)
turn by base^(-2c/d) radians a position, and the others not at all.

Deviations and choices:
    * `p` 0.25 is Gemma 4's. p = 1 is `rope`. p = 0 is `none`, and so is a p of which no whole pair is left: 0.25 of
      heads of 4 channels.
    * Exponents are divided by the width of the whole head, and channel c is paired with c + d/2. What other models
      call partial rotary, `fraction` of the encoding `rope`, turns the first channels alone and spreads all
      frequencies over them.
    * `factor` divides all frequencies, as in transformers; `theta` is the base; Gemma 4 has 1e6.
    * `layout` and `angle_dtype` as in `rope`.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from lpe_eval.model.encoding import Encoding, EncodingOptions
from lpe_eval.model.rotary import AngleDtype, Layout, Rotation, angles, inverse_frequencies, require_even_width, turn
from lpe_eval.model.scores import Capabilities, Geometry


class PRope(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        p: float = Field(default=0.25, ge=0, le=1)
        theta: float = Field(default=10000.0, gt=1)
        factor: float = Field(default=1.0, gt=0)
        layout: Layout = "half_split"
        angle_dtype: AngleDtype = "float32"

    title: ClassVar[str] = "p-RoPE"
    paper: ClassVar[str] = "Barbero et al. 2024, arXiv 2410.06205"
    bibtex: ClassVar[str] = r"""
        @misc{barbero2024prope,
          title = {{Round and Round We Go! What makes Rotary Positional Encodings useful?}},
          author = {Barbero, Federico and Vitvitskyi, Alex and Perivolaropoulos, Christos and Pascanu, Razvan and
            Veli{\v{c}}kovi{\'c}, Petar},
          year = {2024},
          eprint = {2410.06205},
          archivePrefix = {arXiv},
        }
    """
    bidirectional: ClassVar[Literal["published", "ours"]] = "published"

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: PRope.Options = options
        require_even_width(geometry.head_width, "p_rope")

    def frequencies(self) -> Float[Tensor, " f"]:
        """Radians per position of each pair of channels, in float64; zero where a pair does not turn."""
        width = self.geometry.head_width
        inverse = inverse_frequencies(width, self.options.theta) / self.options.factor
        return torch.cat([inverse[: self._turning], torch.zeros(width // 2 - self._turning, dtype=torch.float64)])

    @property
    def capabilities(self) -> Capabilities:
        return super().capabilities._replace(rotates=self._turning > 0)

    def rotate(
        self, q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], at: Int[Tensor, " t"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b h t d"]]:
        if not self._turning:
            return q, k
        angle = angles(at, self.frequencies(), self.options.angle_dtype)
        cos, sin = angle.cos().to(q.dtype), angle.sin().to(q.dtype)
        return turn(q, cos, sin, self.options.layout), turn(k, cos, sin, self.options.layout)

    def rotation(self) -> Rotation:
        return Rotation(self.frequencies(), self.options.layout, self.options.angle_dtype)

    @property
    def _turning(self) -> int:
        """How many pairs of channels turn."""
        return int(self.options.p * self.geometry.head_width / 2)
