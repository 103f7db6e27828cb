"""Inkling: a learned bias for each distance within an extent, mixed by numbers that the query's token has.

Source: Hugging Face 2026, transformers 5.23, `models/inkling` (`InklingRelativeLogits`) and `models/inkling2`; it
has no paper there. lucidrains/x-transformers at 9252ed7 agrees on the bias. With the input x of the attention layer,
after its norm,

    r_i,h = (R x_i)_h,     bias_ij,h = r_i,h . P[:, i - j]  for 0 <= i - j < extent,  and 0 beyond,

where all heads of a layer share P, of `rank` rows. There is no rotation.

Deviations and choices:
    * `extent` 1024 and `rank` 16 are the model's. Its windowed layers have extents as long as their windows:
      `inkling[extent=512, window=512]*5,inkling`.
    * `scale`: their first generation divides q . k by d, because queries and keys are normed there; its second, and
      this by default, by sqrt(d). Norms, and short convolutions of keys and values, are not part of it.
    * `temperature`: {floor: 128000, strength: 0.1} multiplies query and bias by 1 + strength * log(max(1, (i + 1) /
      floor)), as in their layers without a window. None is none.
    * `clip`: as in the second generation r is multiplied by a learned scale and then cut to this length (8 there).
    * `projection_bias` is x-transformers'. R and P start at N(0, 0.02), in float32 always.
    * Bidirectional: ours, by |i - j|.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from lpe_eval.model.descriptions import NearBias
from lpe_eval.model.encoding import Encoding, EncodingOptions
from lpe_eval.model.offsets import distances
from lpe_eval.model.scores import Capabilities, Geometry, Scores
from lpe_eval.model.temperatures import Temperature, above, keys_seen

_EPS = 1e-6
"""Added to a length before it is divided by, as in their code."""


class Inkling(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        extent: PositiveInt = 1024
        rank: PositiveInt = 16
        scale: Literal["sqrt_d", "d"] = "sqrt_d"
        temperature: Temperature | None = None
        clip: PositiveFloat | None = None
        projection_bias: bool = False

    title: ClassVar[str] = "Inkling"
    paper: ClassVar[str] = "Hugging Face 2026, transformers 5.23"
    bibtex: ClassVar[str] = """
        @misc{huggingface2026inkling,
          title = {{Inkling in Transformers 5.23}},
          author = {{Hugging Face}},
          year = {2026},
          url = {https://huggingface.co/docs/transformers/model_doc/inkling},
        }
    """
    per_layer: ClassVar[bool] = True

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: Inkling.Options = options
        self.mixing = nn.Linear(geometry.width, geometry.heads * options.rank, bias=options.projection_bias)
        self.by_distance = nn.Parameter(torch.zeros(options.rank, options.extent))
        if options.clip is not None:
            self.clip_scale = nn.Parameter(torch.ones(geometry.heads, options.rank))

    @property
    def capabilities(self) -> Capabilities:
        turned = self.options.scale == "d" or self.options.temperature is not None
        return super().capabilities._replace(rotates=turned)

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.mixing.weight, std=0.02, generator=generator)
        nn.init.normal_(self.by_distance, std=0.02, generator=generator)
        if self.options.projection_bias:
            nn.init.zeros_(self.mixing.bias)
        if self.options.clip is not None:
            nn.init.ones_(self.clip_scale)

    def rotate(
        self, q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], at: Int[Tensor, " t"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b h t d"]]:
        if self.options.scale == "d":
            q = q * self.geometry.head_width**-0.5
        factor = self._factor(keys_seen(at, self.geometry.causal))
        return (q if factor is None else (q * factor[:, None]).to(q.dtype)), k

    def features(self, x: Float[Tensor, "b t e"]) -> Float[Tensor, "b h t n"] | None:
        dtype = torch.promote_types(x.dtype, torch.float32)
        bias = self.mixing.bias.to(dtype) if self.options.projection_bias else None
        read = nn.functional.linear(x.to(dtype), self.mixing.weight.to(dtype), bias)
        mixed = read.unflatten(-1, (self.geometry.heads, -1)).transpose(1, 2)
        if self.options.clip is None:
            return mixed
        mixed = mixed * self.clip_scale[:, None].to(dtype)
        length = torch.linalg.vector_norm(mixed, dim=-1, keepdim=True)
        return mixed * (self.options.clip / (length + _EPS)).clamp(max=1)

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        assert scores.query_features is not None
        # Where the future is visible a block has all keys.
        all_keys = torch.full_like(scores.q_at, len(scores.k_at))
        count = keys_seen(scores.q_at, True) if self.geometry.causal else all_keys
        falling = self._by_falling_offset(scores.query_features, count)
        offset = scores.q_at[:, None] - scores.k_at[None, :]
        if not self.geometry.causal:
            offset = distances(offset, causal=False).long()
        within = (offset >= 0) & (offset < self.options.extent)
        column = (self.options.extent - 1 - offset).clamp(0, self.options.extent - 1)
        bias = falling.gather(-1, column.expand(*falling.shape[:2], -1, -1))
        logits = scores.logits + torch.where(within, bias, 0.0).to(scores.logits.dtype)
        return logits if scores.bias is None else logits + scores.bias

    def near_bias(self) -> NearBias | None:
        if not self.geometry.causal:
            return None
        return NearBias(
            self.options.extent, lambda features, at: self._by_falling_offset(features, keys_seen(at, causal=True))
        )

    def _factor(self, count: Int[Tensor, " q"]) -> Float[Tensor, " q"] | None:
        """What queries and their biases are multiplied by, from how many keys each sees."""
        given = self.options.temperature
        return None if given is None else above(count, given.floor, given.strength)

    def _by_falling_offset(
        self, features: Float[Tensor, "b h q n"], count: Int[Tensor, " q"]
    ) -> Float[Tensor, "b h q m"]:
        factor = self._factor(count)
        mixed = features if factor is None else features * factor[:, None].to(features.dtype)
        return mixed @ self.by_distance.to(features.dtype).flip(-1)
