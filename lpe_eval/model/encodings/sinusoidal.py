"""Sinusoidal positions: sines and cosines of the position, added to the token embeddings.

Source: Vaswani et al. 2017, "Attention Is All You Need" (arXiv 1706.03762). Checked against KERPLE's
GPT-NeoX (25be3d7), fairseq in the ALiBi repository (4b92f28) and DeepMind's two repositories
(randomized_positional_encodings e8c6474, neural_networks_chomsky_hierarchy 2b8eb4b).

Deviations and choices:
    * `form`: "concatenated" is [sin | cos] with frequencies 10000^(-2i/D) (GPT-NeoX, DeepMind);
      "interleaved" is the paper's sin, cos, sin, cos with the same frequencies; "fairseq" is [sin | cos]
      with 10000^(-i / (D/2 - 1)), as in tensor2tensor, and a zero column at the end of an odd width.
    * `offset`: the first position. None is 0, but 2 for fairseq, whose positions start at
      padding_idx + 1 with the dictionary's usual padding_idx 1. Padding tokens, which fairseq skips
      in counting, do not occur here.
    * `order`: "descending" counts T, T-1, .., 1, as the Chomsky-hierarchy repository does; positions then
      depend on the length, so a prefix does not score as it does alone.
    * `scale_tokens` multiplies the token embeddings by sqrt(D) first, as DeepMind's and fairseq's models
      do and GPT-NeoX does not.
    * `angle_dtype`: older GPT-NeoX cast the whole module, so bfloat16 runs of KERPLE and MEP merged far positions.
"""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from lpe_eval.errors import SpecError
from lpe_eval.model.encoding import Encoding, EncodingOptions, Geometry
from lpe_eval.model.rotary import AngleDtype, angles, inverse_frequencies, require_even_width


class Sinusoidal(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        form: Literal["concatenated", "interleaved", "fairseq"] = "concatenated"
        theta: float = Field(default=10000.0, gt=1)
        offset: int | None = None
        order: Literal["ascending", "descending"] = "ascending"
        scale_tokens: bool = False
        angle_dtype: AngleDtype = "float32"

    title = "Sinusoidal"
    paper = "Vaswani et al. 2017, arXiv 1706.03762"
    bibtex: ClassVar[str] = r"""
        @misc{vaswani2017attention,
          title = {{Attention Is All You Need}},
          author = {Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit, Jakob and Jones, Llion
            and Gomez, Aidan N. and Kaiser, {\L}ukasz and Polosukhin, Illia},
          year = {2017},
          eprint = {1706.03762},
          archivePrefix = {arXiv},
        }
    """
    bidirectional: ClassVar[Literal["published", "ours"]] = "published"

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: Sinusoidal.Options = options
        if options.form != "fairseq":
            require_even_width(geometry.width, f"sinusoidal ({options.form})")
        elif geometry.width < 4:
            raise SpecError(f"fairseq's sinusoids need a model width of at least 4, not {geometry.width}")

    @property
    def prefix_stable(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.options.order == "ascending"

    def embed(self, x: Float[Tensor, "b t e"], at: Int[Tensor, " t"]) -> Float[Tensor, "b t e"]:
        tokens = x * math.sqrt(self.geometry.width) if self.options.scale_tokens else x
        return tokens + self.table(at).to(x.dtype)

    def table(self, at: Int[Tensor, " t"]) -> Float[Tensor, "t e"]:
        """What is added to the token at each position."""
        options, width = self.options, self.geometry.width
        offset = options.offset if options.offset is not None else 2 * (options.form == "fairseq")
        place = at if options.order == "ascending" else at.max() + 1 - at
        angle = angles(place + offset, self._inverse(), options.angle_dtype)
        if options.form == "interleaved":
            return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)
        return pad(torch.cat([angle.sin(), angle.cos()], dim=-1), (0, width % 2))

    def _inverse(self) -> Float[Tensor, " f"]:
        width, base = self.geometry.width, self.options.theta
        if self.options.form != "fairseq":
            return inverse_frequencies(width, base)
        half = width // 2
        return base ** (-torch.arange(half, dtype=torch.float64) / (half - 1))
