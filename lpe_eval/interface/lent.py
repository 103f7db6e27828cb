"""Somebody's own object among the models: named, measured where it lies, and put back as it was.

A module in a training is somebody's property. It is measured as it is where it lies on the device of the run and has
its type, else a copy of it is. Afterwards each of its parts has the mode, the buffers and the attributes that it had;
its parameters and their gradients are never touched.

Choices:
    * Unless the caller says otherwise, a run takes the device and the type of the modules that it is given, so that
      nothing is copied in a training.
    * Modes are put back by `train` and `eval` of the module itself, from the whole to its parts, since some modules do
      more there than to note it: LoRA's merge their weights.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lpe_eval.errors import SpecError
from lpe_eval.model.foreign.module_state import FreshState
from lpe_eval.model.foreign.own_placing import may_change, suits
from lpe_eval.own_code import Lent, lending, lent_address, told

Measurable = str | Path | nn.Module | Callable[..., Any] | tuple[Any, Callable[[str], Any]]
"""One model: as `-m` takes it, or an object of one's own, perhaps in a pair with its `encode`."""

Models = Measurable | Sequence[Measurable] | Mapping[str, Measurable]
"""One, several, or several with the names that tables give them."""

_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
_PLAIN = (bool, int, float, str, type(None))


def references(models: Models) -> tuple[list[str], dict[str, Any]]:
    """What a spec says of the models, and those among them that are objects, by name.

    Args:
        models: what is measured.

    Raises:
        SpecError: one is nothing that can be measured, or a name cannot be.
    """
    found: list[str] = []
    objects: dict[str, Any] = {}
    for name, each in _listed(models):
        if isinstance(each, (str, Path)):
            found.append(f"{_fit(name)}={each}" if name is not None else str(each))
            continue
        value = each[0] if isinstance(each, tuple) and each else each
        if not callable(value) and not callable(getattr(value, "head", None)):
            raise SpecError(
                f"{type(value).__name__} is no model; give a name, a folder, a torch.nn.Module, or (module, encode)"
            )
        called = _fit(name if name is not None else _name_of(value))
        if called in objects:
            raise SpecError(f"two models are called {called!r}; give a mapping of names to models")
        objects[called] = each
        found.append(f"{called}=py:{lent_address(called)}")
    if not found:
        raise SpecError("no model is given; name one, such as 'alibi', or give a torch.nn.Module")
    return found, objects


def _listed(models: Models) -> list[tuple[str | None, Any]]:
    if isinstance(models, Mapping):
        return list(models.items())
    if isinstance(models, (list, tuple)) and not _is_pair(models):
        return [(None, each) for each in models]
    return [(None, models)]


def _is_pair(value: Sequence[Any]) -> bool:
    """Whether it is a model and its `encode`, and not two models."""
    if not isinstance(value, tuple) or len(value) != 2 or isinstance(value[0], (str, Path)):
        return False
    return callable(value[1]) and not isinstance(value[1], nn.Module)


def _name_of(value: Any) -> str:
    named = getattr(value, "name", None)
    return named if isinstance(named, str) and named else getattr(value, "__name__", type(value).__name__)


def _fit(name: Any) -> str:
    """A name that can stand in front of an equals sign."""
    if not isinstance(name, str) or not name.strip() or any(mark in name for mark in "=:/\\?"):
        raise SpecError(f"a model cannot be called {name!r}; leave out = : / \\ and ?")
    return name


def where_they_are(objects: Mapping[str, Any], device: str, dtype: str) -> tuple[str, str]:
    """Device and type of a run; where they are left open, those that all modules among the objects have."""
    modules = [each for value in objects.values() for each in _modules(value)]
    devices = {str(each.device) for module in modules for each in (*module.parameters(), *module.buffers())}
    types = {each.dtype for module in modules for each in module.parameters() if may_change(each)}
    if device == "auto" and len(devices) == 1 and "meta" not in devices:
        device = devices.pop()
    if dtype == "auto" and len(types) == 1:
        dtype = _TYPES.get(types.pop(), dtype)
    return device, dtype


@contextmanager
def lent(objects: Mapping[str, Any], device: torch.device, dtype: torch.dtype, usual: torch.device) -> Iterator[None]:
    """Inside, the objects can be measured at their addresses; afterwards they are as they were.

    Args:
        objects: by name.
        device: of the run.
        dtype: likewise.
        usual: where the program makes its tensors unless it says otherwise.

    Raises:
        CodeError: one has to be copied and cannot be.
    """
    with ExitStack() as stack:
        given: dict[str, Lent] = {}
        for name, value in objects.items():
            modules = _modules(value)
            if all(suits(module, device, dtype) for module in modules):
                for module in modules:
                    stack.enter_context(_put_back(module))
                    stack.enter_context(_at_home(module, usual))
                measured = value
            else:
                what = f"has to be copied for {device} in {str(dtype).removeprefix('torch.')}, and cannot be"
                with told(f"py:{lent_address(name)}", what):
                    measured = _copied(value)
            given[name] = Lent(measured, _described(value))
        stack.enter_context(lending(given))
        yield


def _modules(value: Any) -> list[nn.Module]:
    """The module of a model; those that another object holds are its own business."""
    first = value[0] if isinstance(value, tuple) and value else value
    return [first] if isinstance(first, nn.Module) else []


def _copied(value: Any) -> Any:
    return (copy.deepcopy(value[0]), *value[1:]) if isinstance(value, tuple) else copy.deepcopy(value)


@contextmanager
def _put_back(module: nn.Module) -> Iterator[None]:
    modes = [(each, each.training) for each in module.modules()]
    buffers = [(each, dict(each._buffers)) for each in module.modules()]
    state = FreshState(module)
    try:
        yield
    finally:
        for each, training in modes:
            if each.training != training:
                each.train(training)
        for each, held in buffers:
            each._buffers.clear()
            each._buffers.update(held)
        with torch.no_grad():
            state.restore()


@contextmanager
def _at_home(module: nn.Module, usual: torch.device) -> Iterator[None]:
    """Inside, a module makes its tensors where its program does; the measurement around it makes them on the CPU."""
    if usual.type == "cpu":
        yield
        return
    entered: list[torch.device] = []

    def before(*_: Any) -> None:
        entered.append(torch.device(usual))
        entered[-1].__enter__()

    def after(*_: Any) -> None:
        entered.pop().__exit__(None, None, None)

    hooks = [
        module.register_forward_pre_hook(before, prepend=True),
        module.register_forward_hook(after, always_call=True),
    ]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def _described(value: Any) -> bytes:
    """What tells an object apart beside its weights: the code of its classes, and their plain attributes."""
    parts = value if isinstance(value, tuple) else (value,)
    told_of = [line for part in parts for line in _lines_of(part)]
    return "\0".join(told_of).encode("utf-8", "surrogateescape")


def _lines_of(part: Any) -> Iterator[str]:
    held = list(part.named_modules()) if isinstance(part, nn.Module) else [("", part)]
    classes: dict[Any, None] = {}
    for name, each in held:
        kind = each if inspect.isroutine(each) else type(each)
        classes.setdefault(kind)
        plain = {key: at for key, at in vars(each).items() if _tells(key, at)} if not inspect.isroutine(each) else {}
        yield f"{name}: {kind.__module__}.{kind.__qualname__} {sorted(plain.items())}"
    for kind in classes:
        if not kind.__module__.startswith("torch."):
            yield _code_of(kind)


def _tells(name: str, value: Any) -> bool:
    return name != "training" and not name.startswith("_") and type(value) in _PLAIN


def _code_of(kind: Any) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return kind.__qualname__
