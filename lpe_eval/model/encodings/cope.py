"""CoPE: positions counted by gates that look at the text, with a learned vector for each count.

Source: Golovneva, Wang, Weston and Sukhbaatar 2024, "Contextual Position Encoding: Learning to Count
What's Important" (arXiv 2405.18719), listing of appendix B as in chuanyang-Zheng/DAPE at bde344a,
class CoPE. With logits s the gate of a key is sigmoid(s_ij); the position of key j for query i is the
sum of the gates of keys j .. i, at most npos_max - 1; the bias is q_i times the vector of that
position, interpolated linearly between the two whole positions around it. All heads share the
vectors, which start at zero.

Deviations and choices:
    * `query: unscaled` is the listing: gates read logits divided by sqrt(d), the interpolation reads
      q itself. "scaled" divides it too.
    * `npos_max` is 64 in DAPE's configurations; the paper varies it.
    * Bidirectional: ours. A key in the future gets the sum of the gates of keys i .. j, the mirror
      image of the past; the same rule as in the listing would count to the end of the text.
    * A row needs all keys up to its query: counting starts at the query and goes back.
    * A head whose rows have all reached the last position need not count on; `model/fast/counted_gates.py`.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from lpe_eval.model.encoding import Encoding, EncodingOptions, Geometry, Scores
from lpe_eval.model.fast.computed_by import computed_by
from lpe_eval.model.fast.counted_gates import between_whole, counted_within_reach


class Cope(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        npos_max: PositiveInt = 64
        query: Literal["unscaled", "scaled"] = "unscaled"

    title: ClassVar[str] = "CoPE"
    paper: ClassVar[str] = "Golovneva et al. 2024, arXiv 2405.18719"
    bibtex: ClassVar[str] = """
        @misc{golovneva2024cope,
          title = {{Contextual Position Encoding: Learning to Count What's Important}},
          author = {Golovneva, Olga and Wang, Tianlu and Weston, Jason and Sukhbaatar, Sainbayar},
          year = {2024},
          eprint = {2405.18719},
          archivePrefix = {arXiv},
        }
    """
    per_layer: ClassVar[bool] = True

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: Cope.Options = options
        self.pos_emb = nn.Parameter(torch.zeros(geometry.head_width, options.npos_max))

    def initialise(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.pos_emb.zero_()

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        queries = scores.queries
        if self.options.query == "scaled":
            queries = queries / self.geometry.head_width**0.5
        return self.positioned(scores, queries @ self.pos_emb)

    @computed_by(
        lambda self, scores, of_whole: counted_within_reach(
            scores.logits, scores.visible, of_whole, self.geometry.causal
        )
    )
    def positioned(self, scores: Scores, of_whole: Float[Tensor, "b h q n"]) -> Float[Tensor, "b h q k"]:
        """The positioned logits, from what each query has at each whole position."""
        position = self._positions(scores).clamp(max=self.options.npos_max - 1)
        return scores.logits + between_whole(of_whole, position)

    def _positions(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        gates = torch.sigmoid(scores.logits)
        past = scores.visible
        if not self.geometry.causal:
            past = past & (scores.k_at[None, :] <= scores.q_at[:, None])
        counted = (gates * past).flip(-1).cumsum(-1).flip(-1)
        if self.geometry.causal:
            return counted
        future = scores.visible & (scores.k_at[None, :] >= scores.q_at[:, None])
        return torch.where(past, counted, (gates * future).cumsum(-1))
