"""A model tried and put back: what it remembers of a trial (the longest text so far, tables it made) is undone.

Dynamic NTK keeps the frequencies of the longest text it has seen, so a trial at the longest length would move what is
measured at shorter ones. Of each module its buffers and its plain attributes are put back: tensors, numbers, texts and
None. What a model keeps elsewhere stays as it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from lpe_eval.model.language_model import LanguageModel

_LARGEST = 1 << 26
"""Bytes of a buffer whose content is kept; larger ones are caches that every text writes anew."""
_PLAIN = (Tensor, bool, int, float, str, type(None))


@contextmanager
def untouched(model: LanguageModel) -> Iterator[None]:
    """Inside, the model may be run on anything; afterwards it is as it was."""
    inner = getattr(model, "model", None)
    held = inner if isinstance(inner, nn.Module) else None
    before = [] if held is None else [_Before(each) for each in held.modules()]
    try:
        yield
    finally:
        for each in before:
            each.restore()


class _Before:
    """A module's buffers and plain attributes at a moment."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        buffers = dict(module.named_buffers(recurse=False))
        self._buffers = {
            name: (tensor, tensor.clone() if _is_small(tensor) else None) for name, tensor in buffers.items()
        }
        self._plain = {name: value for name, value in vars(module).items() if isinstance(value, _PLAIN)}
        self._names = set(vars(module))

    @torch.inference_mode()
    def restore(self) -> None:
        own: dict[str, Any] = vars(self._module)
        for name in [name for name in own if name not in self._names and isinstance(own[name], _PLAIN)]:
            del own[name]
        own.update(self._plain)
        for name, (tensor, copy) in self._buffers.items():
            if copy is not None and not torch.equal(tensor, copy):
                # A view that names one number twice cannot be written to; nor did the model write to it then.
                with suppress(RuntimeError):
                    tensor.copy_(copy)
            if getattr(self._module, name, None) is not tensor:
                setattr(self._module, name, tensor)


def _is_small(tensor: Tensor) -> bool:
    return tensor.numel() * tensor.element_size() <= _LARGEST
