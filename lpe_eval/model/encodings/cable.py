"""CABLE: a penalty that every token adds to all distances across it, read from the token by each head.

Source: Veisi, Amirzadeh and Mansourian 2025, "Context-aware Biases for Length Extrapolation" (arXiv 2503.08067);
axiomlab/Cable at 8bc6b83, `src/Cable.py`. With the input x of the attention layer, after its norm,

    S_i = sum of -softplus(w_h . x_l + b_h) over l = 0 .. i,     logit_ij = q_i . k_j + S_i - S_j.

Since -softplus(z) = log sigmoid(-z), the bias is FoX's with the other sign of w and b.

Deviations and choices:
    * `scale`: the released code does not divide q . k by sqrt(d) ("none"), and its weights need that; "sqrt_d" divides.
    * Later versions of the paper describe another form, a gate times a sum of ReLUs, which is not this one.
    * Initial values w ~ N(0, 0.02) and b = 0, as released: -0.693 for each token. In their runs the bias was rounded
      to bfloat16 as it was added; here it never is. Sums are float64; `model/token_levels.py`.
    * Bidirectional: ours, the penalties between two tokens on either side.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lpe_eval.model.descriptions import LevelBias
from lpe_eval.model.encoding import Encoding, EncodingOptions
from lpe_eval.model.scores import Capabilities, Geometry, Scores
from lpe_eval.model.token_levels import described, summed_up, with_levels


class Cable(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        scale: Literal["none", "sqrt_d"] = "none"

    title: ClassVar[str] = "CABLE"
    paper: ClassVar[str] = "Veisi et al. 2025, arXiv 2503.08067"
    bibtex: ClassVar[str] = """
        @misc{veisi2025cable,
          title = {{Context-aware Biases for Length Extrapolation}},
          author = {Veisi, Ali and Amirzadeh, Hamidreza and Mansourian, Amir},
          year = {2025},
          eprint = {2503.08067},
          archivePrefix = {arXiv},
        }
    """
    per_layer: ClassVar[bool] = True

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: Cable.Options = options
        self.penalty = nn.Linear(geometry.width, geometry.heads)

    @property
    def capabilities(self) -> Capabilities:
        return super().capabilities._replace(rotates=self.options.scale == "none")

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.penalty.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.penalty.bias)

    def rotate(
        self, q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], at: Int[Tensor, " t"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b h t d"]]:
        return (q * self.geometry.head_width**0.5 if self.options.scale == "none" else q), k

    def features(self, x: Float[Tensor, "b t e"]) -> Float[Tensor, "b h t n"] | None:
        dtype = torch.promote_types(x.dtype, torch.float32)
        weight, bias = self.penalty.weight.to(dtype), self.penalty.bias.to(dtype)
        read = nn.functional.linear(x.to(dtype), weight, bias)
        return summed_up(-nn.functional.softplus(read).transpose(1, 2))

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        return with_levels(scores, self.geometry.causal)

    def level_bias(self) -> LevelBias | None:
        return described(self.geometry.causal)
