"""Before a causal model is measured, one short forward pass asks whether it sees the future.

A leak makes perplexity better than it is, silently, so it is refused and not measured.
"""

import torch

from lpe_eval.errors import CausalLeakError, LengthError
from lpe_eval.model.language_model import LanguageModel

_TOKENS = (48, 16, 4, 2)
"""Tokens of the probe; the shorter ones are for models that have fewer positions."""

_TOLERANCE = 1e-3
"""Of the spread of the hidden states: far above rounding in bfloat16 kernels' block sizes, far below a leak."""


def refuse_leak(model: LanguageModel) -> None:
    """Changes the second half of a random text and compares the hidden states of the first half.

    Raises:
        CausalLeakError: they differ.
        LengthError: the model cannot be run at two tokens.
    """
    for tokens in _TOKENS:
        try:
            return _refuse_leak(model, tokens)
        except LengthError:
            if tokens == _TOKENS[-1]:
                raise
    return None


@torch.inference_mode()
def _refuse_leak(model: LanguageModel, length: int) -> None:
    draw = torch.Generator().manual_seed(0)
    vocabulary, half = model.facts.vocab_size, length // 2
    tokens = torch.randint(vocabulary, (1, length), generator=draw)
    changed = tokens.clone()
    # A shift by less than the vocabulary leaves no token as it was.
    shift = torch.randint(1, max(2, vocabulary), (1, length - half), generator=draw)
    changed[:, half:] = (changed[:, half:] + shift) % vocabulary
    before, after = (
        model.hidden(each.to(model.device), length, torch.Generator().manual_seed(0))[:, :half].double()
        for each in (tokens, changed)
    )
    change = (before - after).abs().max().item()
    if change > _TOLERANCE * before.std().item() + 1e-12:
        raise CausalLeakError(
            f"{model.facts.name} sees the future: changing token {half} and later moved the hidden states before it "
            f"by up to {change:.3g}; its perplexity would mean nothing"
        )
