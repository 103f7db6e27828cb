"""Attention over some of the keys, and contexts over different keys put together: on a CPU, without gradients.

PyTorch's fused kernel knows the logarithm of what it divided each row by, and its public function keeps that to
itself. The operation that the function calls on a CPU returns both, and it takes a bias and a causal square at once.
It is not part of PyTorch's public interface: `has_parts` tells whether this PyTorch has it.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lpe_eval.model.encoding import Encoding

_ROWS, _ROWS_OF_LONG, _LONG = 256, 768, 6144


class Part(NamedTuple):
    """What some queries make of some keys."""

    context: Float[Tensor, "b h q d"]
    lse: Float[Tensor, "b h q"]
    """The logarithm of what each row was divided by, in float32."""


def has_parts() -> bool:
    """Whether `attend_part` can be called with this PyTorch."""
    return getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None) is not None


def rows_of_block(keys: int) -> int:
    """How many query rows the fused kernel is best given at once, where a block wastes half of its own square.

    The kernel takes larger tiles from 768 rows on; until 6144 keys what is wasted costs more than that gains.
    """
    return _ROWS if keys < _LONG else _ROWS_OF_LONG


def attend_part(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    bias: Float[Tensor, "..."] | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Part:
    """Softmax attention to the given keys.

    Args:
        q: queries, which see one of the keys at least.
        k: keys.
        v: values.
        bias: added to the logits, in float32, of four axes of which any may be one; minus infinity hides.
        causal: whether the first query sees the first key alone, the second one two, and so on.
        scale: of the products; None is one over the root of the width.
    """
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return Part(*fused(q, k, v, 0.0, causal, attn_mask=bias, scale=scale))


def attend_past(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    of_keys: Float[Tensor, "b h 1 k"] | None = None,
) -> Part:
    """Causal attention of the last queries of a text, with a bias that every key has by itself."""
    first = k.shape[2] - q.shape[2]
    early, late = (None, None) if of_keys is None else (of_keys[..., :first], of_keys[..., first:])
    own = attend_part(q, k[:, :, first:], v[:, :, first:], late, causal=True)
    return own if first == 0 else merged([attend_part(q, k[:, :, :first], v[:, :, :first], early), own])


def merged(parts: Sequence[Part]) -> Part:
    """The attention to all keys of several parts, none of which has a key of another."""
    first, *others = parts
    lse = functools.reduce(torch.logaddexp, [part.lse for part in parts])
    context = first.context * (first.lse - lse).exp()[..., None]
    for part in others:
        context.addcmul_(part.context.to(context.dtype), (part.lse - lse).exp()[..., None])
    return Part(context.to(first.context.dtype), lse)


def kept_context(encoding: Encoding, part: Part) -> Float[Tensor, "b h q d"]:
    """The context times what the encoding keeps of each row."""
    kept = encoding.kept(part.lse) if encoding.capabilities.keeps else None
    return part.context if kept is None else (part.context * kept[..., None]).to(part.context.dtype)
