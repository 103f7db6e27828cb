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
    * On the CPU and without gradients a head stops counting where all its rows have reached the last
      position, since gates are never negative (`_within_reach`). Heads of trained models mostly do so
      within a few hundred keys.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from lpe_eval.model.encoding import Encoding, EncodingOptions, Geometry, Scores

_KEYS_AT_ONCE = 256
"""Keys counted before it is looked whether there is more to count."""


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
        of_whole = queries @ self.pos_emb
        if not torch.is_grad_enabled() and queries.device.type == "cpu" and self.geometry.causal:
            return self._within_reach(scores, of_whole)
        position = self._positions(scores).clamp(max=self.options.npos_max - 1)
        return scores.logits + _interpolated(of_whole, position)

    def _within_reach(self, scores: Scores, of_whole: Float[Tensor, "b h q n"]) -> Float[Tensor, "b h q k"]:
        """The same sums without gradients, each head counting back only until all its rows are at the last position."""
        last, columns = self.options.npos_max - 1, scores.logits.shape[-1]
        out = scores.logits + of_whole[..., -1:]
        heads = zip(*(each.flatten(0, 1) for each in (scores.logits, of_whole, out)), strict=True)
        for logits, vectors, positioned in heads:
            counted = logits.new_zeros(len(logits), 1)
            for stop in range(columns, 0, -_KEYS_AT_ONCE):
                keys = slice(max(0, stop - _KEYS_AT_ONCE), stop)
                gates = logits[:, keys].sigmoid().mul_(scores.visible[:, keys])
                position = gates.flip(-1).cumsum(-1).flip(-1).add_(counted)
                counted = position[:, :1].clone()
                bias = _interpolated(vectors, position.clamp_(max=last))
                torch.add(logits[:, keys], bias, out=positioned[:, keys])
                if counted.min() >= last:
                    break
        return out

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


def _interpolated(of_whole: Float[Tensor, "*c q n"], position: Float[Tensor, "*c q k"]) -> Float[Tensor, "*c q k"]:
    """What the rows of `of_whole` have at positions between whole ones."""
    below, above = position.detach().floor().long(), position.detach().ceil().long()
    weight = position - below
    return of_whole.gather(-1, below) * (1 - weight) + of_whole.gather(-1, above) * weight
