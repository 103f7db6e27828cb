"""The Triton kernels of the attention path `fused`, whose docstring says what they are for."""

import importlib
from typing import Any, no_type_check

try:
    triton: Any = importlib.import_module("triton")
    tl: Any = importlib.import_module("triton.language")
except ImportError:
    triton = tl = None
constexpr: Any = None if tl is None else tl.constexpr


@no_type_check
def weigh_pairs(
    queries,
    all_keys,
    weights,
    peaks,
    to_hidden,
    from_hidden,
    inside,
    outside,
    q_text,
    q_head,
    q_row,
    k_text,
    k_head,
    k_row,
    w_text,
    w_head,
    w_row,
    p_text,
    p_head,
    p_row,
    heads,
    begin,
    rows,
    keys,
    width,
    per_program,
    into_network,
    scale,
    leak,
    causal: constexpr,
    all_width: constexpr,
    block_keys: constexpr,
    precision: constexpr,
    all_heads: constexpr,
    all_units: constexpr,
    block_rows: constexpr,
    group: constexpr,
):
    """The weights of `block_rows` queries of one text in all heads, `per_program` blocks of keys one after the other.

    A weight is 2^(logit - peak); the peak of a row and a block of keys is the next whole number above its logits, so
    weights of several blocks can be brought to one peak without rounding.
    """
    text = tl.program_id(2).to(tl.int64)
    local = tl.program_id(1) * block_rows + tl.arange(0, block_rows)
    row, column = begin + local, tl.arange(0, block_keys)
    head, unit, place = tl.arange(0, all_heads), tl.arange(0, group), tl.arange(0, all_width)
    of_head, of_place = (head < heads)[:, None, None], (place < width)[None, None, :]
    q_at = q_head * head[:, None, None] + q_row * row[None, :, None] + place[None, None, :]
    query = tl.load(queries + text * q_text + q_at, mask=of_head & (row < rows)[None, :, None] & of_place, other=0.0)

    stop = keys
    if causal:
        stop = tl.minimum(keys - rows + begin + (tl.program_id(1) + 1) * block_rows, keys)
    low = tl.program_id(0) * per_program * block_keys
    high = tl.minimum(low + per_program * block_keys, stop)
    # Offset 1 - rows stands at `block_keys` in the tables, and row r is at position keys - rows + r.
    offset = tl.reshape(row[:, None] - column[None, :] + (keys - 1 + block_keys), [block_rows * block_keys])
    inside_at = offset[:, None] * all_units + unit[None, :]
    outside_at = offset[:, None] * all_heads + head[None, :]
    k_at = k_head * head[:, None, None] + k_row * column[None, None, :] + place[None, :, None]
    w_at = w_head * head[:, None, None] + w_row * local[None, :, None] + column[None, None, :]
    p_at = p_head * head[None, :] + p_row * local[:, None]
    w_real, p_real = of_head & (row < rows)[None, :, None], (head < heads)[None, :] & (row < rows)[:, None]
    for start in range(low, high, block_keys):
        start = tl.multiple_of(start, block_keys)
        key = start + column
        k_real = of_head & (place < width)[None, :, None] & (key < keys)[None, None, :]
        some_keys = tl.load(all_keys + text * k_text + start.to(tl.int64) * k_row + k_at, mask=k_real, other=0.0)
        products = tl.dot(query, some_keys, input_precision=precision)

        # From here on a row is a pair of tokens, with all heads beside each other.
        pairs = tl.reshape(tl.permute(products, (1, 2, 0)), [block_rows * block_keys, all_heads])
        read = (pairs * into_network).to(to_hidden.dtype.element_ty)
        logits = pairs * scale + tl.load(outside - start * all_heads + outside_at)
        for first in tl.static_range(0, all_units, group):
            into = tl.load(to_hidden + head[:, None] * all_units + (first + unit)[None, :])
            out_of = tl.load(from_hidden + (first + unit)[:, None] * all_heads + head[None, :])
            units = tl.load(inside - start * all_units + first + inside_at)
            units = tl.dot(read, into, acc=units, input_precision=precision)
            units = tl.maximum(units, units * leak).to(to_hidden.dtype.element_ty)
            logits = tl.dot(units, out_of, acc=logits, input_precision=precision)

        logits = tl.reshape(logits, [block_rows, block_keys, all_heads])
        if not causal:
            logits = tl.where((key < keys)[None, :, None], logits, float("-inf"))
        peak = tl.ceil(tl.max(logits, 1))
        share = tl.exp2(logits - tl.where(peak == float("-inf"), 0.0, peak)[:, None, :])
        share = tl.permute(share.to(weights.dtype.element_ty), (2, 0, 1))
        tl.store(weights + text * w_text + start + w_at, share, mask=w_real)
        tl.store(peaks + text * p_text + start // block_keys + p_at, peak, mask=p_real)


@no_type_check
def add_values(
    weights,
    factors,
    values,
    out,
    w_text,
    w_head,
    w_row,
    p_text,
    p_head,
    p_row,
    v_text,
    v_head,
    v_row,
    out_text,
    out_head,
    out_row,
    begin,
    rows,
    keys,
    width,
    causal: constexpr,
    all_width: constexpr,
    block_keys: constexpr,
    precision: constexpr,
    block_rows: constexpr,
):
    """The context of `block_rows` queries of one head: values by weights, each block of keys by its factor."""
    # The last rows see most keys and start first, so that no long program is left at the end.
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    head, text = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    local = block * block_rows + tl.arange(0, block_rows)
    row, column, place = begin + local, tl.arange(0, block_keys), tl.arange(0, all_width)
    real, of_place = row < rows, (place < width)[None, :]
    last, stop = row * 0 + keys - 1, keys
    if causal:
        last = keys - rows + row
        stop = tl.minimum(keys - rows + begin + (block + 1) * block_rows, keys)
    weight = tl.zeros([block_rows], tl.float32)
    context = tl.zeros([block_rows, all_width], tl.float32)
    w_from = weights + text * w_text + head * w_head + local[:, None] * w_row + column[None, :]
    p_from = factors + text * p_text + head * p_head + local * p_row
    v_from, v_at = values + text * v_text + head * v_head, column[:, None] * v_row + place[None, :]
    for start in range(0, stop, block_keys):
        start = tl.multiple_of(start, block_keys)
        key = start + column
        factor = tl.load(p_from + start // block_keys, mask=real & (start <= last), other=0.0)
        share = tl.load(w_from + start, mask=real[:, None], other=0.0)
        # What no query of a program sees was never written.
        share = tl.where(key[None, :] <= last[:, None], share, 0.0)
        share = share * factor.to(share.dtype)[:, None]
        some_values = tl.load(
            v_from + start.to(tl.int64) * v_row + v_at, mask=(key < keys)[:, None] & of_place, other=0.0
        )
        weight += tl.sum(share.to(tl.float32), 1)
        context = tl.dot(share, some_values, acc=context, input_precision=precision)
    context = context / tl.where(real, weight, 1.0)[:, None]
    out_at = text * out_text + head * out_head + row[:, None] * out_row + place[None, :]
    tl.store(out + out_at, context.to(out.dtype.element_ty), mask=real[:, None] & of_place)
