"""What a model says of the tokens that windows ask for: batches, forward passes, and what is read from the logits.

Choices:
    * Logits are made of asked tokens only, a limited number at a time, in float32.
    * All windows of a trial are always fed together, in the same batches, whatever an earlier start has finished: the
      last bits of a loss may depend on what stands in a batch with it.
    * A batch that memory does not hold is halved and tried again.
    * Every pass starts from the same draw of sampled positions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.errors import CheckpointError
from lpe_eval.measure.batches import release
from lpe_eval.measure.layers import told_by_layer
from lpe_eval.measure.progress import Advance
from lpe_eval.measure.recall.trial import Scored, Window
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.model.needed_memory import free_memory, shortfall
from lpe_eval.out_of_memory import out_of_memory

_LOGITS, _LOGITS_GPU = 1 << 23, 1 << 26
"""Logits made at once."""


def fed(window: Window, bos: bool) -> int:
    """Tokens that are fed, BOS included."""
    return len(window.tokens) - 1 + bos


def score(
    model: LanguageModel,
    windows: Sequence[Window],
    *,
    bos_id: int | None,
    batch_tokens: int,
    seed: int,
    advance: Advance,
) -> list[Scored]:
    """The scores of all windows, in their order.

    Args:
        model: what is asked.
        windows: with the same number of candidates, or none, each.
        bos_id: the token before every window; None where there is none.
        batch_tokens: token budget of a batch.
        seed: of sampled positions.
        advance: told of tokens.

    Raises:
        LengthError: the model has no position for some of the tokens.
        CheckpointError: a token has no symbol, or memory does not hold a single window.
    """
    kinds: dict[tuple[int, int], list[int]] = {}
    for at, window in enumerate(windows):
        kinds.setdefault((fed(window, bos_id is not None), _rows(window)), []).append(at)
    _refuse_what_cannot_be(model, windows, max((length for length, _ in kinds), default=0))
    found: dict[int, Scored] = {}
    for (length, rows), left in sorted(kinds.items(), reverse=True):
        size = max(1, batch_tokens // length)
        with told_by_layer(model, advance) as passes:
            while left:
                batch = left[:size]
                passes.begin(length * len(batch))
                scored = None
                try:
                    scored = _scores(model, [windows[at] for at in batch], rows, bos_id, seed)
                except Exception as error:
                    if len(batch) == 1 or not out_of_memory(error):
                        raise
                if scored is None:
                    # Not before: until here the error held all that was computed when it was raised.
                    passes.fail()
                    size = len(batch) // 2
                    release(model.device)
                    continue
                found.update(zip(batch, scored, strict=True))
                left = left[len(batch) :]
                passes.end()
    return [found[at] for at in range(len(windows))]


def _rows(window: Window) -> int:
    """Hidden states that are needed, from the one before the first asked token to the last that is fed."""
    return len(window.tokens) - int(window.asked[0])


def _refuse_what_cannot_be(model: LanguageModel, windows: Sequence[Window], length: int) -> None:
    highest = max((int(window.tokens.max()) for window in windows), default=-1)
    if highest >= model.facts.vocab_size:
        raise CheckpointError(f"a prompt holds the token {highest} and the model has {model.facts.vocab_size} symbols")
    least = model.least_bytes(length) if model.device.type == "cpu" else 0
    if short := shortfall(0, 0, least, free_memory()):
        raise CheckpointError(f"a window of {length} tokens {short}")


@torch.inference_mode()
def _scores(model: LanguageModel, windows: Sequence[Window], rows: int, bos_id: int | None, seed: int) -> list[Scored]:
    tokens = torch.from_numpy(np.stack([window.tokens for window in windows]))
    before = [] if bos_id is None else [tokens.new_full((len(tokens), 1), bos_id)]
    inputs = torch.cat([*before, tokens[:, :-1]], dim=1).to(model.device)
    states = model.hidden(inputs, rows, torch.Generator().manual_seed(seed))
    # The state that predicts the token at a place is the one of the token before it.
    first = len(windows[0].tokens) - rows
    wanted = torch.cat([states[at, torch.from_numpy(each.asked - first)] for at, each in enumerate(windows)])
    targets = torch.cat([tokens[at, torch.from_numpy(each.asked)] for at, each in enumerate(windows)])
    held = [each.candidates for each in windows if each.candidates is not None]
    candidates = torch.from_numpy(np.concatenate(held)) if held else None
    nats, top, choices = _read(model, wanted, targets.to(model.device), candidates)
    sizes = np.cumsum([len(each.asked) for each in windows])[:-1]
    parts = [np.split(nats, sizes), np.split(top, sizes)]
    told = np.split(choices, sizes) if choices is not None else [None] * len(windows)
    return [Scored(*each) for each in zip(*parts, told, strict=True)]


def _read(
    model: LanguageModel,
    states: Float[Tensor, "n e"],
    targets: Int[Tensor, " n"],
    candidates: Int[Tensor, "n c"] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Nats, shares of the top, and log-probabilities of candidates, in float64 on the CPU."""
    at_once = _LOGITS if states.device.type == "cpu" else _LOGITS_GPU
    size = max(1, at_once // model.facts.vocab_size)
    nats, top, choices = [], [], []
    for start in range(0, len(states), size):
        part = slice(start, start + size)
        logits = model.logits(states[part]).float()
        own = logits.gather(1, targets[part, None])
        highest = logits.amax(1, keepdim=True)
        total = logits.logsumexp(1, keepdim=True)
        nats.append((total - own)[:, 0].cpu())
        # Where several symbols are the likeliest, each is the first guess as often as the others.
        top.append((own == highest)[:, 0].cpu().double() / (logits == highest).sum(1).clamp(min=1).cpu())
        if candidates is not None:
            choices.append((logits.gather(1, candidates[part].to(logits.device)) - total).cpu())
    # On Apple's MPS there is no float64.
    whole = [torch.cat(each).double().numpy() for each in (nats, top)]
    return whole[0], whole[1], torch.cat(choices).double().numpy() if candidates is not None else None
