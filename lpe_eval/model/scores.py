"""What an encoding is told: the shape of its model, options, the scores of a block; and what it tells of its seams."""

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict
from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """What an encoding may know of the model it serves.

    Attributes:
        heads: number of attention heads.
        head_width: width d of one head.
        width: model width e.
        train_length: tokens per training window.
        causal: whether a query sees only its past and itself.
    """

    heads: int
    head_width: int
    width: int
    train_length: int
    causal: bool = True


class EncodingOptions(BaseModel):
    """Options that every encoding has; members subclass it inside their class as `Options`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    per_layer: bool | None = None
    """A copy of the parameters for each layer, or one for all; None follows the released code."""


class Scores(NamedTuple):
    """What attention knows about one block of query rows, before the mask.

    `keys` may stop before the end of the sequence: a causal path passes the keys up to the
    block's last query plus the encoding's `lookahead`. In a layer with a window they may begin after the first
    token: at the first key that a row of the block sees, less the encoding's `lookbehind`. The block's own
    tokens are always among them. Rows may come in any order; a path that runs through a block backwards gets
    biases by offset without a copy (see `spread_offsets`).
    """

    logits: Float[Tensor, "b h q k"]
    """q . k / sqrt(d), rotation included, bias not."""
    bias: Float[Tensor, "h q k"] | None
    queries: Float[Tensor, "b h q d"]
    keys: Float[Tensor, "b h k d"]
    visible: Bool[Tensor, "q k"]
    q_at: Int[Tensor, " q"]
    k_at: Int[Tensor, " k"]
    query_features: Float[Tensor, "b h q n"] | None = None
    """What `features` made of the tokens of the rows; None where an encoding has none."""
    key_features: Float[Tensor, "b h k n"] | None = None
    """The same of the tokens of the keys."""


class Capabilities(NamedTuple):
    """Which seams an encoding uses; the attention path is chosen by these, never by name."""

    rotates: bool
    offset_bias: bool
    general_bias: bool
    adjusts: bool
    features: bool = False
    keeps: bool = False
