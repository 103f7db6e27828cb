"""RoPE at other distances in somebody else's model, where the change is proven.

Choices:
    * How a layer turns is found by trial (`transformers_turning.py`). A layer that no trial explains is refused.
    * Layers that do not turn at all, and layers that see a window or a chunk, are left alone, log-n factor included.
    * A model is refused if its attention does not go through the registration of `transformers`, if it does more than
      the registered function knows of (its logits must stay where no distance changes), or if nothing changes.
"""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lpe_eval.errors import CheckpointError
from lpe_eval.model.foreign.module_trace import some_tokens
from lpe_eval.model.foreign.transformers_attention import LayerChange, change, changed, register_in, registered_in
from lpe_eval.model.foreign.transformers_calls import Call
from lpe_eval.model.foreign.transformers_turning import PROBED, answers, apart_by, exact, turning_of, two_places
from lpe_eval.model.remap_options import Remapping, parse_remap


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
def change_distances(call: Call, remapping: Remapping, symbols: int, where: str, device: torch.device) -> Layers:
    """Takes a model at other distances from now on, and proves that it does what is asked.

    Args:
        call: the model, in evaluation mode.
        remapping: which distances.
        symbols: tokens that it knows.
        where: what messages call it.
        device: where its inputs go.

    Raises:
        CheckpointError: it cannot be done exactly.
    """
    model = call.module
    if not call.takes_positions:
        raise CheckpointError(f"{where}: its code takes no position_ids, so how it turns its queries cannot be tried")
    tokens = torch.tensor([some_tokens(symbols, PROBED, None)], device=device)
    plain = answers(call, tokens, where)
    pairs = two_places(call, tokens)
    if not pairs:
        raise CheckpointError(_UNREGISTERED.format(where=where, kind=type(model).__name__))
    then = "other distances cannot be made of them; measure it without a remap"
    found = {one.module: None if one.limited else turning_of(one, two, model, where, then) for one, two in pairs}
    layers = {module: LayerChange(remapping, each) for module, each in found.items() if each is not None}
    limited = sum(one.limited for one, _ in pairs)
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
    short = tokens[:, : min(PROBED, remapping.unchanged_below or PROBED)]
    own = answers(call, short, where)
    with registered_in(call.module), changed(layers):
        apart = apart_by(answers(call, short, where), own)
    if not apart <= (1e-4 if exact(own) else 5e-2):
        raise CheckpointError(
            f"{where}: where no distance changes, its logits with a remap are not its own ({apart:.1e} of their spread "
            "apart), so its attention does more than transformers registers; refused"
        )
    # Every distance but the smallest, so that a short text shows it.
    strong = parse_remap("rerope:window=1,log_n=false").resolved(None, where)
    with registered_in(call.module), changed({each: one._replace(remapping=strong) for each, one in layers.items()}):
        moved = apart_by(answers(call, tokens, where), plain)
    if not moved > max(2 * apart, 1e-7):
        raise CheckpointError(
            f"{where}: other distances leave its logits as they are, so a remap has no effect; measure it without one"
        )
