"""What a model that somebody else wrote shows of its shape and of its positions."""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from lpe_eval.model.foreign.rope_override import rotary_modules
from lpe_eval.model.language_model import PositionTensor, shape_in_words

_OF_POSITIONS = re.compile(r"wpe\.|position|relative_attention|alibi", re.IGNORECASE)
_SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads")


def architecture_of(model: Any) -> list[tuple[str, str]]:
    """The model's class, and its shape where it has a config of `transformers`."""
    rows = [("architecture", type(model).__name__)]
    config = getattr(model, "config", None)
    sizes = [size for name in _SIZES if isinstance(size := getattr(config, name, None), int)]
    if len(sizes) == len(_SIZES):
        rows.append(("shape", shape_in_words(*sizes)))
    return rows


def position_tensors_of(model: Any) -> Iterator[PositionTensor]:
    """Frequencies of rotary modules, and parameters that are called like positions."""
    if not isinstance(model, nn.Module):
        return
    for module in rotary_modules(model):
        for name, tensor in module.named_buffers(recurse=False):
            yield PositionTensor(type(module).__name__, name, tensor)
    for name, tensor in model.named_parameters():
        if _OF_POSITIONS.search(name):
            yield PositionTensor("model", name, tensor)
