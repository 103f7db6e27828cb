"""Before a causal model is measured, forward passes ask whether it sees the future.

A leak makes perplexity better than it is, silently, so it is refused and not measured unless somebody asks for it.

Choices:
    * A short text comes first. Then the longest length that will be measured is tried, and shorter ones while they
      are no more than that in all: attention in groups, or chunks that are shifted, leaks at some lengths only. A
      model whose every part is ours is spared that, since its mask is written once and tested at every length.
    * Trying leaves no trace in a model of somebody else: see `model/foreign/module_state.py`.
    * A length that the model cannot run at, or that memory does not hold twice, is passed over; measuring it says why.
    * Activations that are quantised over the whole tensor depend on every token by their scale. What that moves is
      small, and the refusal names it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lpe_eval.errors import CausalLeakError, LengthError
from lpe_eval.measure.determinism import is_not_deterministic
from lpe_eval.model.foreign.module_state import FreshState
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.model.needed_memory import free_memory
from lpe_eval.model.transformer_model import TransformerModel

_TOKENS = (48, 16, 4, 2)
"""Tokens of the short text; the shorter ones are for models that have fewer positions."""

_TOLERANCE = 1e-3
"""Of the spread of the hidden states: far above rounding in bfloat16 kernels' block sizes, far below a leak."""

_SMALL = 0.1
"""Of the same: what scales of quantised activations move."""

_ROWS = 1024
"""Hidden states compared at once."""


class Leak(NamedTuple):
    """What a change of the future moved in the past."""

    sentence: str


def refuse_leak(model: LanguageModel, lengths: Sequence[int] = ()) -> None:
    """Changes the second half of random texts and compares the hidden states of the first half.

    Args:
        model: what will be measured.
        lengths: at which.

    Raises:
        CausalLeakError: they differ.
        LpeEvalError: the model can be run neither on a short text nor at any of the lengths.
    """
    leak = leak_of(model, lengths)
    if leak is not None:
        raise CausalLeakError(f"{leak.sentence}; its values would mean nothing{_way_out(leak)}")


def allowed_leak(model: LanguageModel, lengths: Sequence[int], allow: bool) -> str:
    """`refuse_leak`; or, for somebody who measures all the same, a sentence about the leak, empty where there is none.

    Raises:
        CausalLeakError: there is one and it is not allowed.
    """
    if not allow:
        refuse_leak(model, lengths)
        return ""
    leak = leak_of(model, lengths)
    return "" if leak is None else f"{leak.sentence}; measured all the same, as --allow-leak asks"


def leak_of(model: LanguageModel, lengths: Sequence[int] = ()) -> Leak | None:
    """What `refuse_leak` refuses, for somebody who measures it all the same; None where nothing leaks."""
    inner = getattr(model, "model", None)
    state = FreshState(inner) if isinstance(inner, nn.Module) and not _is_ours(model) else None
    try:
        return _first_leak(model, lengths)
    finally:
        if state is not None:
            state.restore()


def _first_leak(model: LanguageModel, lengths: Sequence[int]) -> Leak | None:
    first: Exception | None = None
    ran = False
    for tokens in _TOKENS:
        try:
            found = _leak(model, tokens)
        except Exception as error:
            first = first or _passed_over(error)
            continue
        if found is not None:
            return found
        ran = True
        break
    for tokens in () if ran and _is_ours(model) else _worth_trying(lengths, ran):
        if not _fits_twice(model, tokens):
            continue
        try:
            found = _leak(model, tokens)
        except Exception as error:
            first = first or _passed_over(error)
            continue
        ran = True
        if found is not None:
            return found
    if not ran and first is not None:
        raise first
    return None


def _passed_over(error: Exception) -> Exception:
    if is_not_deterministic(error):
        raise error
    return error


def tried_lengths(model: LanguageModel, lengths: Sequence[int]) -> list[int]:
    """Of the lengths to be measured, those that are tried first, two passes of one window each."""
    return [] if _is_ours(model) else _worth_trying(lengths, True)


def _worth_trying(lengths: Sequence[int], ran: bool) -> list[int]:
    """The longest, and shorter ones while they are no more than that together; all where nothing ran yet."""
    known = sorted({each for each in lengths if each > _TOKENS[0] or not ran})
    if not ran or not known:
        return known
    *shorter, longest = known
    left, tried = longest, []
    for each in shorter:
        left -= each
        if left < 0:
            break
        tried.append(each)
    return [*tried, longest]


def _is_ours(model: LanguageModel) -> bool:
    ours = isinstance(model, TransformerModel)
    return ours and all(_home(each) in ("lpe_eval", "torch") for each in model.model.modules())


def _home(module: nn.Module) -> str:
    return type(module).__module__.partition(".")[0]


def _fits_twice(model: LanguageModel, tokens: int) -> bool:
    free = free_memory() if model.device.type == "cpu" else None
    return free is None or 3 * model.least_bytes(tokens) <= free


@torch.inference_mode()
def _leak(model: LanguageModel, length: int) -> Leak | None:
    draw = torch.Generator().manual_seed(0)
    vocabulary, half = model.facts.vocab_size, length // 2
    if half == 0:
        raise LengthError("a text of one token has no future")
    tokens = torch.randint(vocabulary, (1, length), generator=draw)
    changed = tokens.clone()
    # A shift by less than the vocabulary leaves no token as it was.
    shift = torch.randint(1, max(2, vocabulary), (1, length - half), generator=draw)
    changed[:, half:] = (changed[:, half:] + shift) % vocabulary
    before = _first_half(model, tokens, half)
    after = _first_half(model, changed, half)
    change = max(_moved(one, other) for one, other in zip(before.split(_ROWS), after.split(_ROWS), strict=True))
    numbers = before[before.isfinite()]
    spread = numbers.std(correction=0).item() if len(numbers) else 0.0
    if change <= _TOLERANCE * spread + 1e-12:
        return None
    sentence = (
        f"{model.facts.name} sees the future: of a text of {length} tokens, changing token {half} and later moved the "
        f"hidden states before it by up to {change:.3g}"
    )
    if change <= _SMALL * spread or _is_quantised(model):
        sentence += (
            " (activations that are quantised over the whole tensor, not token by token, do that: such a per-tensor "
            "scale depends on every token)"
        )
    return Leak(sentence)


def _way_out(leak: Leak) -> str:
    if not leak.sentence.endswith(")"):
        return ""
    return ", or be a little too good; quantise token by token, or measure it all the same with --allow-leak"


def _first_half(model: LanguageModel, tokens: Tensor, half: int) -> Tensor:
    """[half, e], on the CPU: what is compared need not stay where memory is scarce, and some devices lack float64."""
    made = model.hidden(tokens.to(model.device), tokens.shape[1], torch.Generator().manual_seed(0))
    return made[0, :half].cpu().float()


def _moved(before: Tensor, after: Tensor) -> float:
    """The largest difference of numbers [n, e]; a number that is not finite has moved unless it is the same."""
    same = (before == after) | (before.isnan() & after.isnan())
    change = (before.double() - after.double()).abs().masked_fill(same, 0.0)
    return change.nan_to_num(nan=float("inf"), posinf=float("inf")).max().item()


def _is_quantised(model: Any) -> bool:
    inner = getattr(model, "model", None)
    held = [inner, *getattr(inner, "__dict__", {}).values()]
    parts = (part for each in held if isinstance(each, nn.Module) for part in each.modules())
    return any("quant" in f"{type(part).__module__}.{type(part).__name__}".lower() for part in parts)
