"""Angles and rotations: the arithmetic behind RoPE, xPos and sinusoids.

Frequencies are computed in float64 and rounded once.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.errors import SpecError
from lpe_eval.model.constants import constant
from lpe_eval.model.gpu import device_of_float64

AngleDtype = Literal["float64", "float32", "bfloat16", "float16"]
Layout = Literal["half_split", "interleaved"]


class Frequencies(NamedTuple):
    """What a rotation needs to know besides the positions."""

    inverse: Float[Tensor, " f"]
    """Radians per position, one for each pair of channels, in float64."""
    attention_factor: float = 1.0
    """Multiplies cosine and sine, so that q . k is multiplied by its square."""


class Rotation(NamedTuple):
    """How queries and keys are turned, if by position times frequency."""

    inverse: Float[Tensor, " f"]
    """Radians per position, one for each pair of channels."""
    layout: Layout
    angle_dtype: AngleDtype = "float32"
    """In which positions times frequencies are formed."""
    last: bool = False
    """Whether the turned channels are the last of a head, not the first."""


def inverse_frequencies(dims: int, base: float) -> Float[Tensor, " f"]:
    """RoPE's and the sinusoid's frequencies base^(-2i / dims), in float64."""
    return base ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)


def angles(at: Int[Tensor, " t"], inverse: Float[Tensor, " f"], dtype: AngleDtype = "float32") -> Float[Tensor, "t f"]:
    """Position times frequency, formed in `dtype` and returned in at least float32.

    float32 is what released code does today. In bfloat16 the positions 256 and 257 are one: models
    whose rotary module was cast as a whole, as in older GPT-NeoX, saw that. For a device without float64 such angles
    are formed on the CPU and come in float32, without whole turns.
    """
    held = getattr(torch, dtype)
    if held == torch.float64 and device_of_float64(at.device) != at.device:
        turns = at.cpu().double()[:, None] * inverse.cpu().double()
        return turns.remainder(2 * math.pi).float().to(at.device)
    product = at.to(held)[:, None] * _placed(inverse, held, at.device)
    return product if held == torch.float64 else product.float()


def _placed(inverse: Float[Tensor, " f"], dtype: torch.dtype, device: torch.device) -> Float[Tensor, " f"]:
    """The frequencies in a dtype on a device; those of the CPU are copied there once."""
    return inverse.to(dtype) if inverse.device == device else constant(tuple(inverse.tolist()), dtype, device)


def turn(
    x: Float[Tensor, "*n t d"], cos: Float[Tensor, "t f"], sin: Float[Tensor, "t f"], layout: Layout
) -> Float[Tensor, "*n t d"]:
    """Turns pairs of channels; channels beyond the first 2f stay as they are.

    Pair i is channels (i, i + f) in the half-split layout and (2i, 2i + 1) in the interleaved one.
    """
    dims = 2 * cos.shape[-1]
    turned, rest = x[..., :dims], x[..., dims:]
    if layout == "half_split":
        a, b = turned.chunk(2, dim=-1)
        turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    else:
        a, b = turned[..., ::2], turned[..., 1::2]
        turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
    return torch.cat([turned, rest], dim=-1) if rest.shape[-1] else turned


def turned_to(
    x: Float[Tensor, "*n t d"], at: Int[Tensor, " t"], to: Float[Tensor, " t"], rotation: Rotation
) -> Float[Tensor, "*n t d"]:
    """Turns what stands turned to the positions `at` on to `to`, so that it is as if it had stood there at once.

    The angles that are undone are those that were formed, rounding included; the new ones are exact. Cosine and sine
    are not rounded to the dtype of `x`.
    """
    there = device_of_float64(x.device)
    done = angles(at.to(there), rotation.inverse, rotation.angle_dtype).double()
    angle = to.to(there)[:, None] * _placed(rotation.inverse, torch.float64, there) - done
    held = torch.promote_types(x.dtype, torch.float32)
    cos, sin = (each.to(held).to(x.device) for each in (angle.cos(), angle.sin()))
    before = x.shape[-1] - 2 * cos.shape[-1] if rotation.last else 0
    turned = turn(x[..., before:].to(held), cos, sin, rotation.layout).to(x.dtype)
    return torch.cat([x[..., :before], turned], dim=-1) if before else turned


def require_even_width(width: int, what: str) -> None:
    """Raises SpecError where a method pairs channels and the width is odd."""
    if width % 2:
        raise SpecError(f"{what} pairs channels and cannot serve an odd width ({width})")
