"""How the layers of somebody else's model turn their queries and keys, found by trial.

A short text is run at two places. Of every row of frequencies that the model holds, both layouts and both ends of a
head, that one is taken which leads from a layer's queries and keys at the one place to those at the other. So no name
of a class decides, and each layer has its own.
"""

from collections.abc import Iterator
from weakref import ref

import torch
from torch import Tensor, nn

from lpe_eval.errors import CheckpointError
from lpe_eval.model.foreign.transformers_attention import LayerCall, Turning, registered_in, watched
from lpe_eval.model.foreign.transformers_calls import Call, logits_of
from lpe_eval.model.rotary import Layout, turned_to

PROBED, _SHIFT = 12, 5
"""Tokens of the short texts, and how far the second one stands from the first."""
_LAYOUTS: tuple[Layout, ...] = ("half_split", "interleaved")


def two_places(call: Call, tokens: Tensor) -> list[tuple[LayerCall, LayerCall]]:
    """The calls of the registered function in a pass over a short text, and in one over the same text elsewhere.

    Args:
        call: a model that takes positions.
        tokens: [1, t].

    Returns:
        One pair for each layer, in order; none where the attention does not go through the registered function.
    """
    with registered_in(call.module):
        here, there = (_calls(call, tokens, first) for first in (0, _SHIFT))
    return list(zip(here, there, strict=True)) if len(here) == len(there) else []


def turning_of(one: LayerCall, two: LayerCall, model: nn.Module, where: str, then: str) -> Turning | None:
    """How a layer turns, from its queries and keys at two places; None where it does not.

    Args:
        one: the call at the first place.
        two: the call at the second.
        model: whose frequencies are tried.
        where: what messages call it.
        then: what follows where nothing explains the layer, for the message.

    Raises:
        CheckpointError: nothing does.
    """
    at = torch.arange(one.queries.shape[2], device=one.queries.device)
    pairs = ((one.queries, two.queries), (one.keys, two.keys))
    best, turns = max(apart_by(x, y) for x, y in pairs), None
    for turning in _candidates(model, one.queries.shape[-1]):
        rotation = turning.rotation(at.device)
        apart = max(apart_by(turned_to(x, at, at.double() + _SHIFT, rotation), y) for x, y in pairs)
        if apart < best:
            best, turns = apart, turning
    if best <= (1e-3 if exact(one.queries) else 0.2):
        return turns
    number = getattr(one.module, "layer_idx", None)
    layer = type(one.module).__name__ if number is None else f"layer {number}"
    raise CheckpointError(
        f"{where}: {layer} turns its queries and keys by more than position times frequency, or changes them "
        f"afterwards, so {then}"
    )


def answers(call: Call, tokens: Tensor, where: str) -> Tensor:
    """The logits of a pass."""
    return logits_of(call(tokens), tokens, where).clone()


def exact(found: Tensor) -> bool:
    """Whether numbers are of more than half precision."""
    return found.dtype in (torch.float32, torch.float64)


def apart_by(found: Tensor, wanted: Tensor) -> float:
    """How far apart two tensors are, beside the spread of the wanted one.

    The largest difference where numbers are exact. In half precision each of many layers adds rounding, of which the
    largest of many numbers tells little, so it is the mean square there.
    """
    apart, spread = found.float() - wanted.float(), max(wanted.float().std(correction=0).item(), 1e-30)
    size = apart.abs().max() if exact(wanted) else apart.square().mean().sqrt()
    return size.item() / spread


def _candidates(model: nn.Module, width: int) -> Iterator[Turning]:
    for holder in model.modules():
        for name, held in holder.named_buffers(recurse=False):
            if not name.endswith("inv_freq") or "original" in name or held.dim() != 1 or 2 * len(held) > width:
                continue
            for layout in _LAYOUTS:
                for last in (False, True) if 2 * len(held) < width else (False,):
                    yield Turning(ref(holder), name, layout, last)


def _calls(call: Call, tokens: Tensor, first: int) -> list[LayerCall]:
    """Of a forward pass over a text that stands at `first`."""
    with watched() as seen:
        call(tokens, positions=torch.arange(first, first + tokens.shape[1], device=tokens.device)[None])
    return seen
