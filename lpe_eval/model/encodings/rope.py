"""RoPE: queries and keys are turned by an angle proportional to their position.

Source: Su et al. 2021, "RoFormer" (arXiv 2104.09864). Checked against GPT-NeoX as KERPLE ships it
(25be3d7), transformers 5.23 (Llama, GPT-J) and DeepMind's randomized_positional_encodings (e8c6474).

Deviations and choices:
    * `theta` is the base of the frequencies, named as in transformers' `rope_theta`; in a spec `base` is
      the encoding that a wrapper wraps.
    * `layout`: which channels form a pair. "half_split" is GPT-NeoX and Llama in transformers;
      "interleaved" is the paper, GPT-J, DeepMind, torchscale and Meta's own Llama. The two differ by a
      permutation of channels that a trained model absorbs, so a checkpoint fits one of them only.
    * `fraction`: the share of a head's channels that is turned, 0.25 in Pythia. Frequencies are
      spread over the turned channels, not over the whole head.
    * `scaling`: see `lpe_eval/model/rope_scalings.py`. Its `original_length` is the geometry's train length
      unless given. Length-dependent rules take the largest position plus one as the length, as
      transformers does (the YaRN repository takes the number of keys; they differ for sampled positions).
    * `angle_dtype`: the dtype of positions, frequencies and their product. Cosine and sine are
      taken in at least float32 and then rounded to the dtype of the queries, as released code does.
    * Frequencies are no buffer, so that casting a model to half precision does not touch them.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from lpe_eval.errors import SpecError
from lpe_eval.model.encoding import Encoding, EncodingOptions, Geometry
from lpe_eval.model.positions import highest
from lpe_eval.model.rope_scalings import SCALING_BIBTEX, AnyScaling
from lpe_eval.model.rotary import AngleDtype, Frequencies, Layout, Rotation, angles, inverse_frequencies, turn


class Rope(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        theta: float = Field(default=10000.0, gt=1)
        layout: Layout = "half_split"
        fraction: float = Field(default=1.0, gt=0, le=1)
        scaling: AnyScaling | None = None
        angle_dtype: AngleDtype = "float32"

    title = "RoPE"
    paper = "Su et al. 2021, arXiv 2104.09864"
    bibtex: ClassVar[str] = """
        @misc{su2021roformer,
          title = {{RoFormer: Enhanced Transformer with Rotary Position Embedding}},
          author = {Su, Jianlin and Lu, Yu and Pan, Shengfeng and Murtadha, Ahmed and Wen, Bo and
            Liu, Yunfeng},
          year = {2021},
          eprint = {2104.09864},
          archivePrefix = {arXiv},
        }
    """
    bibtex_with: ClassVar[Mapping[str, str]] = SCALING_BIBTEX
    bidirectional: ClassVar[Literal["published", "ours"]] = "published"

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: Rope.Options = options
        self.dims = int(geometry.head_width * options.fraction)
        if self.dims < 2 or self.dims % 2:
            raise SpecError(
                f"rope turns {self.dims} of {geometry.head_width} channels of a head (fraction {options.fraction}); "
                "it needs an even number of them"
            )
        self.at_train_length = self.frequencies(geometry.train_length)

    @property
    def prefix_stable(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.options.scaling is None or not self.options.scaling.depends_on_length

    def frequencies(self, length: int) -> Frequencies:
        """The frequencies for an input of `length` positions."""
        scaling, base = self.options.scaling, self.options.theta
        if scaling is None:
            return Frequencies(inverse_frequencies(self.dims, base))
        original = scaling.original_length or self.geometry.train_length
        return scaling.frequencies(self.dims, base, original, length)

    def rotate(
        self, q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], at: Int[Tensor, " t"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b h t d"]]:
        found = self.at_train_length if self.prefix_stable else self.frequencies(highest(at) + 1)
        angle = angles(at, found.inverse, self.options.angle_dtype)
        cos, sin = angle.cos() * found.attention_factor, angle.sin() * found.attention_factor
        cos, sin = cos.to(q.dtype), sin.to(q.dtype)
        return turn(q, cos, sin, self.options.layout), turn(k, cos, sin, self.options.layout)

    def rotation(self) -> Rotation | None:
        if not self.prefix_stable:
            return None
        return Rotation(self.at_train_length.inverse, self.options.layout, self.options.angle_dtype)
