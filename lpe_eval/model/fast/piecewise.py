"""A network with one hidden layer of (leaky) ReLU that reads a single number is linear between its knots."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lpe_eval.model.descriptions import LinearPieces


class RatioNetwork(NamedTuple):
    """second . leaky_relu(first r + first_bias) + second_bias, of one number r."""

    first: Float[Tensor, "n 1"]
    first_bias: Float[Tensor, " n"]
    second: Float[Tensor, "h n"]
    second_bias: Float[Tensor, " h"]
    leak: float
    """The factor of negative numbers in the activation; 0 is the ReLU."""

    def __call__(self, ratio: Float[Tensor, " m"]) -> Float[Tensor, "h m"]:
        """Heads-first from the start: the hidden layer is a matrix hidden x ratios, reused by the activation."""
        hidden = torch.addmm(self.first_bias[:, None], self.first, ratio.to(self.first.dtype)[None])
        hidden = F.leaky_relu(hidden, self.leak, inplace=True) if self.leak else F.relu(hidden, inplace=True)
        return torch.addmm(self.second_bias[:, None], self.second, hidden)


class Bends(NamedTuple):
    """constant + slope * r + sum over the knots of jump * relu(r - knot), in float64."""

    constant: Float[Tensor, " h"]
    slope: Float[Tensor, " h"]
    knot: Float[Tensor, " n"]
    jump: Float[Tensor, "h n"]


def bends(network: RatioNetwork) -> Bends:
    """The network on the whole line, from the knot of each unit in the order of the units."""
    weight, bias = network.first[:, 0].double(), network.first_bias.double()
    out, constant, leak = network.second.double(), network.second_bias.double(), network.leak
    # A unit is leak * (w r + b) + (1 - leak) * relu(w r + b), and for w < 0 relu(x) is x + relu(-x).
    line = leak + (1 - leak) * ((weight < 0) | ((weight == 0) & (bias > 0)))
    knot = torch.where(weight == 0, torch.inf, -bias / weight)
    jump = (1 - leak) * out * weight.abs()
    return Bends(constant + out @ (line * bias), out @ (line * weight), knot, jump)


def bends_up_to(network: RatioNetwork, highest: float) -> Bends:
    """The network on [0, highest]; knots outside are part of the line or out of reach. The highest knot comes first."""
    constant, slope, knot, jump = bends(network)
    below, inside = knot <= 0, (knot > 0) & (knot < highest)
    constant = constant - (jump * knot)[:, below].sum(-1)
    slope = slope + jump[:, below].sum(-1)
    order = knot[inside].argsort(descending=True)
    return Bends(constant, slope, knot[inside][order], jump[:, inside][:, order])


def linear_pieces(network: RatioNetwork) -> LinearPieces:
    """The network between all of its knots, wherever they are, so that no number is fetched from the device."""
    line_constant, line_slope, knot, jump = bends(network)
    order = knot.argsort()
    knot, jump = knot[order], jump[:, order]
    # A unit without a knot jumps by nothing, and nothing times infinity must stay nothing.
    step = torch.where(knot.isinf(), 0.0, jump * knot)
    constant = line_constant[:, None] - F.pad(step.cumsum(-1), (1, 0))
    slope = line_slope[:, None] + F.pad(jump.cumsum(-1), (1, 0))
    return LinearPieces(knot.float(), constant.float(), slope.float())
