"""A constant penalty beyond a reach: free inside, the same price for everything farther away."""

import torch

from lpe_eval.model.encoding import Encoding, EncodingOptions, Geometry
from lpe_eval.model.offsets import distances


class StepPenalty(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        reach: int = 8

    title = "Step penalty"
    paper = "none: an example"

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.reach = options.reach
        self.price = torch.nn.Parameter(torch.ones(geometry.heads))

    def bias_by_offset(self, offset):
        beyond = distances(offset, self.geometry.causal) > self.reach
        return -self.price[:, None] * beyond
