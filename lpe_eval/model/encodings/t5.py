"""T5: a learned bias for each bucket of distances, wide buckets for far keys.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer" (arXiv 1910.10683), as built in the length-extrapolation literature: class
ParallelRelativePositionBias of GPT-NeoX in chijames/KERPLE at 25be3d7. With n buckets for a
direction, distances below n / 2 have a bucket each; bucket n / 2 + r begins where
(n / 2) * ln(distance / (n / 2)) / ln(max_distance / (n / 2)) reaches r; the last one has no end.

Deviations and choices:
    * `scale`: "sqrt_head_width" is GPT-NeoX (and the T5 baselines of KERPLE, MEP and DAPE): the table
      times sqrt(d), added to logits divided by sqrt(d). "none" adds the table as it is, as torchscale
      does. The original T5 also adds the plain table, but to logits that are not divided by sqrt(d):
      that is "none" with the weights of q multiplied by sqrt(d).
    * The first distance of each bucket is found in integer arithmetic, once. Published code takes
      logarithms in float32; the buckets are the same.
    * The table is drawn from Xavier's normal distribution, as in GPT-NeoX.
    * One table for all layers, as released.
    * Bidirectional: half of the buckets for each direction, the upper half for keys after the query,
      as published.
"""

import bisect
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from lpe_eval.errors import SpecError
from lpe_eval.model.encoding import Encoding, EncodingOptions, Geometry


class T5(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        buckets: PositiveInt = 32
        max_distance: PositiveInt = 128
        scale: Literal["sqrt_head_width", "none"] = "sqrt_head_width"

    title: ClassVar[str] = "T5 bias"
    paper: ClassVar[str] = "Raffel et al. 2020, arXiv 1910.10683"
    bibtex: ClassVar[str] = """
        @misc{raffel2019t5,
          title = {{Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer}},
          author = {Raffel, Colin and Shazeer, Noam and Roberts, Adam and Lee, Katherine and Narang, Sharan
            and Matena, Michael and Zhou, Yanqi and Li, Wei and Liu, Peter J.},
          year = {2019},
          eprint = {1910.10683},
          archivePrefix = {arXiv},
        }
    """
    bidirectional: ClassVar[Literal["published", "ours"]] = "published"

    starts: Tensor

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: T5.Options = options
        directions = 1 if geometry.causal else 2
        self.per_direction = options.buckets // directions
        if options.buckets % (2 * directions) or options.max_distance <= self.per_direction // 2:
            raise SpecError(
                f"t5 needs a number of buckets divisible by {2 * directions} and a `max_distance` above "
                f"{self.per_direction // 2}, not {options.buckets} buckets and {options.max_distance}"
            )
        starts = torch.tensor(_bucket_starts(self.per_direction, options.max_distance))
        self.register_buffer("starts", starts, persistent=False)
        self.weight = nn.Parameter(torch.zeros(options.buckets, geometry.heads))

    def initialise(self, generator: torch.Generator) -> None:
        deviation = (2.0 / sum(self.weight.shape)) ** 0.5
        with torch.no_grad():
            self.weight.normal_(0.0, deviation, generator=generator)

    def bias_by_offset(self, offset: Int[Tensor, " n"]) -> Float[Tensor, "h n"]:
        bias = F.embedding(self.bucket(offset), self.weight).T
        return bias * self.geometry.head_width**0.5 if self.options.scale == "sqrt_head_width" else bias

    def bucket(self, offset: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The row of the table for each offset i - j."""
        if self.geometry.causal:
            return torch.bucketize(offset.clamp(min=0), self.starts, right=True)
        return torch.bucketize(offset.abs(), self.starts, right=True) + self.per_direction * (offset < 0)


def _bucket_starts(buckets: int, max_distance: int) -> list[int]:
    """The first distance of every bucket but bucket 0, which starts at 0."""
    exact, wide = buckets // 2, buckets - buckets // 2

    def first(step: int) -> int:
        # distance^wide >= max_distance^step * exact^(wide - step) is the logarithmic rule without logarithms.
        threshold = max_distance**step * exact ** (wide - step)
        return bisect.bisect_left(range(max_distance + 1), threshold, key=lambda distance: distance**wide)

    return [*range(1, exact), *(first(step) for step in range(wide))]
