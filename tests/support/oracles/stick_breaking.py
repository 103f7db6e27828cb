"""Stick-breaking: A_ij = s(z_ij) times the product of 1 - s(z_il) over l = j+1 .. i-1, for j < i, z = q . k / sqrt(d).

s is the sigmoid. With the query's own key j <= i, and the product runs to i. What a row's weights leave of 1 is its
remainder, which goes to the query's own value where it is wanted.
"""

import torch
from torch import Tensor

from tests.support.golden_cases import Case
from tests.support.oracles.pairs import heads_of, of_pairs, products

WRONG = (
    *("q.k unscaled", "other diagonal", "key's own factor included", "product from the start", "normalised"),
    "no remainder",
)


def outputs(case: Case, slip: str = "") -> dict[str, Tensor]:
    q, k, v = heads_of(case, "q", "k", "v")
    taken = (products(q, k) * (1 if slip == "q.k unscaled" else q.shape[-1] ** -0.5)).sigmoid()
    own_key = bool(case.fields["attend_current"]) != (slip == "other diagonal")

    def of(i: int, j: int) -> Tensor:
        if j == i and not own_key:
            return torch.zeros_like(taken[:, :, i, j])
        nearer = range(j + (slip != "key's own factor included"), i + own_key)
        left = torch.ones_like(taken[:, :, i, j])
        for token in range(j) if slip == "product from the start" else nearer:
            left = left * (1 - taken[:, :, i, token])
        return taken[:, :, i, j] * left

    weights = of_pairs(of, q.shape[2])
    if slip == "normalised":
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)
    rest, context = 1 - weights.sum(-1), weights @ v
    whole = context if slip == "no remainder" else context + rest[..., None] * v
    return {"weights": weights, "remainder": rest, "context": context, "context_with_remainder": whole}
