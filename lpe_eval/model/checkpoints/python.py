"""Your own model: `py:path/to/file.py:factory` or `py:package.module:factory`, perhaps with `?key=value&key=value`.

The factory is called with the keys and values (read as YAML) and returns one of two things:

    * anything callable, usually a `torch.nn.Module`: `model(tokens)` takes integers [b, t] and returns
      logits [b, t, v];
    * an object whose class has a method `hidden`, and a `head`: `hidden(tokens)` returns [b, t, e] and
      `head(states)` takes [n, e] to logits [n, v]. Then logits are made of scored tokens only.

What it returns may have these attributes, all optional: `train_length` (int), `tokenizer` (str, as
`--tokenizer` takes it; "bytes" if there are 256 to 258 symbols), `vocab_size` (int, checked against the
logits), `encoding` (str, for tables), `name` (str, for tables), `n_parameters` (int). To refuse a length,
raise `lpe_eval.errors.LengthError`.

Choices:
    * Naming code on the command line is the permission to run it. A bare `file.py` runs nothing.
    * A module is moved to the device and the dtype of the run and put in evaluation mode; other objects
      have to place themselves, and get their tokens on the device of the run.
    * A failure on a text longer than the training length is `n/a` at that length; any other ends the run.
    * The file is read anew each time the model is opened. Its folder (for `package.module`, the current
      one) can be imported from while the factory runs.
    * A run opens the model twice: for its name, tokenizer and digest, and to measure it. The digest is
      over the source file, the settings and the module's weights, so a factory that draws weights
      without a seed is another model each time, and is not measured.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lpe_eval.errors import CheckpointError, LengthError, LpeEvalError
from lpe_eval.model.checkpoint import CheckpointFormat, LoadOptions, Peek
from lpe_eval.model.foreign.module_facts import architecture_of, position_tensors_of
from lpe_eval.model.language_model import LanguageModel, ModelFacts, PositionTensor
from lpe_eval.model.reference import split_settings
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.plain import first_line

_T = TypeVar("_T")
_BYTES = range(256, 259)


class Python(CheckpointFormat):
    """Calls a function of yours that returns a model."""

    @classmethod
    def attentions(cls) -> Sequence[str]:
        return ["own"]

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.suffix == ".py" and path.is_file()

    @classmethod
    def peek(cls, path: str | Path, options: LoadOptions) -> Peek:
        facts = _open(str(path), options._replace(device=torch.device("cpu"))).facts
        return Peek(facts.name, facts.tokenizer, facts.digest)

    @classmethod
    def load(cls, path: str | Path, options: LoadOptions) -> LanguageModel:
        return _open(str(path), options)


class _Target(NamedTuple):
    module: str
    """A file or a dotted name."""
    function: str
    settings: dict[str, Any]
    text: str


class _OwnModel(LanguageModel):
    """Somebody's object behind the language-model contract."""

    def __init__(self, model: Any, target: _Target, source: bytes, options: LoadOptions) -> None:
        self.model = model
        self.device, self.dtype = options.device, options.dtype
        self._where = f"py:{target.text}"
        if isinstance(model, nn.Module):
            model.to(options.device, options.dtype).eval()
        split = callable(inspect.getattr_static(type(model), "hidden", None)) and callable(getattr(model, "head", None))
        if not split and not callable(model):
            raise CheckpointError(
                f"{self._where} returned {type(model).__name__}, which is neither callable on tokens nor has "
                "hidden(tokens) and head(states)"
            )
        self._split = split
        vocabulary = self._probe()
        declared = self._attribute("vocab_size", int)
        if declared is not None and declared != vocabulary:
            raise CheckpointError(
                f"{self._where} says vocab_size {declared} and makes {vocabulary} logits for each token"
            )
        tokenizer = options.tokenizer or self._attribute("tokenizer", str)
        if tokenizer is None:
            # Text that is token ids needs none; whoever encodes text says that there is none.
            tokenizer = "bytes" if vocabulary in _BYTES else ""
        weights = list(model.parameters()) if isinstance(model, nn.Module) else []
        self.facts = ModelFacts(
            name=self._attribute("name", str) or _name(target),
            format="python",
            encoding=self._attribute("encoding", str) or "unknown",
            train_length=self._attribute("train_length", int),
            vocab_size=vocabulary,
            tokenizer=tokenizer,
            n_parameters=self._attribute("n_parameters", int) or sum(each.numel() for each in weights),
            digest=_digest(model, target, source),
        )

    @property
    def attention(self) -> str:
        return "own"

    def architecture(self) -> list[tuple[str, str]]:
        return architecture_of(self.model)

    def position_tensors(self) -> Iterator[PositionTensor]:
        return position_tensors_of(self.model)

    @torch.inference_mode()
    def hidden(self, tokens: Int[Tensor, "b t"], rows: int, generator: torch.Generator) -> Float[Tensor, "b r e"]:
        if int(tokens.max()) >= self.facts.vocab_size:
            raise CheckpointError(
                f"{self._where}: the tokenizer gives the id {int(tokens.max())} and the model has "
                f"{self.facts.vocab_size} symbols"
            )
        length, trained = tokens.shape[1], self.facts.train_length
        try:
            return self._states(tokens)[:, length - rows :]
        except (LpeEvalError, KeyboardInterrupt):
            raise
        except BaseException as error:
            if out_of_memory(error):
                raise
            if trained is not None and length > trained:
                raise LengthError(
                    f"it fails on {length} tokens, its training length is {trained}: {first_line(error)}"
                ) from error
            raise CheckpointError(f"{self._where} fails on {length} tokens: {first_line(error)}") from error

    @torch.inference_mode()
    def logits(self, hidden: Float[Tensor, "n e"]) -> Float[Tensor, "n v"]:
        return self.model.head(hidden) if self._split else hidden

    def _states(self, tokens: Tensor) -> Tensor:
        states = self.model.hidden(tokens) if self._split else self.model(tokens)
        self._check(states, (*tokens.shape, None), "hidden(tokens)" if self._split else "the model")
        return states

    def _check(self, made: Any, shape: tuple[int | None, ...], what: str) -> None:
        """Refuses what is no floating tensor of the shape, where None is any size."""
        wanted = "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"
        if not isinstance(made, Tensor):
            raise CheckpointError(f"{self._where}: {what} must return a tensor {wanted}, not {type(made).__name__}")
        fits = made.dim() == len(shape) and all(
            size in (None, real) for size, real in zip(shape, made.shape, strict=True)
        )
        if not fits or not made.is_floating_point():
            raise CheckpointError(
                f"{self._where}: {what} must return floating numbers of the shape {wanted}, not {made.dtype} of "
                f"{list(made.shape)}"
            )

    @torch.inference_mode()
    def _probe(self) -> int:
        """Runs the model on two texts of five tokens; returns how many symbols it scores."""
        tokens = torch.tensor([[0, 1, 0, 1, 0], [1, 0, 0, 1, 1]], device=self.device)
        with _told(self._where, "fails on a short text"):
            states = self._states(tokens)
            if not self._split:
                return states.shape[-1]
            made = self.model.head(states.flatten(0, 1))
            self._check(made, (tokens.numel(), None), "head(states)")
            return made.shape[-1]

    def _attribute(self, name: str, kind: type[_T]) -> _T | None:
        value = getattr(self.model, name, None)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise CheckpointError(f"{self._where}: the attribute {name} must be of type {kind.__name__}, not {value!r}")
        return value


def _open(text: str, options: LoadOptions) -> LanguageModel:
    target = _target(text)
    where = f"py:{text}"
    file = target.module.endswith(".py")
    home = Path(target.module).resolve().parent if file else Path.cwd()
    with _importable(home):
        with _told(where, "cannot be imported"):
            module = _import_file(Path(target.module), where) if file else importlib.import_module(target.module)
        factory = getattr(module, target.function, None)
        if not callable(factory):
            defined = [
                name for name, value in vars(module).items() if inspect.isfunction(value) or inspect.isclass(value)
            ]
            known = ", ".join(name for name in defined if not name.startswith("_")) or "none"
            raise CheckpointError(f"{where}: there is no function {target.function}; it has: {known}")
        model = _call(factory, target.settings, where)
        return _OwnModel(model, target, _source_of(module), options)


def _target(text: str) -> _Target:
    place, settings = split_settings(text)
    module, colon, function = place.rpartition(":")
    if not colon or not module or not function.isidentifier():
        raise CheckpointError(f"py:{text} names no function; write py:FILE.py:FUNCTION or py:package.module:FUNCTION")
    if "/" in module and not module.endswith(".py"):
        raise CheckpointError(f"py:{text}: {module} is no file that ends in .py and no package.module")
    return _Target(module, function, settings, text)


def _import_file(path: Path, where: str) -> ModuleType:
    if not path.is_file():
        raise CheckpointError(f"{where}: there is no file {path}")
    name = f"lpe_eval_own_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and annotations look their own module up by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _call(factory: Callable[..., Any], settings: dict[str, Any], where: str) -> Any:
    try:
        inspect.signature(factory).bind(**settings)
    except TypeError as error:
        raise CheckpointError(f"{where}: {factory.__name__} {inspect.signature(factory)}: {error}") from error
    except ValueError:
        # Some callables have no signature to look at; calling them tells.
        pass
    with _told(where, "fails"):
        return factory(**settings)


def _source_of(module: ModuleType) -> bytes:
    return Path(module.__file__).read_bytes() if module.__file__ else module.__name__.encode()


def _digest(model: Any, target: _Target, source: bytes) -> str:
    summed = hashlib.sha256(source)
    summed.update(f"\0{target.function}\0{sorted(target.settings.items(), key=str)!r}".encode())
    if isinstance(model, nn.Module):
        for name, tensor in sorted(model.state_dict().items()):
            held = tensor.detach().cpu().contiguous()
            summed.update(f"\0{name}{list(held.shape)}{held.dtype}".encode())
            summed.update(held.reshape(-1).view(torch.uint8).numpy().tobytes())
    return summed.hexdigest()


def _name(target: _Target) -> str:
    stem = Path(target.module).stem if target.module.endswith(".py") else target.module.rpartition(".")[2]
    settings = ",".join(f"{key}={value}" for key, value in target.settings.items())
    return f"{stem}:{target.function}" + (f"?{settings}" if settings else "")


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Lets code import its neighbours."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


@contextmanager
def _told(where: str, what: str) -> Iterator[None]:
    """One sentence for whatever somebody's code raises; the chained error keeps the traceback."""
    try:
        yield
    except (LpeEvalError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if out_of_memory(error):
            raise
        # Somebody's code may raise a class of its own, or call sys.exit and end the run as if all were well.
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        line = f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})" if trace is not None else ""
        raise CheckpointError(f"{where} {what}: {type(error).__name__}: {first_line(error)}{line}") from error
