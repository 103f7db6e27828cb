"""Transformer-XL: every offset has a key of its own, and content and position have biases.

Source: Dai et al. 2019, "Transformer-XL" (arXiv 1901.02860), appendix B; the released classes compared
are DAPE's `RelativePositionalEncodingLayer` (bde344a) and the RELATIVE encoding of DeepMind's
randomized_positional_encodings (e8c6474) and neural_networks_chomsky_hierarchy (2b8eb4b).
The logit is ((q + u) . k + (q + v) . W s(i-j)) / sqrt(d), where s holds sines and cosines and W maps
to all heads at once. Recurrence over segments, the other half of the paper, is not part of it.

Deviations and choices:
    * `distance`: "past" feeds s with i - j (DAPE, Chomsky hierarchy, the paper), "future" with j - i
      (randomized_positional_encodings). A model trained from scratch can do the same with either;
      weights fit one of them only.
    * All releases divide both terms by sqrt(d), DeepMind's after this step, so there is no option for it.
    * s is [sin | cos] of width heads * head width. `angle_dtype` is the dtype of its angles; DAPE builds
      them in the dtype of the queries, float16 in its runs, which holds integers exactly only to 2048.
    * Initial values: u, v ~ N(0, 0.02), W as PyTorch initialises a linear layer. DeepMind draws W from a
      truncated normal of the same fan-in.
    * Parameters have the names of DAPE's state dict: r_w_bias is u, r_r_bias is v, r_net is W.
    * Only the offsets that occur are mapped; in a causal model the future shares offset 0.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from lpe_eval.model.encoding import Encoding, EncodingOptions, Geometry, Scores, reset_linear
from lpe_eval.model.offsets import worth_looking
from lpe_eval.model.positions import known_of
from lpe_eval.model.rotary import AngleDtype, angles, inverse_frequencies, require_even_width

_KEY_NUMBERS = 1 << 24
"""Of the keys of single cells held at once: 64 MiB."""


class TransformerXL(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        distance: Literal["past", "future"] = "past"
        theta: float = Field(default=10000.0, gt=1)
        angle_dtype: AngleDtype = "float32"

    title = "Transformer-XL"
    paper = "Dai et al. 2019, arXiv 1901.02860"
    bibtex: ClassVar[str] = """
        @misc{dai2019transformerxl,
          title = {{Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context}},
          author = {Dai, Zihang and Yang, Zhilin and Yang, Yiming and Carbonell, Jaime and Le, Quoc V. and
            Salakhutdinov, Ruslan},
          year = {2019},
          eprint = {1901.02860},
          archivePrefix = {arXiv},
        }
    """
    bidirectional: ClassVar[Literal["published", "ours"]] = "published"
    per_layer = True

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: TransformerXL.Options = options
        all_heads = geometry.heads * geometry.head_width
        require_even_width(all_heads, "transformer_xl")
        self.r_w_bias = nn.Parameter(torch.zeros(geometry.heads, geometry.head_width))
        self.r_r_bias = nn.Parameter(torch.zeros(geometry.heads, geometry.head_width))
        self.r_net = nn.Linear(all_heads, all_heads, bias=False)

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.r_w_bias, std=0.02, generator=generator)
        nn.init.normal_(self.r_r_bias, std=0.02, generator=generator)
        reset_linear(self.r_net, generator)

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        offset = scores.q_at[:, None] - scores.k_at[None, :]
        if self.geometry.causal:
            offset = offset.clamp(min=0)
        queries = scores.queries + self.r_r_bias[:, None, :]
        found = _distinct(offset, scores) if worth_looking(scores.q_at, scores.k_at) else None
        if found is not None:
            distinct, column = found
            by_offset = torch.einsum("bhqd,nhd->bhqn", queries, self.keys_of(distinct).to(queries.dtype))
            relative = by_offset.gather(-1, column.expand(*by_offset.shape[:2], -1, -1))
        else:
            at_once = max(1, _KEY_NUMBERS // (offset.shape[1] * self.r_net.out_features))
            relative = torch.cat(
                [
                    torch.einsum("bhqd,qkhd->bhqk", some, self._keys_of_each(offsets).to(queries.dtype))
                    for some, offsets in zip(queries.split(at_once, dim=2), offset.split(at_once), strict=True)
                ],
                dim=2,
            )
        content = torch.einsum("hd,bhkd->bhk", self.r_w_bias, scores.keys)[:, :, None, :]
        logits = scores.logits + (relative + content) * self.geometry.head_width**-0.5
        return logits if scores.bias is None else logits + scores.bias

    def _keys_of_each(self, offset: Int[Tensor, "q k"]) -> Float[Tensor, "q k h d"]:
        return self.keys_of(offset.flatten()).unflatten(0, offset.shape)

    def keys_of(self, offset: Int[Tensor, " n"]) -> Float[Tensor, "n h d"]:
        """The key of each offset i - j in every head."""
        signed = offset if self.options.distance == "past" else -offset
        angle = angles(
            signed, inverse_frequencies(self.r_net.in_features, self.options.theta), self.options.angle_dtype
        )
        sinusoid = torch.cat([angle.sin(), angle.cos()], dim=-1).to(self.r_net.weight.dtype)
        return self.r_net(sinusoid).unflatten(-1, (self.geometry.heads, self.geometry.head_width))


def _distinct(offset: Int[Tensor, "q k"], scores: Scores) -> tuple[Int[Tensor, " n"], Int[Tensor, "q k"]] | None:
    """Offsets that cover all those of the matrix, and where each cell's is found; None where only a GPU knows.

    Args:
        offset: the matrix, where the model is causal without the future.
        scores: whose positions it is made of.
    """
    if offset.device.type == "cpu":
        low, high = int(offset.min()), int(offset.max())
    else:
        q, k = known_of(scores.q_at), known_of(scores.k_at)
        if q is None or k is None or not (q.step and k.step):
            return None
        # No less than what the matrix holds: the future is left out where it was clamped away, or never looked at.
        low, high = q.lowest - k.highest, q.highest - k.lowest
        offset = offset.clamp(min=low)
    if high - low < 2 * sum(offset.shape):
        return torch.arange(low, high + 1, device=offset.device), offset - low
    return offset.unique(return_inverse=True)
