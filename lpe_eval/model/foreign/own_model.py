"""Somebody's object behind the language-model contract."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lpe_eval.errors import CheckpointError, CodeError, LengthError, LpeEvalError, one_sentence
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.foreign.module_facts import architecture_of, position_tensors_of
from lpe_eval.model.foreign.module_state import FreshState
from lpe_eval.model.foreign.own_digest import digest_of
from lpe_eval.model.foreign.own_logits import (
    OnlyTheLast,
    likely_widths,
    refuse_other_logits,
    targets_name,
    tensor_of,
    with_targets,
)
from lpe_eval.model.foreign.own_placing import Placed
from lpe_eval.model.language_model import LanguageModel, ModelFacts, PositionTensor
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.own_code import Made, told

_T = TypeVar("_T")
_BYTES = range(256, 259)
_SHORT = 5
_LONGER = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Tokens of a first try, and of those for models that run on some lengths only, such as multiples of a chunk."""


class OwnModel(LanguageModel):
    """What a function of the user's returned, ready to be measured.

    Args:
        made: the object, and where it comes from.
        options: device and dtype; the lengths that will be measured, for models that do not run on others.

    Raises:
        CheckpointError: it is no model, or cannot be asked for logits of all tokens.
        CodeError: it cannot run on a short text.
    """

    def __init__(self, made: Made, options: LoadOptions) -> None:
        model, encode = made.value, None
        if isinstance(model, tuple) and len(model) == 2 and callable(model[1]):
            model, encode = model
        self.model: Any = model
        self.device, self.dtype = options.device, options.dtype
        self._where, self._lent = made.target.where, made.lent
        split = callable(inspect.getattr_static(type(model), "hidden", None)) and callable(getattr(model, "head", None))
        if not split and not callable(model):
            raise CheckpointError(
                f"{self._where} returned {type(model).__name__}, which is neither callable on tokens nor has "
                "hidden(tokens) and head(states)"
            )
        self._split = split
        self._targets: str | None = None
        self._state: FreshState | None = None
        self._widths = likely_widths(model)
        placed = None
        with told(self._where, f"cannot be put on {options.device} in evaluation mode"):
            placed = Placed(model, options.device, options.dtype) if isinstance(model, nn.Module) else None
        with told(self._where, "has weights that cannot be read"):
            digest = digest_of(model, made.describes())
        train_length = self._attribute("train_length", int)
        lengths = [*options.lengths, *([train_length] if train_length else []), *_LONGER]
        vocabulary = self._probe(lengths) if placed is None else placed.settle(lambda: self._probe(lengths))
        self._notes = [] if placed is None else placed.notes()
        if self._targets:
            self._notes.append(f"it is given its tokens as `{self._targets}`, for logits of all tokens")
        declared = self._attribute("vocab_size", int)
        if declared is not None and declared != vocabulary:
            raise CheckpointError(
                f"{self._where} says vocab_size {declared} and makes {vocabulary} logits for each token"
            )
        self._widths = {vocabulary}
        self._whole = 0 if split else vocabulary * self._item
        weights = list(model.parameters()) if isinstance(model, nn.Module) else []
        self.facts = ModelFacts(
            name=self._attribute("name", str) or made.target.name,
            format="python",
            encoding=self._attribute("encoding", str) or "unknown",
            train_length=train_length,
            vocab_size=vocabulary,
            tokenizer=options.tokenizer or self._tokenizer(made, encode, vocabulary),
            n_parameters=self._attribute("n_parameters", int) or sum(each.numel() for each in weights),
            digest=digest,
        )

    @property
    def attention(self) -> str:
        return "own"

    def least_bytes(self, length: int) -> int:
        return length * self._whole

    def architecture(self) -> list[tuple[str, str]]:
        return architecture_of(self.model)

    def position_tensors(self) -> Iterator[PositionTensor]:
        return position_tensors_of(self.model)

    def notes(self) -> Sequence[str]:
        return self._notes

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
                    f"it fails on {length} tokens, its training length is {trained}: {one_sentence(error)}"
                ) from error
            raise CodeError(f"{self._where} fails on {length} tokens: {one_sentence(error)}") from error

    @torch.inference_mode()
    def logits(self, hidden: Float[Tensor, "n e"]) -> Float[Tensor, "n v"]:
        if not self._split:
            return hidden
        with told(self._where, "fails in head(states)"), _kept_apart(self._lent):
            return self.model.head(hidden)

    def _states(self, tokens: Int[Tensor, "b t"]) -> Tensor:
        with _kept_apart(self._lent):
            return self._made(tokens.clone() if self._lent else tokens)

    def _made(self, tokens: Int[Tensor, "b t"]) -> Tensor:
        if self._state is not None:
            self._state.restore()
        what = f"{self._where}: {'hidden(tokens)' if self._split else 'the model'}"
        if self._targets is not None:
            return with_targets(self.model, self._targets, tokens, self._widths, what)
        made = self.model.hidden(tokens) if self._split else self.model(tokens)
        widths = () if self._split else self._widths
        found = tensor_of(made, (tokens.shape[0], tokens.shape[1]), widths, what)
        if isinstance(found, Tensor):
            return found
        name = None if self._split else targets_name(self.model)
        if name is None:
            raise CheckpointError(
                f"{what} returns logits of the last token only; it must return those of all tokens, with the shape "
                f"[{tokens.shape[0]}, {tokens.shape[1]}, any]"
            )
        return self._given_targets(tokens, name, found, what)

    def _given_targets(self, tokens: Tensor, name: str, alone: OnlyTheLast, what: str) -> Tensor:
        given = with_targets(self.model, name, tokens, {alone.logits.shape[-1]}, what)
        refuse_other_logits(alone, given, what)
        self._targets = name
        return given

    def _probe(self, lengths: Sequence[int]) -> int:
        """Runs the model on two short texts; returns how many symbols it scores.

        Where it does not run on five tokens, the next of `lengths` is tried.
        """
        self._targets = None
        # Anew for each trial, since buffers may have been cast after the one before.
        self._state = FreshState(self.model) if isinstance(self.model, nn.Module) else None
        first: LpeEvalError | None = None
        try:
            for length in (_SHORT, *lengths):
                try:
                    return self._symbols(length)
                except (CodeError, LengthError) as error:
                    first = first or error
        finally:
            if self._state is not None:
                self._state.restore()
        assert first is not None
        raise first

    @torch.inference_mode()
    def _symbols(self, length: int) -> int:
        tokens = torch.arange(length, device=self.device).remainder(2).repeat(2, 1)
        tokens[1] = 1 - tokens[1]
        with told(self._where, "fails on a short text"):
            states = self._states(tokens)
            self._item = states.element_size()
            if not self._split:
                return states.shape[-1]
            made = self.model.head(states.flatten(0, 1))
            if not isinstance(made, Tensor) or made.dim() != 2 or len(made) != tokens.numel():
                shape = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
                raise CheckpointError(
                    f"{self._where}: head(states) must return a tensor [{tokens.numel()}, any], not {shape}"
                )
            if not made.is_floating_point():
                raise CheckpointError(f"{self._where}: head(states) must return floating numbers, not {made.dtype}")
            return made.shape[-1]

    def _tokenizer(self, made: Made, encode: Callable[..., Any] | None, vocabulary: int) -> str:
        """Which tokenizer suits: the one it names, its own function, bytes where there are as many symbols, or none."""
        named = self._attribute("tokenizer", str) if isinstance(getattr(self.model, "tokenizer", None), str) else None
        encode = encode or getattr(self.model, "encode", None)
        if named is not None:
            return named
        if callable(encode) and (vocabulary not in _BYTES or _takes_text(encode)):
            return made.target.where
        if vocabulary in _BYTES:
            return "bytes"
        # Text that is token ids needs none; whoever encodes text says that there is none.
        return ""

    def _attribute(self, name: str, kind: type[_T]) -> _T | None:
        value = getattr(self.model, name, None)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise CheckpointError(f"{self._where}: the attribute {name} must be of type {kind.__name__}, not {value!r}")
        return value


@contextmanager
def _kept_apart(lent: bool) -> Iterator[None]:
    """Inside, what a module keeps of a pass can be trained with, if it is `lent`.

    Tensors of PyTorch's inference mode cannot, and a module may keep a table of angles that it made in its first pass.
    """
    if not lent:
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def _takes_text(encode: Callable[..., Any]) -> bool:
    """Whether a method of that name makes ids of a text; a model may mean something else by it."""
    try:
        return all(isinstance(each, int) for each in encode("a"))
    except Exception:
        return False
