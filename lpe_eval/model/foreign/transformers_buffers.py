"""Numbers that a model's own code computes and no file holds, such as slopes of ALiBi, made anew.

`transformers` builds a model without memory and fills it from files. Its own classes then compute such buffers again;
code that comes with a checkpoint mostly does not, and what was in memory before would be taken for them.

Choices:
    * The model is built a second time, with real buffers and with parameters that take no memory.
    * Where such a number depends on a parameter, or the second building fails, the model is refused.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lpe_eval.errors import CheckpointError
from lpe_eval.plain import first_line


def renew_buffers(model: Any, dtype: torch.dtype, where: str) -> None:
    """Replaces each buffer that no file holds, and each tensor among a module's attributes, by a new one.

    Args:
        model: as the library has loaded it.
        dtype: in which it was built.
        where: what messages call it.

    Raises:
        CheckpointError: they cannot be made anew.
    """
    modules = dict(model.named_modules())
    wanted = {name: _names(each) for name, each in modules.items()}
    if not any(wanted.values()):
        return
    try:
        with _parameters_without_memory(dtype):
            fresh = dict(type(model)(copy.deepcopy(model.config)).named_modules())
    except Exception as error:
        # Code that comes with a checkpoint may raise anything.
        name = next(f"{name}.{each[0]}".lstrip(".") for name, each in wanted.items() if each)
        raise CheckpointError(
            f"{where}: no file holds {name}, and the checkpoint's code fails when it is to make it: {first_line(error)}"
        ) from error
    for name, names in wanted.items():
        for each in names:
            made = _held(fresh[name], each) if name in fresh else None
            if made is None or not _real(made):
                told = f"{name}.{each}".lstrip(".")
                raise CheckpointError(
                    f"{where}: no file holds {told}, and the checkpoint's code does not make it from its config alone"
                )
            before = modules[name]._buffers.get(each)
            if isinstance(made, Tensor) and before is not None:
                modules[name]._buffers[each] = made if before.device.type == "meta" else made.to(before.device)
            else:
                vars(modules[name])[each] = made


def _names(module: nn.Module) -> list[str]:
    """Its buffers that no file holds, and attributes that are or hold tensors."""
    passing = [name for name in module._buffers if name in module._non_persistent_buffers_set]
    plain = [name for name, value in vars(module).items() if name[:1] != "_" and any(True for _ in _tensors(value))]
    return [name for name in passing if module._buffers[name] is not None] + plain


def _held(module: nn.Module, name: str) -> Any:
    return module._buffers[name] if name in module._buffers else vars(module).get(name)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        yield from (each for each in value if isinstance(each, Tensor))
    elif isinstance(value, dict):
        yield from (each for each in value.values() if isinstance(each, Tensor))


def _real(value: Any) -> bool:
    return all(each.device.type != "meta" for each in _tensors(value))


@contextmanager
def _parameters_without_memory(dtype: torch.dtype) -> Iterator[None]:
    """Within it, parameters that are registered go to the meta device, and new floating tensors have this type."""
    register, before = nn.Module.register_parameter, torch.get_default_dtype()

    def without(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, param)
        if param is not None:
            self._parameters[name] = nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)

    nn.Module.register_parameter = without
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        nn.Module.register_parameter = register
        torch.set_default_dtype(before)
