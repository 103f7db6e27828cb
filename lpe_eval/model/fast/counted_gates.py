"""Keys counted back from the query by gates (CoPE), on the CPU and without gradients, only as far as it matters.

Gates are never negative, so a head stops counting where all its rows have reached the last position. Heads of trained
models mostly do so within a few hundred keys.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_KEYS_AT_ONCE = 256
"""Keys counted before it is looked whether there is more to count."""


def counted_within_reach(
    logits: Float[Tensor, "b h q k"],
    visible: Bool[Tensor, "q k"],
    of_whole: Float[Tensor, "b h q n"],
    causal: bool,
) -> Float[Tensor, "b h q k"] | None:
    """Logits plus what each query has at the position of each key; None where no rows stop counting early.

    Args:
        logits: whose sigmoids are the gates.
        visible: which keys are counted.
        of_whole: what each query has at each whole position.
        causal: whether nothing but the past is counted.
    """
    if torch.is_grad_enabled() or logits.device.type != "cpu" or not causal:
        return None
    last, columns = of_whole.shape[-1] - 1, logits.shape[-1]
    out = logits + of_whole[..., -1:]
    for head, vectors, positioned in zip(*(each.flatten(0, 1) for each in (logits, of_whole, out)), strict=True):
        counted = head.new_zeros(len(head), 1)
        for stop in range(columns, 0, -_KEYS_AT_ONCE):
            keys = slice(max(0, stop - _KEYS_AT_ONCE), stop)
            gates = head[:, keys].sigmoid().mul_(visible[:, keys])
            position = gates.flip(-1).cumsum(-1).flip(-1).add_(counted)
            counted = position[:, :1].clone()
            bias = between_whole(vectors, position.clamp_(max=last))
            torch.add(head[:, keys], bias, out=positioned[:, keys])
            if counted.min() >= last:
                break
    return out


def between_whole(of_whole: Float[Tensor, "*c q n"], position: Float[Tensor, "*c q k"]) -> Float[Tensor, "*c q k"]:
    """What the rows of `of_whole` have at positions between whole ones, interpolated linearly."""
    below, above = position.detach().floor().long(), position.detach().ceil().long()
    weight = position - below
    return of_whole.gather(-1, below) * (1 - weight) + of_whole.gather(-1, above) * weight
