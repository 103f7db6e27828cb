"""The compiled functions of the attention path `flex`, which its docstring describes."""

import functools
from collections.abc import Callable
from typing import NamedTuple, no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch._dynamo import config as dynamo
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from lpe_eval.model.descriptions import LinearPieces, RatioBias
from lpe_eval.model.encoding import Encoding

_BLOCK = 128
"""Rows and columns of a block of the mask."""

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
    rows = q.shape[2]
    blocks = causal_blocks(rows, len(at), q.device) if causal else None
    even = rows % _BLOCK == 0 and len(at) % _BLOCK == 0
    # Dynamo's name for the limit since before torch 2.6; newer ones keep it as an alias.
    with dynamo.patch(cache_size_limit=_KERNELS):
        if isinstance(bias, RatioBias):
            return compiled(by_ratio)(q, k, v, ratio_inputs(bias, at, rows), blocks, even)
        return compiled(by_offset)(q, k, v, offset_inputs(bias, at, rows), blocks, even)


class _OffsetInputs(NamedTuple):
    """What `by_offset` reads beside queries, keys and values."""

    values: Float[Tensor, "h n"]
    """The bias by rising offset."""
    zero: Int[Tensor, ""]
    """Where among them the first query meets the first key."""
    first: Int[Tensor, ""]
    """How many keys come before the first query."""


class _RatioInputs(NamedTuple):
    """What `by_ratio` reads beside queries, keys and values."""

    numerator: Float[Tensor, " n"]
    """By rising offset."""
    zero: Int[Tensor, ""]
    first: Int[Tensor, ""]
    inverse: Float[Tensor, " q"]
    """One over the denominator of each query."""
    pieces: LinearPieces
    """With infinite knots behind its own, one less than a power of two in all."""


class _MaskBlocks(NamedTuple):
    """Which blocks of a causal mask hold something, by query block and by key block; the names are FlexAttention's."""

    kv_num_blocks: Int[Tensor, "1 1 m"]
    kv_indices: Int[Tensor, "1 1 m n"]
    full_kv_num_blocks: Int[Tensor, "1 1 m"]
    full_kv_indices: Int[Tensor, "1 1 m n"]
    q_num_blocks: Int[Tensor, "1 1 n"]
    q_indices: Int[Tensor, "1 1 n m"]
    full_q_num_blocks: Int[Tensor, "1 1 n"]
    full_q_indices: Int[Tensor, "1 1 n m"]


def offset_inputs(encoding: Encoding, at: Int[Tensor, " k"], rows: int) -> _OffsetInputs:
    """The values by offset of the last `rows` tokens as queries."""
    length = len(at)
    values = encoding.bias_by_offset(torch.arange(1 - rows, length, device=at.device))
    assert values is not None
    return _OffsetInputs(values.contiguous(), *_scalars(length, rows, at.device))


def ratio_inputs(ratio: RatioBias, at: Int[Tensor, " k"], rows: int) -> _RatioInputs:
    """Numerators, denominators and pieces for the last `rows` tokens as queries."""
    length = len(at)
    numerator = ratio.numerator(torch.arange(1 - rows, length, device=at.device))
    pieces = ratio.pieces()
    missing = (1 << len(pieces.knots).bit_length()) - 1 - len(pieces.knots)
    knots = torch.nn.functional.pad(pieces.knots, (0, missing), value=float("inf"))
    inverse = 1 / ratio.denominator(at[length - rows :], at)
    return _RatioInputs(numerator, *_scalars(length, rows, at.device), inverse, pieces._replace(knots=knots))


@no_type_check
def by_offset(q, k, v, inputs, blocks, even):
    """Attention with a bias read by offset; without `blocks` every key is visible."""
    values, zero, first = inputs

    def biased(logit, _, head, query, key):
        return logit + values[head, query - key + zero]

    mask = _mask(q, k, first, blocks)
    return flex_attention(q, k, v, score_mod=biased, block_mask=mask, kernel_options=options(q, even))


@no_type_check
def by_ratio(q, k, v, inputs, blocks, even):
    """Attention with a bias in linear pieces of a ratio; without `blocks` every key is visible."""
    numerator, zero, first, inverse, (knots, constant, slope) = inputs

    def biased(logit, _, head, query, key):
        ratio = numerator[query - key + zero] * inverse[query]
        piece = key * 0
        for step in _STEPS:
            if step <= knots.shape[0]:
                piece = torch.where(knots[piece + (step - 1)] <= ratio, piece + step, piece)
        return logit + (constant[head, piece] + slope[head, piece] * ratio)

    mask = _mask(q, k, first, blocks)
    return flex_attention(q, k, v, score_mod=biased, block_mask=mask, kernel_options=options(q, even))


@no_type_check
def _mask(q, k, first, blocks):
    if blocks is None:
        return None

    def visible(_batch, _head, query, key):
        return key <= query + first

    # By place and not by name, since before torch 2.9 the compiler cannot follow `_asdict`.
    return BlockMask((q.shape[2], k.shape[2]), *blocks, BLOCK_SIZE=(_BLOCK, _BLOCK), mask_mod=visible)


@no_type_check
def options(q, even):
    """What FlexAttention is told of its tiles; `even` where the numbers of queries and keys are multiples of 128."""
    # What is read for a logit is fetched ahead into shared memory as well, so tiles are smaller than FlexAttention's
    # own choice, which would not fit. For queries few or many the kernel is the same.
    common = {"FORCE_USE_FLEX_ATTENTION": True, "IS_DIVISIBLE": even, "fwd_num_stages": 2}
    if q.shape[3] * q.element_size() <= 128:
        return {**common, "fwd_BLOCK_M": 128, "fwd_BLOCK_N": 64, "fwd_num_warps": 8}
    if q.shape[3] * q.element_size() <= 256:
        return {**common, "fwd_BLOCK_M": 64, "fwd_BLOCK_N": 32, "fwd_num_warps": 4}
    return {**common, "fwd_BLOCK_M": 32, "fwd_BLOCK_N": 32, "fwd_num_warps": 4}


@functools.cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, compiled for sizes that change."""
    return torch.compile(function, dynamic=True, fullgraph=True)


@functools.lru_cache(maxsize=64)
def _scalars(length: int, rows: int, device: torch.device) -> tuple[Int[Tensor, ""], Int[Tensor, ""]]:
    """Where the offset of the first query to the first key stands, and how many keys come before that query.

    As tensors, because FlexAttention's kernels take no whole numbers that change.
    """
    with torch.inference_mode(False):  # what is kept for scoring may be met again in training
        pair = torch.tensor([length - 1, length - rows], dtype=torch.int32).to(device)
        return pair[0], pair[1]


@functools.lru_cache(maxsize=64)
def causal_blocks(rows: int, length: int, device: torch.device) -> _MaskBlocks:
    """The blocks of a causal mask whose queries are the last `rows` of `length` tokens."""
    with torch.inference_mode(False):
        return _MaskBlocks(*(each.to(device) for each in _counted(rows, length)))


def _counted(rows: int, length: int) -> _MaskBlocks:
    first = length - rows
    query = torch.arange(-(-rows // _BLOCK), dtype=torch.int32)
    key = torch.arange(-(-length // _BLOCK), dtype=torch.int32)
    last = (first + (query + 1) * _BLOCK - 1).clamp(max=length - 1)
    # A row sees the keys up to itself: those of the block's first row make full blocks, those of its last the rest.
    full = (first + query * _BLOCK + 1) // _BLOCK
    touched = last // _BLOCK + 1
    along = key.expand(len(query), -1)
    partial = (full[:, None] + along) % len(key)
    lists = BlockMask.from_kv_blocks(
        (touched - full)[None, None], partial[None, None], full[None, None], along[None, None], _BLOCK
    )
    return _MaskBlocks(*(getattr(lists, name).contiguous() for name in _MaskBlocks._fields))
