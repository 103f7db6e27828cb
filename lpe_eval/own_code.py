"""A function of the user's own, found and called: `FILE.py:FUNCTION` or `package.module:FUNCTION`, with settings.

Naming code is the permission to run it. Whatever it raises becomes one sentence (`CodeError`), because code of one
model must not end the measurement of another.

An object of a running program has no file to be named by. While it is lent (`lending`), its address is `<NAME>`, and
calling that gives the object itself.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

from lpe_eval.errors import CheckpointError, CodeError, LpeEvalError
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.plain import first_line
from lpe_eval.reference import split_settings


class Target(NamedTuple):
    """What is called.

    Attributes:
        module: a file or a dotted name.
        function: of it.
        settings: what it is called with.
        text: all of this as it was typed.
    """

    module: str
    function: str
    settings: dict[str, Any]
    text: str

    @property
    def where(self) -> str:
        """How messages call it."""
        return f"py:{self.text}"

    @property
    def name(self) -> str:
        """How tables call it."""
        stem = Path(self.module).stem if self.module.endswith(".py") else self.module.rpartition(".")[2]
        settings = ",".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{stem}:{self.function}" + (f"?{settings}" if settings else "")


class Made(NamedTuple):
    """What a function returned, and the source it stands in.

    Attributes:
        lent: whether it is an object that a program lends and goes on with; it stays where it is and as it is.
    """

    value: Any
    target: Target
    source: bytes
    lent: bool = False

    def describes(self) -> bytes:
        """Everything that decides what is made, as far as the source tells."""
        settings = sorted(self.target.settings.items(), key=str)
        return self.source + f"\0{self.target.function}\0{settings!r}".encode()


class Lent(NamedTuple):
    """An object of a running program.

    Attributes:
        value: what a function named on a command line would return.
        describes: what tells it apart beside its weights, in the place of a source file.
    """

    value: Any
    describes: bytes


_LENT: ContextVar[Mapping[str, Lent]] = ContextVar("lent", default=MappingProxyType({}))
"""By address; of one thread of work, so that two programs in one process do not see each other's."""


def lent_address(name: str) -> str:
    """The address of an object that is lent under this name."""
    return f"<{name}>"


def is_lent(text: str) -> bool:
    """Whether this is the address of an object, and none of a file or a module."""
    return text.startswith("<") and text.endswith(">")


@contextmanager
def lending(objects: Mapping[str, Lent]) -> Iterator[None]:
    """Inside, `calling` finds these objects, each at the address of its name."""
    token = _LENT.set({lent_address(name): each for name, each in objects.items()})
    try:
        yield
    finally:
        _LENT.reset(token)


def target_of(text: str) -> Target:
    """Takes an address apart.

    Raises:
        CheckpointError: it names no function.
        SpecError: its settings are none.
    """
    place, settings = split_settings(text)
    module, colon, function = place.rpartition(":")
    if not colon or not module or not function.isidentifier():
        raise CheckpointError(f"py:{text} names no function; write py:FILE.py:FUNCTION or py:package.module:FUNCTION")
    if "/" in module and not module.endswith(".py"):
        raise CheckpointError(f"py:{text}: {module} is no file that ends in .py and no package.module")
    return Target(module, function, settings, text)


@contextmanager
def calling(text: str) -> Iterator[Made]:
    """Calls what `text` names; inside, code can import what lies beside its file, or in the current folder.

    Raises:
        CheckpointError: there is no such file or function, or it does not take these settings.
        CodeError: it raises something.
    """
    if is_lent(text):
        if text not in _LENT.get():
            raise CheckpointError(
                f"py:{text} was an object of a running program, which no spec can hold; measure it from Python again"
            )
        lent = _LENT.get()[text]
        yield Made(lent.value, Target(text, "object", {}, text), lent.describes, lent=True)
        return
    target = target_of(text)
    where, file = target.where, target.module.endswith(".py")
    with _importable(Path(target.module).resolve().parent if file else Path.cwd()):
        if file and not Path(target.module).is_file():
            raise CheckpointError(f"{where}: there is no file {target.module}")
        with told(where, "cannot be imported"):
            module = _import_file(Path(target.module)) if file else importlib.import_module(target.module)
        factory = getattr(module, target.function, None)
        if not callable(factory):
            defined = [
                name for name, value in vars(module).items() if inspect.isfunction(value) or inspect.isclass(value)
            ]
            known = ", ".join(name for name in defined if not name.startswith("_")) or "none"
            raise CheckpointError(f"{where}: there is no function {target.function}; it has: {known}")
        yield Made(_call(factory, target), target, _source_of(module))


@contextmanager
def told(where: str, what: str) -> Iterator[None]:
    """One sentence for whatever somebody's code raises; the chained error keeps the traceback.

    Raises:
        CodeError: of anything but an error of ours, Ctrl-C, and lack of memory.
    """
    try:
        yield
    except (LpeEvalError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if out_of_memory(error):
            raise
        # Somebody's code may raise a class of its own, or call sys.exit and end the run as if all were well.
        raise CodeError(f"{where} {what}: {type(error).__name__}: {first_line(error)}{_line_of(error)}") from error


def _line_of(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})" if trace is not None else ""


def _import_file(path: Path) -> ModuleType:
    name = f"lpe_eval_own_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and annotations look their own module up by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _call(factory: Callable[..., Any], target: Target) -> Any:
    try:
        inspect.signature(factory).bind(**target.settings)
    except TypeError as error:
        named = getattr(factory, "__name__", target.function)
        raise CheckpointError(f"{target.where}: {named} {inspect.signature(factory)}: {error}") from error
    except ValueError:
        # Some callables have no signature to look at; calling them tells.
        pass
    with told(target.where, "fails"):
        return factory(**target.settings)


def _source_of(module: ModuleType) -> bytes:
    return Path(module.__file__).read_bytes() if module.__file__ else module.__name__.encode()


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Lets code import its neighbours."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
