"""The compiled functions of the attention path `flex`, which its docstring describes."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch._dynamo import config as dynamo
from torch.fx.experimental import _config
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad

from lpe_eval.model.descriptions import LinearPieces, RatioBias
from lpe_eval.model.encoding import Encoding

_BLOCK = 128
"""Rows and columns of a block of the mask, of which queries and keys have whole numbers."""

_KERNELS = 64
"""How often one function may be compiled in a process."""

_STEPS = tuple(1 << bit for bit in reversed(range(16)))
"""Of halving up to 65535 knots; constants, because sizes are symbols while the kernel is written."""


def attend(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    bias: Encoding | RatioBias,
    at: Int[Tensor, " k"],
    causal: bool,
) -> Float[Tensor, "b h q d"]:
    """The context of each query at positions that run on one by one, with a bias by offset or in pieces of a ratio."""
    batch, rows = q.shape[0], q.shape[2]
    # Dynamo's name for the limit since before torch 2.6; newer ones keep it as an alias.
    with dynamo.patch(cache_size_limit=_KERNELS), _unequal_sizes():
        blocks = mask_blocks(rows, len(at), causal, q.device)
        function, make = (by_ratio, ratio_inputs) if isinstance(bias, RatioBias) else (by_offset, offset_inputs)
        inputs = make(bias, at, rows, batch, causal)  # pyright: ignore[reportArgumentType]
        context = compiled(function)(packed(q), packed(k), packed(v), inputs, blocks)
    return context[:, 0].unflatten(0, (batch, -1))[:, :, :rows]


def _unequal_sizes() -> AbstractContextManager[None]:
    """Inside, sizes that happen to be equal are not taken for one and the same."""
    settings: Any = _config
    return settings.patch(use_duck_shape=False)


def packed(x: Float[Tensor, "b h t d"]) -> Float[Tensor, "n 1 p d"]:
    """Each head as a text of its own, with tokens of zeros after the last: one layout, whatever came in.

    The compiler makes a kernel for each number of heads, and one for a single text; of so many texts it makes no more.
    """
    batch, heads, length, width = x.shape
    whole = pad(x, (0, 0, 0, padded(length) - length))
    return whole.reshape(batch * heads, 1, padded(length), width).contiguous()


def padded(length: int) -> int:
    """Tokens in whole blocks, and at least two of them: of a single one the compiler makes a kernel of its own."""
    return max(2, -(-length // _BLOCK)) * _BLOCK


class _OffsetInputs(NamedTuple):
    """What `by_offset` reads beside queries, keys and values."""

    values: Float[Tensor, "h n"]
    """The bias by rising offset, of the heads of every text."""
    zero: Int[Tensor, ""]
    """Where among them the first query meets the first key."""
    first: Int[Tensor, ""]
    """The last key that the first query sees."""
    step: Int[Tensor, ""]
    """How many more each later query sees: one in a causal model, else none."""


class _RatioInputs(NamedTuple):
    """What `by_ratio` reads beside queries, keys and values."""

    numerator: Float[Tensor, " n"]
    """By rising offset."""
    zero: Int[Tensor, ""]
    first: Int[Tensor, ""]
    step: Int[Tensor, ""]
    inverse: Float[Tensor, " q"]
    """One over the denominator of each query."""
    pieces: LinearPieces
    """With infinite knots behind its own, one less than a power of two in all."""


class _MaskBlocks(NamedTuple):
    """Which blocks of a mask hold something, by query block and by key block; the names are FlexAttention's."""

    kv_num_blocks: Int[Tensor, "1 1 m"]
    kv_indices: Int[Tensor, "1 1 m n"]
    full_kv_num_blocks: Int[Tensor, "1 1 m"]
    full_kv_indices: Int[Tensor, "1 1 m n"]
    q_num_blocks: Int[Tensor, "1 1 n"]
    q_indices: Int[Tensor, "1 1 n m"]
    full_q_num_blocks: Int[Tensor, "1 1 n"]
    full_q_indices: Int[Tensor, "1 1 n m"]


def offset_inputs(encoding: Encoding, at: Int[Tensor, " k"], rows: int, batch: int, causal: bool) -> _OffsetInputs:
    """The values by offset of the last `rows` tokens as queries."""
    values = encoding.bias_by_offset(_offsets(len(at), rows, at.device))
    assert values is not None
    return _OffsetInputs(values.repeat(batch, 1), *_scalars(len(at), rows, causal, at.device))


def ratio_inputs(ratio: RatioBias, at: Int[Tensor, " k"], rows: int, batch: int, causal: bool) -> _RatioInputs:
    """Numerators, denominators and pieces for the last `rows` tokens as queries."""
    length, pieces = len(at), ratio.pieces()
    missing = (1 << len(pieces.knots).bit_length()) - 1 - len(pieces.knots)
    knots = pad(pieces.knots, (0, missing), value=float("inf"))
    of_texts = LinearPieces(knots, pieces.constant.repeat(batch, 1), pieces.slope.repeat(batch, 1))
    inverse = pad(1 / ratio.denominator(at[length - rows :], at), (0, padded(rows) - rows))
    numerator = ratio.numerator(_offsets(length, rows, at.device))
    return _RatioInputs(numerator, *_scalars(length, rows, causal, at.device), inverse, of_texts)


def _offsets(length: int, rows: int, device: torch.device) -> Int[Tensor, " n"]:
    """From the first query and the last key of the padded text to the last query and the first key."""
    first = length - rows
    return torch.arange(first - padded(length) + 1, first + padded(rows), device=device)


@no_type_check
def by_offset(q, k, v, inputs, blocks):
    """Attention with a bias read by offset."""
    values, zero, first, step = inputs

    def biased(logit, head, _, query, key):
        return logit + values[head, query - key + zero]

    mask = _mask(q, k, first, step, blocks)
    return flex_attention(q, k, v, score_mod=biased, block_mask=mask, kernel_options=options(q, False))


@no_type_check
def by_ratio(q, k, v, inputs, blocks):
    """Attention with a bias in linear pieces of a ratio."""
    numerator, zero, first, step, inverse, (knots, constant, slope) = inputs

    def biased(logit, head, _, query, key):
        ratio = numerator[query - key + zero] * inverse[query]
        piece = key * 0
        for halving in _STEPS:
            if halving <= knots.shape[0]:
                piece = torch.where(knots[piece + (halving - 1)] <= ratio, piece + halving, piece)
        return logit + (constant[head, piece] + slope[head, piece] * ratio)

    mask = _mask(q, k, first, step, blocks)
    return flex_attention(q, k, v, score_mod=biased, block_mask=mask, kernel_options=options(q, True))


@no_type_check
def _mask(q, k, first, step, blocks):
    def visible(_batch, _head, query, key):
        return key <= query * step + first

    # By place and not by name, since before torch 2.9 the compiler cannot follow `_asdict`.
    return BlockMask((q.shape[2], k.shape[2]), *blocks, BLOCK_SIZE=(_BLOCK, _BLOCK), mask_mod=visible)


@no_type_check
def options(q, pieces):
    """What FlexAttention is told of its tiles, where a logit reads a row of values or the `pieces` of a ratio."""
    # What is read for a logit is fetched ahead into shared memory as well, so tiles are smaller than FlexAttention's
    # own choice, which would not fit. For queries few or many the kernel is the same.
    common = {"FORCE_USE_FLEX_ATTENTION": True, "IS_DIVISIBLE": True, "fwd_num_stages": 2}
    if q.shape[3] * q.element_size() <= 128:
        return {**common, "fwd_BLOCK_M": 128, "fwd_BLOCK_N": 32 if pieces else 64, "fwd_num_warps": 8}
    if q.shape[3] * q.element_size() <= 256:
        return {**common, "fwd_BLOCK_M": 64, "fwd_BLOCK_N": 32, "fwd_num_warps": 4}
    return {**common, "fwd_BLOCK_M": 32, "fwd_BLOCK_N": 32, "fwd_num_warps": 4}


@functools.cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, compiled for sizes that change."""
    return torch.compile(function, dynamic=True, fullgraph=True)


@functools.lru_cache(maxsize=64)
def _scalars(
    length: int, rows: int, causal: bool, device: torch.device
) -> tuple[Int[Tensor, ""], Int[Tensor, ""], Int[Tensor, ""]]:
    """Where the offset of the first query to the first key stands, the last key it sees, and how many more the next.

    As tensors, because FlexAttention's kernels take no whole numbers that change.
    """
    seen = (length - rows, 1) if causal else (length - 1, 0)
    with torch.inference_mode(False):  # what is kept for scoring may be met again in training
        three = torch.tensor([padded(length) - 1, *seen], dtype=torch.int32).to(device)
        return three[0], three[1], three[2]


@functools.lru_cache(maxsize=64)
def mask_blocks(rows: int, length: int, causal: bool, device: torch.device) -> _MaskBlocks:
    """The blocks of a mask whose queries are the last `rows` of `length` tokens, both padded."""
    with torch.inference_mode(False):
        return _MaskBlocks(*(each.to(device) for each in _counted(rows, length, causal)))


def _counted(rows: int, length: int, causal: bool) -> _MaskBlocks:
    query = torch.arange(padded(rows) // _BLOCK, dtype=torch.int32)
    key = torch.arange(padded(length) // _BLOCK, dtype=torch.int32)
    # A row sees the keys up to some last one: those of a block's first row make full blocks, of its last row the rest.
    lowest = length - rows + query * _BLOCK if causal else torch.full_like(query, length - 1)
    highest = lowest + _BLOCK - 1 if causal else lowest
    full = ((lowest + 1) // _BLOCK).clamp(max=len(key))
    touched = (highest // _BLOCK + 1).clamp(max=len(key))
    along = key.expand(len(query), -1)
    partial = (full[:, None] + along) % len(key)
    lists = BlockMask.from_kv_blocks(
        (touched - full)[None, None], partial[None, None], full[None, None], along[None, None], _BLOCK
    )
    return _MaskBlocks(*(getattr(lists, name).contiguous() for name in _MaskBlocks._fields))
