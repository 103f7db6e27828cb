"""Attention pair by pair, which the formulas of every method share.

Positions i of queries and j of keys count from 0. Everything is float64 and [b, h, t, d] or [b, h, t, t]; the future,
j > i, is 0 and means nothing.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.support.golden_cases import Case, tensor

Sees = Callable[[int, int], bool]
"""Whether the query at i sees the key at j <= i."""


def exact(value: Any) -> Tensor:
    return tensor(value, torch.float64)


def heads_of(case: Case, *names: str) -> list[Tensor]:
    """Inputs with one head for each head of the queries: head h reads key head h // (H / KV)."""
    heads = case.heads or 1
    found = [exact(case.inputs[name]) for name in names]
    return [each[:, [head * each.shape[1] // heads for head in range(heads)]] for each in found]


def of_pairs(of: Callable[[int, int], Tensor], keys: int, rows: int | None = None) -> Tensor:
    """[..., rows, keys] from a number, [...], of each pair with j <= i; rows are the last ones."""
    zero = torch.zeros_like(of(keys - 1, keys - 1))
    table = [[of(i, j) if j <= i else zero for j in range(keys)] for i in range(keys - (rows or keys), keys)]
    return torch.stack([torch.stack(row, dim=-1) for row in table], dim=-2)


def products(q: Tensor, k: Tensor) -> Tensor:
    """q_i . k_j."""
    return of_pairs(lambda i, j: (q[:, :, i] * k[:, :, j]).sum(-1), k.shape[2])


def pairing(width: int, layout: str = "half-split") -> list[tuple[int, int]]:
    """The two channels of each pair that RoPE turns."""
    half = range(width // 2)
    return [(2 * c, 2 * c + 1) for c in half] if layout == "interleaved" else [(c, c + width // 2) for c in half]


def turned(x: Tensor, angles: Sequence[float], pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Vectors [..., d] whose pairs of channels are each turned by an angle."""
    found = x.clone()
    for (a, b), angle in zip(pairs, angles, strict=True):
        found[..., a] = x[..., a] * math.cos(angle) - x[..., b] * math.sin(angle)
        found[..., b] = x[..., b] * math.cos(angle) + x[..., a] * math.sin(angle)
    return found


def turned_products(
    q: Tensor,
    k: Tensor,
    base: float,
    layout: str = "half-split",
    distance: Callable[[int, int], float] = lambda i, j: i - j,
) -> Tensor:
    """RoPE: the query turned by its distance to the key, times the key."""
    width = q.shape[-1]
    pairs, inverse = pairing(width, layout), [base ** (-2 * c / width) for c in range(width // 2)]

    def of(i: int, j: int) -> Tensor:
        return (turned(q[:, :, i], [distance(i, j) * each for each in inverse], pairs) * k[:, :, j]).sum(-1)

    return of_pairs(of, k.shape[2])


def within(window: int | None, slip: str = "") -> Sees:
    """A sliding window: W keys, the query's own among them; None is no window."""
    return lambda i, j: window is None or i - j < window + (slip == "window <= W")


def kept_by(logits: Tensor, sees: Sees = lambda i, j: True, sink: Tensor | None = None) -> Tensor:
    """Softmax over the keys that each query sees, with a logit [h] in the denominator that no key has."""
    weights = torch.zeros_like(logits)
    for i in range(logits.shape[2]):
        keys = torch.tensor([j for j in range(i + 1) if sees(i, j)], dtype=torch.long)
        powers = logits[:, :, i, keys].exp()
        whole = powers.sum(-1) + (0 if sink is None else sink.exp())
        weights[:, :, i, keys] = powers / whole[..., None]
    return weights


def attended(logits: Tensor, v: Tensor, sees: Sees = lambda i, j: True) -> Tensor:
    """What softmax makes of values."""
    return kept_by(logits, sees) @ v
