"""A direct loop over a model of `transformers`, and ours over what we opened, on the same windows of one text."""

from typing import Any

import torch

from lpe_eval.data.batch import Batch
from lpe_eval.measure.score import target_losses
from lpe_eval.model.language_model import LanguageModel

TEXT = torch.randint(61, (1, 241), generator=torch.Generator().manual_seed(5))
"""Tokens that every vocabulary of the tests has."""


def our_loss(model: LanguageModel, length: int) -> float:
    """Mean nats over non-overlapping windows: each target once, with what its window holds before it."""
    total = 0.0
    for start in range(0, TEXT.shape[1] - 1, length):
        piece = TEXT[:, start : start + length + 1]
        batch = Batch(piece[:, :-1], piece[:, 1:], torch.ones_like(piece[:, 1:], dtype=torch.bool))
        total += target_losses(model, batch, torch.Generator().manual_seed(0)).double().sum().item()
    return total / (TEXT.shape[1] - 1)


@torch.no_grad()
def their_loss(model: Any, length: int, **arguments: Any) -> float:
    """The same over a module that takes tokens and returns an output with `logits`, a tuple of them, or them."""
    total = 0.0
    for start in range(0, TEXT.shape[1] - 1, length):
        piece = TEXT[:, start : start + length + 1]
        made = model(piece[:, :-1], **arguments)
        scores = getattr(made, "logits", made[0] if isinstance(made, tuple) else made)
        total += torch.nn.functional.cross_entropy(scores[0].double(), piece[0, 1:], reduction="sum").item()
    return total / (TEXT.shape[1] - 1)
