"""Attention whose keys lie in several ranges, each with queries and keys of its own, merged by log-sum-exp.

A block of query rows sees of each range a rectangle of keys and, where a bound goes with the query, a triangle. So
every piece is plain attention with a causal mask or none, and nothing of the size of the logits is kept:

    rows of a block      near             far                       first: below it keys are hidden
    . . u u u u n n n    u: upper         f: rectangle              beyond: from it on keys are hidden
    f . . u u u n n n    n: rectangle     .: lower triangle
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lpe_eval.model.gpu import device_of_float64
from lpe_eval.model.parts import Part, attend_part, has_parts
from lpe_eval.model.products import products
from lpe_eval.model.remaps import DistanceMap, KeyRange
from lpe_eval.model.rotary import Rotation, turned_to

Piece = Callable[[Tensor, Tensor, Tensor, bool], Part]
"""Attention of queries to keys and values; with True, row r sees the first r + 1 keys."""


class _Seen(NamedTuple):
    """Which rows of a block see which keys, and how."""

    rows: slice
    keys: slice
    how: str
    """all: every row sees every key; lower: row r the first r + 1; upper: row r all from r on."""


def attend_in_ranges(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d2"],
    distances: DistanceMap,
    rotation: Rotation,
    block: int,
    piece: Piece,
) -> Float[Tensor, "b h q d2"]:
    """The context of each query of a causal text that begins at position 0.

    Args:
        q: queries turned to their positions; when there are fewer than keys they are the last rows.
        k: keys turned to theirs.
        v: values.
        distances: in which range a key is, and where its query and it are turned to.
        rotation: what queries and keys have behind them.
        block: query rows at once.
        piece: how a piece is computed.
    """
    length, start = k.shape[2], k.shape[2] - q.shape[2]
    at = torch.arange(length, device=q.device)
    turned = [_turned(q, k, at, start, each, rotation) for each in distances.ranges]
    contexts = []
    for rows in _blocks(start, length, distances.period, block):
        merged: _Merged | None = None
        for keys_of, (queries, keys) in zip(distances.ranges, turned, strict=True):
            for part in _seen(keys_of, rows):
                some = slice(rows.start - start + part.rows.start, rows.start - start + part.rows.stop)
                found = _attend(queries[:, :, some], keys[:, :, part.keys], v[:, :, part.keys], part.how, piece)
                merged = merged or _Merged(found, rows.stop - rows.start)
                merged.add(part.rows, found)
        assert merged is not None
        contexts.append(merged.context.to(v.dtype))
    return torch.cat(contexts, dim=2)


class _Merged:
    """The rows of a block, as far as the pieces go that have been added."""

    def __init__(self, like: Part, rows: int) -> None:
        context, total = like
        self.context = context.new_zeros((*context.shape[:2], rows, context.shape[3]), dtype=total.dtype)
        self.total = total.new_full((*total.shape[:2], rows), float("-inf"))

    def add(self, rows: slice, found: Part) -> None:
        context, total = found
        before = self.total[:, :, rows]
        after = torch.logaddexp(before, total)
        old, new = (before - after).exp()[..., None], (total - after).exp()[..., None]
        self.context[:, :, rows] = self.context[:, :, rows] * old + context * new
        self.total[:, :, rows] = after


def _turned(q: Tensor, k: Tensor, at: Tensor, start: int, keys: KeyRange, rotation: Rotation) -> tuple[Tensor, Tensor]:
    if not keys.mapped:
        return q, k
    exact = at.to(device_of_float64(at.device))
    of_queries, of_keys = keys.query(exact[start:]), keys.key(exact)
    return turned_to(q, at[start:], of_queries, rotation), turned_to(k, at, of_keys, rotation)


def _blocks(start: int, length: int, period: int, block: int) -> Iterator[slice]:
    """Rows in blocks of equal size that cross no multiple of the period."""
    # As many as one period holds whole: fewer, larger blocks, since the kernel gains from many rows.
    size = -(-period // max(1, period // block)) if period < length else block
    while start < length:
        stop = min(start + size, length, (start // period + 1) * period)
        yield slice(start, stop)
        start = stop


def _seen(keys: KeyRange, rows: slice) -> Iterator[_Seen]:
    """What the rows of a block see of a range; no more rows than the period, so both triangles never overlap."""
    ends = torch.tensor([rows.start, rows.stop - 1])
    (first, last_first), (beyond, last_beyond) = keys.first(ends).tolist(), keys.beyond(ends).tolist()
    count = rows.stop - rows.start
    if last_first > first:
        # The last row sees none of these keys.
        yield _Seen(slice(0, count - 1), slice(first, last_first), "upper")
    if last_beyond > beyond:
        # A key that every row sees joins the triangle, which then is one of all rows.
        beyond -= 1
        yield _Seen(slice(0, count), slice(beyond, last_beyond), "lower")
    if beyond > last_first:
        yield _Seen(slice(0, count), slice(last_first, beyond), "all")


def _attend(queries: Tensor, keys: Tensor, values: Tensor, how: str, piece: Piece) -> Part:
    if how != "upper":
        return piece(queries, keys, values, how == "lower")
    # Upside down and back to front, an upper triangle is a lower one.
    context, total = piece(queries.flip(2), keys.flip(2), values.flip(2), True)
    return Part(context.flip(2), total.flip(2))


def plain_piece(scale: float, cap: float | None = None) -> Piece:
    """Logits of a piece in float32, whole.

    Args:
        scale: of the products.
        cap: logits s become cap * tanh(s / cap).
    """

    def attend(queries: Tensor, keys: Tensor, values: Tensor, causal: bool) -> Part:
        logits = products(queries, keys, scale)
        if cap is not None:
            logits = (logits / cap).tanh_().mul_(cap)
        if causal:
            rows, columns = logits.shape[-2:]
            hidden = torch.ones(rows, columns, dtype=torch.bool, device=logits.device).triu_(1)
            logits = logits.masked_fill_(hidden, float("-inf"))
        total = logits.logsumexp(dim=-1)
        weights = logits.sub_(total[..., None]).exp_()
        return Part(weights.to(values.dtype) @ values, total)

    return attend


def fused_piece(scale: float) -> Piece | None:
    """PyTorch's fused attention for the CPU; None where this PyTorch does not give what it takes to merge."""
    if not has_parts():
        return None
    return lambda queries, keys, values, causal: attend_part(queries, keys, values, causal=causal, scale=scale)


def repeated(x: Float[Tensor, "b g t d"], heads: int) -> Float[Tensor, "b h t d"]:
    """Keys or values of grouped heads, once for each query head."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)
