"""Factors of a query by the number of keys that it sees: how sharp attention is where there is much to attend to."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor

Rule = Callable[[Int[Tensor, " t"], int, float], Float[Tensor, " t"]]
"""rule(count, floor, strength) -> factor, in float32."""


class Temperature(BaseModel):
    """From how many keys on attention gets sharper, and how quickly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    floor: PositiveInt = 128000
    strength: float = Field(default=0.1, ge=0)


def in_steps(count: Int[Tensor, " t"], floor: int, strength: float) -> Float[Tensor, " t"]:
    """1 + strength * log(1 + whole multiples of `floor` in the count): Llama 4, Ministral 3."""
    return 1 + strength * torch.log1p((count // floor).float())


def above(count: Int[Tensor, " t"], floor: int, strength: float) -> Float[Tensor, " t"]:
    """1 + strength * log(count / floor) above `floor`, 1 up to there: Inkling."""
    return 1 + strength * (count.float() / floor).clamp(min=1).log()


def by_logarithms(count: Int[Tensor, " t"], floor: int, strength: float) -> Float[Tensor, " t"]:
    """log(count) / log(floor) above `floor`, 1 up to there: Su."""
    return (count.float().log() / math.log(floor)).clamp(min=1)


def keys_seen(at: Int[Tensor, " t"], causal: bool) -> Int[Tensor, " t"]:
    """How many keys the query at each position sees: its past and itself, or the whole text."""
    return at + 1 if causal else torch.full_like(at, len(at))
