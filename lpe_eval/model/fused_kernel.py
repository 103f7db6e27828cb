"""The Triton kernel of the attention path `fused`, which its docstring describes, and what it is given."""

import functools
import importlib
from typing import Any, NamedTuple, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from lpe_eval.model.descriptions import PairNetwork

try:
    triton: Any = importlib.import_module("triton")
    tl: Any = importlib.import_module("triton.language")
except ImportError:
    triton = tl = None
constexpr: Any = None if tl is None else tl.constexpr

_LOG2_E = 1.4426950408889634


class _Tile(NamedTuple):
    """How much of the matrix of logits a program holds at once, and with how many warps."""

    rows: int
    keys: int
    warps: int
    stages: int


def tile(heads: int, width: int, hidden: int) -> _Tile | None:
    """The tile for a shape; None if what one program holds would not fit in a multiprocessor."""
    if _padded(heads) > 32 or _padded(heads) * _padded(width) > 1024 or _padded(hidden) > 64:
        return None
    return _Tile(rows=16, keys=16, warps=8, stages=1)


def launch(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    network: PairNetwork,
    bias: Float[Tensor, "h n"] | None,
    causal: bool,
    size: _Tile,
) -> Float[Tensor, "b h q d"]:
    """Runs the kernel.

    Args:
        q: rotated queries; when there are fewer than keys they are the last rows.
        k: rotated keys.
        v: values.
        network: what stands between logits and softmax.
        bias: at the offsets from 1 - queries to keys - 1; None if there is none.
        causal: whether a query sees only its past and itself.
        size: the tile.
    """
    (batch, heads, rows, width), keys = q.shape, k.shape[2]
    given = _inputs(network, bias, q, keys, causal, size)
    out = torch.empty(batch, heads, rows, width, dtype=v.dtype, device=v.device)
    _kernel()[(-(-rows // size.rows), batch)](
        q,
        k,
        v,
        out,
        *given,
        *q.stride(),
        *k.stride(),
        *v.stride(),
        *out.stride(),
        given.outside.stride(0),
        heads,
        rows,
        keys,
        width,
        _LOG2_E * width**-0.5,
        network.leak,
        causal=causal,
        all_heads=given.outside.shape[0],
        all_units=given.inside.shape[1],
        all_width=_padded(width),
        block_rows=size.rows,
        block_keys=size.keys,
        precision="tf32x3" if q.dtype == torch.float32 else "tf32",
        num_warps=size.warps,
        num_stages=size.stages,
    )
    return out


class _Inputs(NamedTuple):
    """The network as the kernel reads it, padded so that no index falls outside, for logits in powers of two."""

    to_hidden: Float[Tensor, "h u"]
    from_hidden: Float[Tensor, "u h"]
    inside: Float[Tensor, "n u"]
    """What the hidden units hold at each offset before they see the logits."""
    outside: Float[Tensor, "h n"]
    """What is added at each offset after the network: minus infinity in the future of a causal model."""


def _inputs(
    network: PairNetwork,
    bias: Float[Tensor, "h n"] | None,
    q: Float[Tensor, "b h q d"],
    keys: int,
    causal: bool,
    size: _Tile,
) -> _Inputs:
    heads, rows, units = q.shape[1], q.shape[2], len(network.first)
    inside, outside = network.first_bias.float()[None], network.second_bias.float()[:, None]
    if bias is not None:
        inside = torch.addmm(inside, bias.float().T, network.first[:, heads:].float().T)
        outside = outside + bias.float() if network.keeps_bias else outside
    outside = (outside * _LOG2_E).expand(-1, rows + keys - 1)
    if causal:
        # Offsets begin with 1 - rows, so the future is what stands before offset 0.
        outside = outside.contiguous()
        outside[:, : rows - 1] = float("-inf")
    more_heads, more_units = _padded(heads) - heads, _padded(units) - units
    around, future = (size.keys, size.rows), float("-inf") if causal else 0.0
    to_hidden = network.first[:, :heads].float().T * q.shape[3] ** -0.5
    return _Inputs(
        pad(to_hidden, (0, more_units, 0, more_heads)).contiguous(),
        pad(network.second.float().T * _LOG2_E, (0, more_heads, 0, more_units)).contiguous(),
        pad(inside.expand(rows + keys - 1, -1), (0, more_units, *around)),
        pad(pad(outside, (around[0], 0), value=future), (0, around[1], 0, more_heads)),
    )


def _padded(count: int) -> int:
    return max(16, 1 << (count - 1).bit_length())


@functools.cache
def _kernel() -> Any:
    return triton.jit(attend_rows)


@no_type_check
def attend_rows(
    queries,
    all_keys,
    values,
    out,
    to_hidden,
    from_hidden,
    inside,
    outside,
    q_text,
    q_head,
    q_row,
    q_width,
    k_text,
    k_head,
    k_row,
    k_width,
    v_text,
    v_head,
    v_row,
    v_width,
    out_text,
    out_head,
    out_row,
    out_width,
    outside_head,
    heads,
    rows,
    keys,
    width,
    scale,
    leak,
    causal: constexpr,
    all_heads: constexpr,
    all_units: constexpr,
    all_width: constexpr,
    block_rows: constexpr,
    block_keys: constexpr,
    precision: constexpr,
):
    """The kernel: one program computes the context of `block_rows` queries of one text in all heads."""
    # The last rows see most keys and start first, so that no long program is left at the end.
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    text = tl.program_id(1).to(tl.int64)
    row, column = block * block_rows + tl.arange(0, block_rows), tl.arange(0, block_keys)
    head, unit, place = tl.arange(0, all_heads), tl.arange(0, all_units), tl.arange(0, all_width)
    of_head, of_place = (head < heads)[:, None, None], (place < width)[None, None, :]

    q_at = q_head * head[:, None, None] + q_row * row[None, :, None] + q_width * place[None, None, :]
    query = tl.load(queries + text * q_text + q_at, mask=of_head & (row < rows)[None, :, None] & of_place, other=0.0)
    to_hidden_at = head[:, None] * all_units + unit[None, :]
    to_hidden = tl.load(to_hidden + to_hidden_at)
    from_hidden = tl.load(from_hidden + unit[:, None] * all_heads + head[None, :])

    highest = tl.full([all_heads, block_rows], float("-inf"), tl.float32)
    weight = tl.zeros([all_heads, block_rows], tl.float32)
    context = tl.zeros([all_heads, block_rows, all_width], tl.float32)
    stop = keys
    if causal:
        stop = tl.minimum(keys - rows + (block + 1) * block_rows, keys)
    for start in range(0, stop, block_keys):
        key = start + column
        k_at = k_head * head[:, None, None] + k_row * key[None, None, :] + k_width * place[None, :, None]
        k_real = of_head & (place < width)[None, :, None] & (key < keys)[None, None, :]
        some_keys = tl.load(all_keys + text * k_text + k_at, mask=k_real, other=0.0)
        products = tl.dot(query, some_keys, input_precision=precision)

        # Offset 1 - rows stands at `block_keys` in the tables, and row r is at position keys - rows + r.
        offset = row[:, None] - key[None, :] + (keys - 1 + block_keys)
        pair = tl.reshape(offset, [block_rows * block_keys])
        units = tl.load(inside + pair[:, None] * all_units + unit[None, :])
        pairs = tl.reshape(tl.permute(products, (1, 2, 0)), [block_rows * block_keys, all_heads])
        units = tl.dot(pairs, to_hidden, acc=units, input_precision=precision)
        units = tl.maximum(units, units * leak)
        change = tl.dot(units, from_hidden, input_precision=precision)
        change = tl.permute(tl.reshape(change, [block_rows, block_keys, all_heads]), (2, 0, 1))
        logits = products * scale + change
        logits += tl.load(outside + head[:, None, None] * outside_head + offset[None, :, :])
        if not causal:
            logits = tl.where((key < keys)[None, None, :], logits, float("-inf"))

        higher = tl.maximum(highest, tl.max(logits, 2))
        passed = tl.exp2(highest - higher)
        share = tl.exp2(logits - higher[:, :, None])
        weight = weight * passed + tl.sum(share, 2)
        v_at = v_head * head[:, None, None] + v_row * key[None, :, None] + v_width * place[None, None, :]
        v_real = of_head & (key < keys)[None, :, None] & of_place
        some_values = tl.load(values + text * v_text + v_at, mask=v_real, other=0.0)
        share = share.to(some_values.dtype)
        context = tl.dot(share, some_values, acc=context * passed[:, :, None], input_precision=precision)
        highest = higher

    context = context / weight[:, :, None]
    out_at = out_head * head[:, None, None] + out_row * row[None, :, None] + out_width * place[None, None, :]
    real = of_head & (row < rows)[None, :, None] & of_place
    tl.store(out + text * out_text + out_at, context.to(out.dtype.element_ty), mask=real)
