"""RoPE at other distances in somebody else's model: how its layers turn is found by trial, and the change is proven.

Choices:
    * A short text is run at two places. Of every row of frequencies that the model holds, both layouts and both ends
      of a head, that one is taken which leads from a layer's queries and keys at the one place to those at the other.
      So no name of a class decides, and each layer has its own. A layer that none explains is refused.
    * Layers that do not turn at all, and layers that see a window or a chunk, are left alone, log-n factor included.
    * A model is refused if its attention does not go through the registration of `transformers`, if it does more than
      the registered function knows of (its logits must stay where no distance changes), or if nothing changes.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor, nn

from lpe_eval.errors import CheckpointError
from lpe_eval.model.foreign.module_trace import some_tokens
from lpe_eval.model.foreign.transformers_attention import (
    LayerCall,
    LayerChange,
    Turning,
    change,
    changed,
    register_in,
    registered_in,
    watched,
)
from lpe_eval.model.foreign.transformers_calls import Call, logits_of
from lpe_eval.model.remap_options import Remapping, parse_remap
from lpe_eval.model.rotary import Layout, turned_to

_PROBED, _SHIFT = 12, 5
"""Tokens of the short texts, and how far the second one stands from the first."""
_LAYOUTS: tuple[Layout, ...] = ("half_split", "interleaved")


class Layers(NamedTuple):
    """How many layers there are of each kind."""

    mapped: int
    limited: int
    unturned: int

    def told(self) -> str:
        """Which layers keep their distances, as a sentence; empty where none does."""
        kinds = ((self.limited, "that see a window"), (self.unturned, "without RoPE"))
        left = " and ".join(f"{count} {what}" for count, what in kinds if count)
        whole = self.mapped + self.limited + self.unturned
        return f"its remap leaves of {whole} layers {left} as they are" if left else ""


def refuse_unregistered(config: Any, transformers: Any, where: str) -> None:
    """Raises CheckpointError where the library's code of a model never looks its attention up.

    Args:
        config: an object of the library.
        transformers: the library.
        where: what messages call the model.
    """
    known = transformers.AutoModelForCausalLM._model_mapping
    if type(config) not in known:
        return
    if "ALL_ATTENTION_FUNCTIONS" not in vars(sys.modules[known[type(config)].__module__]):
        raise CheckpointError(_UNREGISTERED.format(where=where, kind=f"{config.model_type} models"))


_UNREGISTERED = (
    "{where}: the attention of {kind} does not go through the registration of transformers, so its distances cannot be "
    "changed; measure it without a remap"
)


@torch.inference_mode()
def change_distances(call: Call, remapping: Remapping, symbols: int, where: str) -> Layers:
    """Takes a model at other distances from now on, and proves that it does what is asked.

    Args:
        call: the model, on its device and in evaluation mode.
        remapping: which distances.
        symbols: tokens that it knows.
        where: what messages call it.

    Raises:
        CheckpointError: it cannot be done exactly.
    """
    model = call.module
    if not call.takes_positions:
        raise CheckpointError(f"{where}: its code takes no position_ids, so how it turns its queries cannot be tried")
    tokens = torch.tensor([some_tokens(symbols, _PROBED, None)], device=next(model.parameters()).device)
    plain = _answers(call, tokens, where)
    with registered_in(model):
        here, there = (_calls(call, tokens, first) for first in (0, _SHIFT))
    if not here or len(here) != len(there):
        raise CheckpointError(_UNREGISTERED.format(where=where, kind=type(model).__name__))
    found = {one.module: _turning(one, two, model, where) for one, two in zip(here, there, strict=True)}
    layers = {module: LayerChange(remapping, each) for module, each in found.items() if each is not None}
    limited = sum(one.limited for one in here)
    counted = Layers(len(layers), limited, len(found) - len(layers) - limited)
    if not layers:
        why = "every layer with RoPE sees a window" if limited else "no layer turns its queries by their position"
        raise CheckpointError(f"{where}: {why}, so a remap would change nothing; measure it without one")
    _verify(call, layers, remapping, tokens, plain, where)
    change(layers)
    register_in(model)
    return counted


def _verify(
    call: Call,
    layers: Mapping[nn.Module, LayerChange],
    remapping: Remapping,
    tokens: Tensor,
    plain: Tensor,
    where: str,
) -> None:
    """Below the first distance that changes, the model must answer as it did; with all others changed, otherwise."""
    short = tokens[:, : min(_PROBED, remapping.unchanged_below or _PROBED)]
    own = _answers(call, short, where)
    with registered_in(call.module), changed(layers):
        apart = _distance(_answers(call, short, where), own)
    if not apart <= (1e-4 if _exact(own) else 5e-2):
        raise CheckpointError(
            f"{where}: where no distance changes, its logits with a remap are not its own ({apart:.1e} of their spread "
            "apart), so its attention does more than transformers registers; refused"
        )
    # Every distance but the smallest, so that a short text shows it.
    strong = parse_remap("rerope:window=1,log_n=false").resolved(None, where)
    with registered_in(call.module), changed({each: one._replace(remapping=strong) for each, one in layers.items()}):
        moved = _distance(_answers(call, tokens, where), plain)
    if not moved > max(2 * apart, 1e-7):
        raise CheckpointError(
            f"{where}: other distances leave its logits as they are, so a remap has no effect; measure it without one"
        )


def _turning(one: LayerCall, two: LayerCall, model: nn.Module, where: str) -> Turning | None:
    """How a layer turns, from its queries and keys at two places; None where it is left alone."""
    if one.limited:
        return None
    at = torch.arange(one.queries.shape[2], device=one.queries.device)
    pairs = ((one.queries, two.queries), (one.keys, two.keys))
    best, turns = max(_distance(x, y) for x, y in pairs), None
    for turning in _candidates(model, one.queries.shape[-1]):
        rotation = turning.rotation()
        apart = max(_distance(turned_to(x, at, at.double() + _SHIFT, rotation), y) for x, y in pairs)
        if apart < best:
            best, turns = apart, turning
    if best <= (1e-3 if _exact(one.queries) else 0.2):
        return turns
    number = getattr(one.module, "layer_idx", None)
    layer = type(one.module).__name__ if number is None else f"layer {number}"
    raise CheckpointError(
        f"{where}: {layer} turns its queries and keys by more than position times frequency, or changes them "
        "afterwards, so other distances cannot be made of them; measure it without a remap"
    )


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


def _answers(call: Call, tokens: Tensor, where: str) -> Tensor:
    return logits_of(call(tokens), tokens, where).clone()


def _exact(found: Tensor) -> bool:
    return found.dtype in (torch.float32, torch.float64)


def _distance(found: Tensor, wanted: Tensor) -> float:
    """How far apart two tensors are, beside the spread of the wanted one.

    The largest difference where numbers are exact. In half precision each of many layers adds rounding, of which the
    largest of many numbers tells little, so it is the mean square there.
    """
    apart, spread = found.float() - wanted.float(), max(wanted.float().std(correction=0).item(), 1e-30)
    size = apart.abs().max() if _exact(wanted) else apart.square().mean().sqrt()
    return size.item() / spread
