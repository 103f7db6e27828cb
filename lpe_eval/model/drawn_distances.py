"""Positions and distances that are drawn, and how drawn distances travel as positions.

What travels is 0 followed by the drawn distances, an ascending sequence. Since a block's keys are the sequence
from its start and include the block's queries, the rank of a query among the keys is its index, and the distance of
two tokens is found in the keys' own positions. With two sides one integer holds both draws.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from lpe_eval.model.encoding import Scores

_SIDE_BITS = 32


def draw_ascending(count: int, low: int, high: int, generator: torch.Generator) -> Int[Tensor, " n"]:
    """`count` distinct integers of low .. high-1, each subset equally likely, in ascending order."""
    shuffled = torch.randperm(high - low, generator=generator, device=generator.device)
    return shuffled[:count].sort().values + low


def two_sides(past: Int[Tensor, " t"], future: Int[Tensor, " t"]) -> Int[Tensor, " t"]:
    """Two ascending sequences of distances in one ascending sequence of integers."""
    return past.long() + (future.long() << _SIDE_BITS)


def drawn_offsets(
    q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"], both_sides: bool = False
) -> tuple[Int[Tensor, " n"], Int[Tensor, "q k"]]:
    """The drawn offsets, and which of them each query has to each key: positive for the past, zero for itself.

    Args:
        q_at: entries of `k_at` that belong to the queries.
        k_at: 0 followed by the ascending drawn distances, from the first token on; packed by `two_sides`
            if `both_sides`.
        both_sides: whether past and future have distances of their own.
    """
    rank = torch.searchsorted(k_at.contiguous(), q_at.contiguous())
    # A GPU would have to be waited for.
    assert k_at.device.type != "cpu" or torch.equal(k_at[rank], q_at), "the queries of a block are among its keys"
    past, future = (k_at & ((1 << _SIDE_BITS) - 1), k_at >> _SIDE_BITS) if both_sides else (k_at, k_at)
    steps = rank[:, None] - torch.arange(len(k_at), device=k_at.device)
    return torch.cat([-future[1:].flip(0), past]), steps + len(k_at) - 1


def one_row(scores: Scores, row: int, offset: Int[Tensor, " k"]) -> Scores:
    """One query row of a block, its query at position 0 and each key at minus its offset."""
    rows, features = slice(row, row + 1), scores.query_features
    return Scores(
        logits=scores.logits[:, :, rows],
        bias=None if scores.bias is None else scores.bias[:, rows],
        queries=scores.queries[:, :, rows],
        keys=scores.keys,
        visible=scores.visible[rows],
        q_at=offset.new_zeros(1),
        k_at=-offset,
        query_features=None if features is None else features[:, :, rows],
        key_features=scores.key_features,
    )
