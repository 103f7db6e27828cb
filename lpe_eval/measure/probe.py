"""Before a causal model is measured, one short forward pass asks whether it sees the future.

A leak makes perplexity better than it is, silently, so it is refused and not measured.
"""

import torch

from lpe_eval.errors import CausalLeakError
from lpe_eval.model.language_model import LanguageModel

_TOKENS = 48
_TOLERANCE = 1e-3
"""Of the spread of the hidden states: far above rounding in bfloat16 kernels' block sizes, far below a leak."""


@torch.inference_mode()
def refuse_leak(model: LanguageModel) -> None:
    """Changes the second half of a random text and compares the hidden states of the first half.

    Raises:
        CausalLeakError: they differ.
    """
    draw = torch.Generator().manual_seed(0)
    vocabulary, half = model.facts.vocab_size, _TOKENS // 2
    tokens = torch.randint(vocabulary, (1, _TOKENS), generator=draw)
    changed = tokens.clone()
    # A shift by less than the vocabulary leaves no token as it was.
    shift = torch.randint(1, max(2, vocabulary), (1, _TOKENS - half), generator=draw)
    changed[:, half:] = (changed[:, half:] + shift) % vocabulary
    before, after = (
        model.hidden(each.to(model.device), _TOKENS, torch.Generator().manual_seed(0))[:, :half].double()
        for each in (tokens, changed)
    )
    change = (before - after).abs().max().item()
    if change > _TOLERANCE * before.std().item() + 1e-12:
        raise CausalLeakError(
            f"{model.facts.name} sees the future: changing token {half} and later moved the hidden states before it "
            f"by up to {change:.3g}; its perplexity would mean nothing"
        )
