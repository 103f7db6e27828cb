"""What kernels of the distance share: ALiBi's slopes, learned numbers kept in bounds, and rounding."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

KERPLE_FLOOR = 0.01
"""The smallest value KERPLE's parameters take in a forward pass."""


def alibi_slopes(heads: int, bias_max: float = 8.0) -> Float[Tensor, " h"]:
    """The slope of each head; `bias_max` is MPT's generalisation (8 in the paper)."""
    below = 1 << (heads.bit_length() - 1)
    slopes = 2.0 ** (-bias_max / below * torch.arange(1, below + 1, dtype=torch.float64))
    extra = 2.0 ** (-bias_max / (2 * below) * torch.arange(1, 2 * below + 1, 2, dtype=torch.float64))
    return torch.cat([slopes, extra[: heads - below]]).float()


def rounded(value: Float[Tensor, "..."], dtype: str) -> Float[Tensor, "..."]:
    """`value` in a low-precision type; as it is where the type is "float32", which asks for no rounding."""
    return value if dtype == "float32" else value.to(getattr(torch, dtype))


def clamped(parameter: Float[Tensor, " h"], low: float, high: float = math.inf) -> Float[Tensor, " h"]:
    """The parameter forced into [low, high], with the gradient of the parameter itself."""
    return parameter.detach().clamp(low, high) + (parameter - parameter.detach())
