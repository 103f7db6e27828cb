"""The loss of every scored target: float32 log-softmax, logits made only where tokens count.

Summing is left to float64 on the caller's side; nothing here averages.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.data.batch import Batch
from lpe_eval.model.language_model import LanguageModel

_CHUNK_LOGITS = 1 << 23
"""Logits made at once: 32 MiB of float32, whatever the vocabulary."""

_CHUNK_LOGITS_GPU = 1 << 26
"""The same on a GPU, which 167 rows of a vocabulary of 50,000 would leave idle: 256 MiB."""


@torch.inference_mode()
def target_losses(model: LanguageModel, batch: Batch, generator: torch.Generator) -> Float[Tensor, "b r"]:
    """Nats of the last r targets of each window, from the first that any window scores to the end.

    Columns before a window's own first scored target are computed and meant to be ignored.

    Args:
        model: what is measured.
        batch: windows of one length; `targets` are shifted already.
        generator: source of sampled positions.

    Raises:
        LengthError: the model has no position for some of the tokens.
    """
    length = batch.tokens.shape[1]
    rows = length - int(batch.scored.any(dim=0).int().argmax())
    hidden = model.hidden(batch.tokens, rows, generator)
    targets = batch.targets[:, length - rows :].reshape(-1)
    losses = chunked_losses(model, hidden.flatten(0, 1), targets)
    return losses.unflatten(0, (-1, rows))


def chunked_losses(
    model: LanguageModel, hidden: Float[Tensor, "n e"], targets: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Cross-entropy of each target in float32, the logits of a limited number of rows at a time."""
    at_once = _CHUNK_LOGITS if hidden.device.type == "cpu" else _CHUNK_LOGITS_GPU
    rows = max(1, at_once // model.facts.vocab_size)
    losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    for some, wanted, found in zip(hidden.split(rows), targets.split(rows), losses.split(rows), strict=True):
        # A small result of its own for each chunk would lie between the chunks' memory, and none of it be used again.
        found.copy_(torch.nn.functional.cross_entropy(model.logits(some).float(), wanted, reduction="none"))
    return losses
