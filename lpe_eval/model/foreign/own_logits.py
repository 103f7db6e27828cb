"""Which tensor of what somebody's model returns are its logits, and how it is asked for those of all tokens.

Choices:
    * `.logits` (or the key "logits") is taken at its word. Of a tuple, a list or a mapping it is the first floating
      tensor [b, t, v]. Where several widths could be v, the one that the model's `vocab_size`, its config or a table
      of embeddings names is taken, and none where these do not tell: hidden states scored as logits would be a
      number that nobody notices.
    * Some models (nanoGPT, llama2.c) give only the last token's logits unless they get targets too. They are given
      targets, if their logits of the last token are then the same; their own loss is not looked at.
"""

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lpe_eval.errors import CheckpointError, CodeError

_TARGETS = ("targets", "target", "labels", "y", "yb")
_DEEPEST = 3
"""Tuples in tuples that are looked through."""


class OnlyTheLast(NamedTuple):
    """Logits of the last token and no other."""

    logits: Tensor
    """[b, v]"""


def tensor_of(made: Any, shape: tuple[int, int], widths: Collection[int], what: str) -> Tensor | OnlyTheLast:
    """The floating tensor [b, t, any] in what a model returned.

    Args:
        made: a tensor, or something that holds it.
        shape: b and t.
        widths: what the last size may well be, where several tensors would fit.
        what: how messages call what returned it.

    Raises:
        CheckpointError: there is none, or there are several that nothing tells apart.
    """
    found = [each for each in _tensors(made, _DEEPEST) if each.is_floating_point()]
    fits = [each for each in found if each.dim() == 3 and tuple(each.shape[:2]) == shape]
    told = [each for each in fits if each.shape[-1] in widths]
    if len({each.shape[-1] for each in fits}) > 1:
        if len({each.shape[-1] for each in told}) != 1:
            sizes = " and ".join(str(list(each.shape)) for each in fits)
            raise CheckpointError(
                f"{what} returns several tensors that could be logits, {sizes}; give the model an attribute "
                "`vocab_size`, or return the logits alone"
            )
        fits = told
    if fits:
        return fits[0]
    last = [each for each in found if shape[1] > 1 and _rows_of_last(each, shape[0])]
    if last:
        return OnlyTheLast(last[0].reshape(shape[0], -1))
    raise CheckpointError(_refusal(made, shape, what))


def _rows_of_last(tensor: Tensor, batch: int) -> bool:
    return tuple(tensor.shape[:-1]) in ((batch, 1), (batch,))


def _tensors(made: Any, depth: int) -> Iterator[Tensor]:
    named = made.get("logits") if isinstance(made, Mapping) else getattr(made, "logits", None)
    if isinstance(made, Tensor):
        yield made
    elif isinstance(named, Tensor):
        yield named
    elif depth and isinstance(made, (tuple, list, Mapping)):
        for each in made.values() if isinstance(made, Mapping) else made:
            yield from _tensors(each, depth - 1)


def _refusal(made: Any, shape: tuple[int, int], what: str) -> str:
    wanted = f"[{shape[0]}, {shape[1]}, any]"
    if isinstance(made, Tensor):
        return f"{what} must return floating numbers of the shape {wanted}, not {made.dtype} of {list(made.shape)}"
    held = ", ".join(f"{each.dtype} of {list(each.shape)}" for each in _tensors(made, _DEEPEST))
    return f"{what} must return a tensor {wanted}, not {type(made).__name__}" + (f" ({held})" if held else "")


def likely_widths(model: Any) -> set[int]:
    """Sizes of a vocabulary that a model shows: declared, of its config, of its tables of embeddings."""
    named = [getattr(model, "vocab_size", None), getattr(getattr(model, "config", None), "vocab_size", None)]
    declared = {each for each in named if isinstance(each, int)}
    if declared or not isinstance(model, nn.Module):
        return declared
    return {each.num_embeddings for each in model.modules() if isinstance(each, nn.Embedding)}


def targets_name(model: Any) -> str | None:
    """What a model calls the targets that it may be given beside tokens; None where it takes none."""
    try:
        known = inspect.signature(model.forward if isinstance(model, nn.Module) else model).parameters
    except (TypeError, ValueError):
        return None
    return next((name for name in _TARGETS if name in known), None)


def with_targets(model: Any, name: str, tokens: Tensor, widths: Collection[int], what: str) -> Tensor:
    """Logits [b, t, v] of a model that wants targets for them; it may return them as [b * t, v].

    Raises:
        CheckpointError: it does not return them then either.
    """
    made = model(tokens, **{name: tokens})
    flat = [each for each in _tensors(made, _DEEPEST) if each.is_floating_point() and each.dim() == 2]
    if flat and flat[0].shape[0] == tokens.numel():
        return flat[0].unflatten(0, tuple(tokens.shape))
    found = tensor_of(made, (tokens.shape[0], tokens.shape[1]), widths, what)
    if isinstance(found, OnlyTheLast):
        raise CheckpointError(f"{what} returns logits of the last token only; it must return those of all tokens")
    return found


def refuse_other_logits(alone: OnlyTheLast, given: Tensor, what: str) -> None:
    """Compares the last token's logits [b, v] with those [b, t, v] that a model gives where it has targets.

    Raises:
        CodeError: they differ by more than rounding.
    """
    last = given[:, -1].float()
    rounding = 1e-4 if given.dtype in (torch.float32, torch.float64) else 3e-2
    if alone.logits.shape != last.shape or (alone.logits.float() - last).abs().max() > rounding * (last.std() + 1e-6):
        raise CodeError(
            f"{what} returns logits of the last token only, and other ones when it is given targets; it must return "
            "those of all tokens"
        )
