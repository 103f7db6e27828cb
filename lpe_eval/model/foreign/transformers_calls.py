"""How somebody else's model of `transformers` is called, and what it returns: code that comes with checkpoints differs.

Choices:
    * `use_cache=False` is passed where the signature has it, or takes anything and the code is the library's own. An
      attention mask of ones and positions from zero are passed where they are demanded.
    * Logits are the attribute or the entry `logits`, else the first floating tensor [b, t, v] of what is returned.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lpe_eval.errors import CheckpointError

_ANY = inspect.Parameter.VAR_KEYWORD
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def known_code(module: nn.Module) -> bool:
    """Whether a module's class is of `transformers` itself, not of a checkpoint."""
    return type(module).__module__.startswith("transformers.")


class Call:
    """Calls a module on tokens with the arguments that its forward pass takes.

    Args:
        module: a whole model, or the body of one.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        parameters = inspect.signature(module.forward).parameters
        named = {name for name, each in parameters.items() if each.kind in _NAMED}
        self.keeps_rows = "logits_to_keep" in named
        self.takes_positions = "position_ids" in named
        self._by_name = "input_ids" in named
        anything = any(each.kind is _ANY for each in parameters.values()) and known_code(module)
        self._fixed = {"use_cache": False} if "use_cache" in named or anything else {}
        demanded = {name for name in named if parameters[name].default is inspect.Parameter.empty}
        self._demanded = demanded & {"attention_mask", "position_ids"}

    def __call__(self, tokens: Tensor, rows: int | None = None, positions: Tensor | None = None) -> Any:
        """What the module returns.

        Args:
            tokens: integers [b, t].
            rows: of how many last tokens logits are wanted, where the class can make fewer; None for all.
            positions: integers [1, t], for a class that takes some; None leaves them to it.
        """
        given: dict[str, Any] = dict(self._fixed)
        if rows is not None and self.keeps_rows:
            given["logits_to_keep"] = rows
        if "attention_mask" in self._demanded:
            given["attention_mask"] = torch.ones_like(tokens)
        if "position_ids" in self._demanded:
            given["position_ids"] = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        if positions is not None:
            given["position_ids"] = positions.expand_as(tokens)
        return self.module(input_ids=tokens, **given) if self._by_name else self.module(tokens, **given)


def logits_of(returned: Any, tokens: Tensor, where: str) -> Tensor:
    """The logits [b, r, v] in what a whole model returned for `tokens`.

    Raises:
        CheckpointError: there are none.
    """
    found = returned.get("logits") if isinstance(returned, Mapping) else getattr(returned, "logits", None)
    candidates = [found] if isinstance(found, Tensor) else _entries(returned)
    for each in candidates:
        if each.is_floating_point() and each.dim() == 3 and each.shape[0] == tokens.shape[0]:
            return each
    raise CheckpointError(f"{where} returns no logits [b, t, v] for tokens [b, t]; its class is no language model")


def first_of(returned: Any) -> Any:
    """The hidden states in what a body returned."""
    return returned if isinstance(returned, Tensor) else next(iter(_entries(returned)), None)


def with_first(returned: Any, states: Tensor) -> Any:
    """What a body returned, with other hidden states in it."""
    if isinstance(returned, Tensor):
        return states
    if isinstance(returned, Mapping):
        # The library's own outputs are mappings too, and rebuild themselves from their fields.
        first = next(key for key, each in returned.items() if isinstance(each, Tensor))
        return type(returned)(**{**dict(returned.items()), first: states})
    place = next(number for number, each in enumerate(returned) if isinstance(each, Tensor))
    return (*returned[:place], states, *returned[place + 1 :])


def _entries(returned: Any) -> list[Tensor]:
    if isinstance(returned, Tensor):
        return [returned]
    held = returned if isinstance(returned, tuple | list) else ()
    inside = returned.values() if isinstance(returned, Mapping) else held
    return [each for each in inside if isinstance(each, Tensor)]
