"""ALiBi: a penalty proportional to the distance, with a fixed slope for each head.

Source: Press, Smith and Lewis 2022, "Train Short, Test Long" (arXiv 2108.12409); the authors' code
ofirpress/attention_with_linear_biases at 4b92f28. The bias is -slope_h * (i - j), not divided by
sqrt(d).

Deviations and choices:
    * Slopes when the number of heads is no power of two follow the authors' code and every later
      implementation (those of the power of two below, then every second slope of twice that),
      not the paper's 2^(-8h/H).
    * `form`: "distance" is the paper's and GPT-NeoX's. "key" is +slope * j, what fairseq, BLOOM and
      Falcon store: it differs by a constant in each row, which the softmax removes, but its rounding
      in low precision is another one, and a wrapper such as dape that reads the bias sees other
      numbers. For causal models only. MPT's and NeMo's slope * (j - (T - 1)) is the same again with
      a constant that depends on the length; use "key" for it.
    * `bias_max` is MPT's `alibi_bias_max` (8 in the paper).
    * `scaled` divides the bias by sqrt(d), as Falcon in transformers does by adding it too early.
    * `distance_dtype`: positions, slopes and their product are rounded to this type; Falcon builds
      them in bfloat16, which holds integers exactly only to 256.
    * Bidirectional (`two_sided`): "symmetric" is -slope * |i - j|, the same on both sides; "che" adds slope / 2
      for keys in the past, as DeepMind's Chomsky-hierarchy code does to tell the two directions apart;
      "past_only" gives every key in the future distance zero, which is what DAPE's class computes where
      nothing masks the future (bde344a, `torch.tril` of the distances).
    * DeepMind's code adds that half slope to the past in a causal model as well, which favours the past over
      the token itself. That is not copied: `two_sided` does nothing in a causal model.
"""

from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.errors import SpecError
from lpe_eval.model.distance_kernels import alibi_slopes, rounded
from lpe_eval.model.encoding import Capabilities, Encoding, EncodingOptions, Geometry
from lpe_eval.model.offsets import distances


class Alibi(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        form: Literal["distance", "key"] = "distance"
        bias_max: float = 8.0
        scaled: bool = False
        two_sided: Literal["symmetric", "che", "past_only"] = "symmetric"
        distance_dtype: Literal["float32", "bfloat16", "float16"] = "float32"

    title: ClassVar[str] = "ALiBi"
    paper: ClassVar[str] = "Press et al. 2022, arXiv 2108.12409"
    bibtex: ClassVar[str] = """
        @misc{press2021alibi,
          title = {{Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation}},
          author = {Press, Ofir and Smith, Noah A. and Lewis, Mike},
          year = {2021},
          eprint = {2108.12409},
          archivePrefix = {arXiv},
        }
    """
    bidirectional: ClassVar[Literal["published", "ours"]] = "published"

    slopes: Tensor

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: Alibi.Options = options
        if options.form == "key" and not geometry.causal:
            raise SpecError("alibi with `form: key` serves causal models only; use `form: distance`")
        self.register_buffer("slopes", alibi_slopes(geometry.heads, options.bias_max), persistent=False)

    @property
    def capabilities(self) -> Capabilities:
        by_key = self.options.form == "key"
        return super().capabilities._replace(offset_bias=not by_key, general_bias=by_key)

    def bias_by_offset(self, offset: Int[Tensor, " n"]) -> Float[Tensor, "h n"] | None:
        if self.options.form == "key":
            return None
        distance = distances(offset, self.geometry.causal or self.options.two_sided == "past_only")
        if not self.geometry.causal and self.options.two_sided == "che":
            distance = distance - 0.5 * (offset > 0)
        return -self._sloped(distance)

    def bias(self, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Float[Tensor, "h q k"]:
        if self.options.form == "key":
            return self._sloped(k_at.float())[:, None].expand(-1, len(q_at), -1)
        spread = super().bias(q_at, k_at)
        assert spread is not None
        return spread

    def _sloped(self, distance: Float[Tensor, " n"]) -> Float[Tensor, "h n"]:
        name = self.options.distance_dtype
        bias = (rounded(self.slopes, name)[:, None] * rounded(distance, name)).to(self.slopes.dtype)
        return bias / self.geometry.head_width**0.5 if self.options.scaled else bias
