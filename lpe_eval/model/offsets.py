"""Offsets i - j between queries and keys, and a matrix from what each offset has."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model.positions import known_of

_CELLS_WORTH_LOOKING = 1 << 16
"""Above so many cells, what is known of a GPU's positions matters: 256 tokens by 256."""


def spread_offsets(
    by_offset: Callable[[Int[Tensor, " n"]], Float[Tensor, "h n"] | None],
    q_at: Int[Tensor, " q"],
    k_at: Int[Tensor, " k"],
) -> Float[Tensor, "h q k"]:
    """A Toeplitz bias from its values by offset, each distinct offset computed once.

    Consecutive positions are served as sliding views of one row of values, without any copy if
    the queries run backwards; sampled ones are looked up, or computed one by one when their range
    is wider than the matrix. On a GPU small matrices are computed cell by cell, and so are positions of which
    nothing is known.
    """
    rows, columns = len(q_at), len(k_at)
    if not worth_looking(q_at, k_at):
        return _cell_by_cell(by_offset, q_at, k_at)
    q, k = known_of(q_at), known_of(k_at)
    if q is None or k is None:
        return _sampled(by_offset, q_at, k_at)
    if (q.step == -1 or rows == 1) and (k.step == 1 or columns == 1):
        first = q.first - k.first
        values = by_offset(torch.arange(first, first - rows - columns + 1, -1, device=q_at.device))
        assert values is not None
        # Row r of the matrix runs over the offsets first - r down to first - r - columns + 1.
        return values.unfold(-1, columns, 1)
    if q.step == 1 and (k.step == 1 or columns == 1):
        first = q.first - k.last
        values = by_offset(torch.arange(first, first + rows + columns - 1, device=q_at.device))
        assert values is not None
        # Row r of the matrix runs over the offsets first + r + columns - 1 down to first + r.
        return values.unfold(-1, columns, 1).flip(-1)
    return _sampled(by_offset, q_at, k_at)


def _sampled(
    by_offset: Callable[[Int[Tensor, " n"]], Float[Tensor, "h n"] | None],
    q_at: Int[Tensor, " q"],
    k_at: Int[Tensor, " k"],
) -> Float[Tensor, "h q k"]:
    if q_at.device.type == "cpu":
        offset = q_at[:, None] - k_at[None, :]
        low, high = int(offset.min()), int(offset.max())
        if high - low < offset.numel():
            values = by_offset(torch.arange(low, high + 1))
            assert values is not None
            return values[:, offset - low]
    return _cell_by_cell(by_offset, q_at, k_at)


def _cell_by_cell(
    by_offset: Callable[[Int[Tensor, " n"]], Float[Tensor, "h n"] | None],
    q_at: Int[Tensor, " q"],
    k_at: Int[Tensor, " k"],
) -> Float[Tensor, "h q k"]:
    offset = q_at[:, None] - k_at[None, :]
    values = by_offset(offset.flatten())
    assert values is not None
    return values.unflatten(-1, offset.shape)


def worth_looking(q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> bool:
    """Whether what is known of the positions may decide how a matrix over them is computed.

    On a GPU every cell of a small matrix is computed as fast as one row of values.
    """
    return q_at.device.type == "cpu" or len(q_at) * len(k_at) > _CELLS_WORTH_LOOKING


def distances(offset: Int[Tensor, "..."], causal: bool, dtype: torch.dtype = torch.float32) -> Float[Tensor, "..."]:
    """How far a key is from its query: i - j, and |i - j| where the future is visible.

    For a causal model the future, which nobody looks at, gets distance zero, so that no
    kernel overflows there. `dtype` rounds the distances: published code builds them in the
    compute dtype, and bfloat16 holds integers exactly only to 256.
    """
    return (offset.clamp(min=0) if causal else offset.abs()).to(dtype).float()
