"""What tells two models of the same source apart: their weights, and whatever else they would save.

Choices:
    * Of a module it is `state_dict()`, extra states included: a state that is no tensor is taken apart into tensors,
      bytes and numbers. Of what cannot be taken apart only the class counts, because two equal objects may print
      differently.
    * Modules that an object holds, which is none itself, count too. Buffers that a module does not save do not: they
      may be memory that nobody has written to yet.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Set
from typing import Any

import torch
from torch import Tensor, nn

_DEEPEST = 8


def digest_of(model: Any, describes: bytes) -> str:
    """SHA-256 over `describes` and over all that a model holds."""
    summed = hashlib.sha256(describes)
    for module in _modules(model):
        saved = module.state_dict()
        for name in sorted(saved):
            for piece in _pieces(name, saved[name], _DEEPEST):
                summed.update(piece)
    return summed.hexdigest()


def _modules(model: Any) -> list[nn.Module]:
    """The module, or those that an object holds as its attributes."""
    if isinstance(model, nn.Module):
        return [model]
    held = getattr(model, "__dict__", {})
    return [each for name, each in sorted(held.items()) if isinstance(each, nn.Module)]


def _pieces(name: str, value: Any, depth: int) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        yield from _tensor(name, value)
    elif isinstance(value, io.BytesIO):
        yield f"\0{name}".encode() + value.getvalue()
    elif isinstance(value, (bytes, bytearray, memoryview)):
        yield f"\0{name}".encode() + bytes(value)
    elif value is None or isinstance(value, (str, bool, int, float, complex, torch.dtype, torch.device, torch.Size)):
        yield f"\0{name}={value!r}".encode()
    elif depth and isinstance(value, (Mapping, Set)):
        items = value.items() if isinstance(value, Mapping) else ((each, None) for each in value)
        for key, held in sorted(items, key=lambda item: str(item[0])):
            yield from _pieces(f"{name}.{key}", held, depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for place, held in enumerate(value):
            yield from _pieces(f"{name}.{place}", held, depth - 1)
    else:
        kind = type(value)
        yield f"\0{name}: {kind.__module__}.{kind.__qualname__}".encode()
        if depth and isinstance(held := getattr(value, "__dict__", None), dict):
            yield from _pieces(name, held, depth - 1)


def _tensor(name: str, tensor: Tensor) -> Iterator[bytes]:
    held = tensor.detach().cpu()
    if held.is_quantized:
        yield f"\0{name} {held.qscheme()}".encode()
        held = held.dequantize()
    if held.layout != torch.strided:
        held = held.to_dense()
    flatten = getattr(held, "__tensor_flatten__", None)
    if flatten is not None:
        parts, about = flatten()
        yield from _pieces(f"{name} of", about, _DEEPEST)
        for part in parts:
            yield from _tensor(f"{name}.{part}", getattr(held, part))
        return
    held = held.contiguous().resolve_conj().resolve_neg()
    yield f"\0{name}{list(held.shape)}{held.dtype}".encode()
    yield held.reshape(-1).view(torch.uint8).numpy().tobytes()
