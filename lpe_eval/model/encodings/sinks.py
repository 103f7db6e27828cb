"""Attention sinks: a learned logit for each head in the softmax's denominator, around any encoding.

Source: OpenAI 2025, gpt-oss (arXiv 2508.10925), as in transformers 5.23, `models/gpt_oss`; the name is that of Xiao et
al. 2023 (arXiv 2309.17453), who saw what heads do with attention that they have no use for. With the finished logits
of a row, the weights are

    exp(logit_ij) / (exp(s_h) + sum over j of exp(logit_ij)),

so they sum to less than one, and no value goes with the rest. That is softmax times sigmoid(lse - s_h).

Deviations and choices:
    * s_h is neither scaled nor turned, counts in every row, and is learned for each layer and head. `start` None
      draws N(0, 0.02), as gpt-oss: near zero, which is not "off". A number is where all of them start; 0 is "softmax
      plus one".
    * gpt-oss has it in windowed and full layers alike: `sinks(rope)[window=128],sinks(rope)`.
    * Sinks by token (Inkling's second generation) are not part of it.
    * Bidirectional: unchanged.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lpe_eval.model.encoding import Encoding, EncodingOptions, EncodingWrapper
from lpe_eval.model.scores import Geometry


class Sinks(EncodingWrapper):
    """See the module's docstring."""

    class Options(EncodingOptions):
        start: float | None = None

    title: ClassVar[str] = "Attention sinks"
    paper: ClassVar[str] = "OpenAI 2025, arXiv 2508.10925"
    bibtex: ClassVar[str] = """
        @misc{openai2025gptoss,
          title = {{gpt-oss-120b and gpt-oss-20b Model Card}},
          author = {{OpenAI}},
          year = {2025},
          eprint = {2508.10925},
          archivePrefix = {arXiv},
        }
    """
    per_layer: ClassVar[bool] = True
    inner_follows: ClassVar[bool] = False

    def __init__(self, geometry: Geometry, options: Options, inner: Encoding) -> None:
        super().__init__(geometry, options, inner)
        self.options: Sinks.Options = options
        self.sinks = nn.Parameter(torch.zeros(geometry.heads))

    def initialise(self, generator: torch.Generator) -> None:
        if self.options.start is None:
            nn.init.normal_(self.sinks, std=0.02, generator=generator)
        else:
            nn.init.constant_(self.sinks, self.options.start)

    def kept(self, lse: Float[Tensor, "b h q"]) -> Float[Tensor, "b h q"] | None:
        kept, of_inner = torch.sigmoid(lse - self.sinks[:, None].to(lse.dtype)), self.inner.kept(lse)
        return kept if of_inner is None else kept * of_inner
