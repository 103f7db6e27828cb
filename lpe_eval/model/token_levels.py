"""Levels of tokens that sum up along a text (FoX, CABLE): a pair's bias is the difference of its two tokens' levels.

Sums are float64, and only the difference of two of them is rounded: at 16,384 tokens with forget gates near one half
float32 sums differ from each other by 5e-4 more or less than they should, for neighbours as for others. A device
without float64 (Apple's) gets sums that were formed on the CPU and rounded, so there that error stays.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lpe_eval.model.descriptions import LevelBias
from lpe_eval.model.gpu import device_of_float64
from lpe_eval.model.scores import Scores


def summed_up(each: Float[Tensor, "b h t"]) -> Float[Tensor, "b h t 1"]:
    """The sum of every token's number and those before it, as the features of tokens."""
    there = device_of_float64(each.device)
    sums = each.to(there).double().cumsum(dim=-1)[..., None]
    return sums if there == each.device else sums.float().to(each.device)


def with_levels(scores: Scores, causal: bool) -> Float[Tensor, "b h q k"]:
    """The logits and biases of a block plus the level of each query less that of each key, which is at least that.

    Where the future is visible, levels that fall along the text give a pair the same on either side: what is
    summed up between the two tokens.
    """
    of_queries, of_keys = scores.query_features, scores.key_features
    assert of_queries is not None
    assert of_keys is not None
    difference = of_queries - of_keys.transpose(-1, -2)
    added = difference if causal else -difference.abs()
    logits = (scores.logits + added).to(scores.logits.dtype)
    return logits if scores.bias is None else logits + scores.bias


def described(causal: bool) -> LevelBias | None:
    """`with_levels` for a path that can use it."""
    return LevelBias(lambda features: features[..., 0]) if causal else None


def log_sigmoid_of(x: Float[Tensor, "b t e"], gate: torch.nn.Linear) -> Float[Tensor, "b h t"]:
    """log sigmoid of a linear function of each token, one for each head, in float32 at least."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    bias = None if gate.bias is None else gate.bias.to(dtype)
    logits = torch.nn.functional.linear(x.to(dtype), gate.weight.to(dtype), bias)
    return torch.nn.functional.logsigmoid(logits).transpose(1, 2)
