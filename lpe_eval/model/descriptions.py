"""What an encoding says of its own seams beyond computing them, so that a path may compute them in another way."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model.remaps import DistanceMap
from lpe_eval.model.rotary import Rotation


class LinearPieces(NamedTuple):
    """A piecewise linear function of one number r for each head.

    It is constant[h, m] + slope[h, m] * r, where m knots are at most r.
    """

    knots: Float[Tensor, " n"]
    """Ascending; infinite where a knot does not exist."""
    constant: Float[Tensor, "h m"]
    slope: Float[Tensor, "h m"]


class RatioBias(NamedTuple):
    """A bias that is a piecewise linear function of numerator(i - j) / denominator(i)."""

    numerator: Callable[[Int[Tensor, " n"]], Float[Tensor, " n"]]
    """By offset; never negative."""
    denominator: Callable[[Int[Tensor, " q"], Int[Tensor, " k"]], Float[Tensor, " q"]]
    """Of each query, from the positions of the queries and of all keys; positive."""
    pieces: Callable[[], LinearPieces]
    """The function, for ratios that are not negative."""


class PairNetwork(NamedTuple):
    """A network of two layers that reads all heads of one pair of tokens and nothing else.

    With the logits s and the bias B of a pair, one number for each head, the positioned logits are
    s + [B +] second . leaky_relu(first . [s; B] + first_bias) + second_bias.
    """

    first: Float[Tensor, "n c"]
    """Reads the logits of all heads and then, if there are twice as many columns, their biases."""
    first_bias: Float[Tensor, " n"]
    second: Float[Tensor, "h n"]
    second_bias: Float[Tensor, " h"]
    leak: float
    """The factor of negative numbers in the leaky ReLU."""
    keeps_bias: bool
    """Whether B is also added outside the network."""


class MappedDistances(NamedTuple):
    """RoPE whose far distances are others: logits of queries and keys that are turned on, range by range."""

    distances: DistanceMap
    rotation: Rotation
    """Which queries and keys have behind them."""


class LevelBias(NamedTuple):
    """A bias that is the level of the query's token less that of the key's."""

    levels: Callable[[Float[Tensor, "b h t n"]], Float[Tensor, "b h t"]]
    """Of each token, from its features. Differences are taken before anything is rounded to float32."""


class NearBias(NamedTuple):
    """A bias that a query's features give to each offset i - j below an extent, and that is zero from there on."""

    extent: int
    by_falling_offset: Callable[[Float[Tensor, "b h q n"], Int[Tensor, " q"]], Float[Tensor, "b h q m"]]
    """At the offsets extent - 1, extent - 2, ..., 0, from the features of the queries and their positions."""
