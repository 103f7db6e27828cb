"""The state a model was opened in, put back before each forward pass: text measured earlier must not change a number.

Dynamic NTK keeps the frequencies of the longest text it has seen, multimodal models keep an offset of positions, and
code that comes with a checkpoint keeps caches of its own.

Choices:
    * Modules of PyTorch itself have no such state and are passed over. Parameters are never touched.
    * A buffer that a forward pass replaces is put back as it was. One that is written to in place is put back too,
      unless it is larger than `_LARGEST` numbers, as caches are that every text writes anew.
    * Plain attributes are put back, and the content of small dicts, lists and sets; deeper objects are left alone.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_LARGEST = 1 << 24
_FEW = 256
"""A container with more in it holds data, not state."""
_OF_TORCH = frozenset(vars(nn.Module()))


class _Buffer(NamedTuple):
    tensor: Tensor | None
    copy: Tensor | None
    """What it held, where a forward pass may write to it."""


class _Held(NamedTuple):
    module: nn.Module
    attributes: dict[str, Any]
    containers: dict[str, Any]
    """Copies of the small ones among the attributes."""
    buffers: dict[str, _Buffer]


class FreshState:
    """Remembers the state of every module of a model.

    Args:
        model: on its device, before its first forward pass.
    """

    def __init__(self, model: nn.Module) -> None:
        own = [each for each in model.modules() if not type(each).__module__.startswith("torch.")]
        self._held = [_held(each) for each in own]

    def restore(self) -> None:
        """Puts the state back."""
        for module, attributes, containers, buffers in self._held:
            now = vars(module)
            for name in now.keys() - _OF_TORCH - attributes.keys():
                del now[name]
            now.update(attributes)
            for name, copy in containers.items():
                if attributes[name] != copy:
                    _refill(attributes[name], copy)
            _put_back(module, buffers)


def _held(module: nn.Module) -> _Held:
    attributes = {name: value for name, value in vars(module).items() if name not in _OF_TORCH}
    containers = {name: value.copy() for name, value in attributes.items() if _is_state(value)}
    buffers = {
        name: _Buffer(each, each.detach().clone() if each is not None and _can_be_refilled(each) else None)
        for name, each in module._buffers.items()
    }
    return _Held(module, attributes, containers, buffers)


def _can_be_refilled(tensor: Tensor) -> bool:
    """Whether it is small, and no view that names one number twice, which nothing can write to."""
    twice = any(step == 0 and size > 1 for step, size in zip(tensor.stride(), tensor.shape, strict=True))
    return tensor.numel() <= _LARGEST and not twice


def _is_state(value: Any) -> bool:
    """Whether it is a small container of plain values, which can be compared and refilled."""
    if type(value) not in (dict, list, set) or len(value) > _FEW:
        return False
    inside = value.values() if isinstance(value, dict) else value
    return all(isinstance(each, int | float | str | None) for each in inside)


def _refill(container: Any, copy: Any) -> None:
    container.clear()
    (container.extend if isinstance(container, list) else container.update)(copy)


def _put_back(module: nn.Module, buffers: dict[str, _Buffer]) -> None:
    now = module._buffers
    for name in now.keys() - buffers.keys():
        del now[name]
    for name, (tensor, copy) in buffers.items():
        now[name] = tensor
        # What is equal is not written to: a training that has used it for its next gradient would not forgive that.
        if tensor is not None and copy is not None and not _equal(tensor, copy):
            tensor.copy_(copy)


def _equal(one: Tensor, other: Tensor) -> bool:
    try:
        return torch.equal(one, other)
    except (NotImplementedError, RuntimeError):  # of a type, or on a device, that compares nothing
        return False
