"""A module of somebody else put on a device and into a type, without losing what its buffers know.

Choices:
    * Parameters take the type of the run. Complex numbers never change theirs, since a real type has no room for
      them; neither do whole numbers and 8-bit floats, which hold quantised weights.
    * A floating buffer may become wider and never narrower: in bfloat16 the frequencies of RoPE are off by a turn
      after some hundred tokens. Only a buffer that the model cannot run with otherwise (a table that is added to
      hidden states, say) takes the type of the run, as a parameter does; which ones these are is found by trying.
    * Apple's MPS has no float64; there it becomes float32.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from lpe_eval.errors import CodeError

_T = TypeVar("_T")


class _Buffer(NamedTuple):
    owner: nn.Module
    name: str
    tensor: Tensor


class Placed:
    """A module on its device; its buffers of a wider type are kept, by name."""

    def __init__(self, module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self._dtype = dtype
        for parameter in module.parameters():
            if may_change(parameter) and parameter.dtype != dtype:
                parameter.data = parameter.data.to(dtype)
        for buffer in _buffers(module):
            if device.type == "mps" and buffer.tensor.dtype == torch.float64:
                setattr(buffer.owner, buffer.name, buffer.tensor.float())
            elif may_change(buffer.tensor) and buffer.tensor.dtype.itemsize < dtype.itemsize:
                setattr(buffer.owner, buffer.name, buffer.tensor.to(dtype))
        module.to(device).eval()
        for each in module.modules():
            if isinstance(each, nn.RNNBase):
                # cuDNN wants the weights of a recurrent layer in one piece.
                each.flatten_parameters()
        self._kept: dict[str, list[_Buffer]] = {}
        for buffer in _buffers(module):
            if may_change(buffer.tensor) and buffer.tensor.dtype != dtype:
                self._kept.setdefault(buffer.name, []).append(buffer)
        self._cast: set[str] = set()

    def settle(self, run: Callable[[], _T]) -> _T:
        """What `run` returns; buffers are cast until it does, and no more of them than it takes.

        Raises:
            CodeError: it fails whatever is cast, as it does with nothing cast.
        """
        try:
            return run()
        except CodeError:
            if not self._kept:
                raise
            names = sorted(self._kept)
            for name in names:
                self._narrow(name)
            try:
                run()
            except CodeError:
                for name in names:
                    self._restore(name)
            else:
                for name in names:
                    self._restore(name)
                    try:
                        run()
                    except CodeError:
                        self._narrow(name)
        return run()

    def notes(self) -> list[str]:
        """What a reader should know of types; empty where all are the run's."""
        run = str(self._dtype).removeprefix("torch.")
        kept = [name for name in sorted(self._kept) if name not in self._cast]
        found = [f"its parameters are {run}, and these buffers keep their own type: {', '.join(kept)}"] if kept else []
        if self._cast:
            found.append(f"it runs only with these buffers cast to {run}: {', '.join(sorted(self._cast))}")
        return found

    def _narrow(self, name: str) -> None:
        self._cast.add(name)
        for each in self._kept[name]:
            setattr(each.owner, each.name, each.tensor.to(self._dtype))

    def _restore(self, name: str) -> None:
        self._cast.discard(name)
        for each in self._kept[name]:
            setattr(each.owner, each.name, each.tensor)


def suits(module: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a module is placed already, so that `Placed` changes nothing of it but its mode."""
    tensors = [*module.parameters(), *module.buffers()]
    there = all(each.device == torch.empty(0, device=device).device for each in tensors)
    typed = all(each.dtype == dtype for each in module.parameters() if may_change(each))
    wide = all(each.dtype.itemsize >= dtype.itemsize for each in module.buffers() if may_change(each))
    return there and typed and wide


def may_change(tensor: Tensor) -> bool:
    """Whether its type may follow that of the run."""
    return tensor.is_floating_point() and tensor.dtype.itemsize > 1


def _buffers(module: nn.Module) -> list[_Buffer]:
    return [
        _Buffer(owner, name, tensor)
        for owner in module.modules()
        for name, tensor in owner.named_buffers(recurse=False)
    ]
