"""What a model that somebody else wrote shows of its shape and of its positions."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import nn

from lpe_eval.model.language_model import PositionTensor, shape_in_words

_OF_POSITIONS = re.compile(r"wpe\.|position|relative_attention|alibi", re.IGNORECASE)
_SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads")


def architecture_of(model: Any, config: Mapping[str, Any] | None = None) -> list[tuple[str, str]]:
    """The model's class, and its shape where it has a config of `transformers`.

    Args:
        model: any object.
        config: of its text decoder, if that is not all of the model's own.
    """
    rows = [("architecture", type(model).__name__)]
    own = getattr(model, "config", None)

    def size(name: str) -> int | None:
        found = config.get(name) if config is not None and name in config else getattr(own, name, None)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    layers, width, heads = map(size, _SIZES)
    if layers is not None and width is not None and heads is not None:
        rows.append(("shape", shape_in_words(layers, width, heads, size("head_dim"))))
    return rows


def position_tensors_of(model: Any, called: Collection[nn.Module] | None = None) -> Iterator[PositionTensor]:
    """Frequencies of rotary modules, and parameters that are called like positions.

    Args:
        model: any object; what is no module has none.
        called: the modules that run on text; None for all. What lies in others, or directly in their owners, is left
            out.
    """
    if not isinstance(model, nn.Module):
        return
    owners = {name: each for name, each in model.named_modules() if called is None or each in called}
    for module in owners.values():
        buffers = list(module.named_buffers(recurse=False))
        if any(name.endswith("inv_freq") for name, _ in buffers):
            yield from (PositionTensor(type(module).__name__, name, tensor) for name, tensor in buffers)
    for name, tensor in model.named_parameters():
        owner = name.rpartition(".")[0]
        if _OF_POSITIONS.search(name) and (owner in owners or owner.rpartition(".")[0] in owners):
            yield PositionTensor("model", name, tensor)
