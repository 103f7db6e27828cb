"""How long a run will take: two short forward passes, and a straight line through them.

A forward pass of n tokens costs a * n for the matrices and b * n^2 for attention; both are read off
one pass of 256 and one of 1024 tokens. An estimate, good to perhaps a factor of two.
"""

import time
from collections.abc import Iterable

import torch

from lpe_eval.measure.by_length import Plan, distinct_inputs
from lpe_eval.model.language_model import LanguageModel

_SHORT, _LONG = 256, 1024


@torch.inference_mode()
def seconds_for(model: LanguageModel, plans: Iterable[Plan]) -> float:
    """Estimated seconds in the model for all windows of `plans`.

    Raises:
        LengthError: the model cannot be run at 1024 tokens.
    """
    short, long = _seconds(model, _SHORT), _seconds(model, _LONG)
    square = max(0.0, (long / _LONG - short / _SHORT) / (_LONG - _SHORT))
    line = max(0.0, short / _SHORT - square * _SHORT)
    return sum(line * n + square * n * n for plan in plans for n in distinct_inputs(plan))


def _seconds(model: LanguageModel, length: int) -> float:
    tokens = torch.zeros(1, length, dtype=torch.long, device=model.device)
    taken: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        hidden = model.hidden(tokens, length, torch.Generator().manual_seed(0))
        model.logits(hidden.flatten(0, 1)).sum().item()
        taken.append(max(time.perf_counter() - began, 0.0))
    return min(taken)
