"""The contract of a tokenizer: text to token ids, and how many bytes of the text each id stands for.

Bytes per token make bits per byte exact for any span: the scored tokens' nats are divided by the
scored tokens' own bytes, so numerator and denominator cannot part. Control tokens (BOS, EOS) are never
part of an encoding; windows and packing add them, which is why none can appear twice.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpe_eval.errors import DataError, LpeEvalError, SpecError
from lpe_eval.plain import first_line
from lpe_eval.registry import TOKENIZERS

ENDLESS = 1 << 31
"""The vocabulary of a tokenizer that does not say how many ids it knows."""

_SHORT_NAMES = {"hf": "huggingface", "py": "python"}
_KNOWN = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


class EncodedText(NamedTuple):
    """A text as tokens."""

    tokens: NDArray[np.int64]
    n_bytes: NDArray[np.int64]
    """UTF-8 bytes of the text that each token stands for; their sum is the text's, if there is any token."""


class Tokenizer(ABC):
    """Turns text into ids, and never adds a control token."""

    name: str
    """How `open_tokenizer` opens it again: `bytes`, `hf:PATH`."""
    vocab_size: int
    """Ids are below this."""
    bos_id: int | None
    eos_id: int | None
    adds_bos: bool
    """Whether it puts BOS before a text when left to itself: what `auto` means for BOS."""
    fingerprint: str
    """SHA-256 of everything that decides ids. Equal for equal tokenizers, wherever they came from."""
    a_byte_or_more: ClassVar[bool] = False
    """Whether no token stands for less than one byte, so that short texts need not be encoded."""

    @classmethod
    @abstractmethod
    def open(cls, argument: str) -> "Tokenizer":
        """The tokenizer that `argument` names; empty for a tokenizer that needs none.

        Raises:
            SpecError: the argument does not suit this kind of tokenizer.
            DataError: the tokenizer is missing or cannot be read.
            MissingExtra: it needs a package that is not installed.
        """

    @abstractmethod
    def encode(self, text: str) -> EncodedText:
        """The tokens of a text, without BOS or EOS."""


def open_tokenizer(text: str) -> Tokenizer:
    """The tokenizer that `text` names: `bytes`, or `hf:` and a local folder or a model id of the Hub.

    Raises:
        UnknownName: no tokenizer has that name.
        SpecError: the argument after the colon does not suit it.
        DataError: the tokenizer is missing or cannot be read.
        MissingExtra: it needs a package that is not installed.
    """
    name, _, argument = text.strip().partition(":")
    member = TOKENIZERS.load(_SHORT_NAMES.get(name, name))
    if not issubclass(member, Tokenizer):
        raise SpecError(f"the tokenizer {name!r} is not a subclass of lpe_eval.data.tokenizer.Tokenizer")
    try:
        return member.open(argument)
    except OSError as error:
        raise DataError(f"the tokenizer {text[:200]} cannot be read: {error.strerror or error}") from error


@contextmanager
def told_by(where: str, hint: str = "") -> Iterator[None]:
    """One sentence for whatever a library raises while it reads what `where` names.

    The library `tokenizers` is written in Rust: it raises bare `Exception`, of no class of its own, for what it
    cannot parse, and `PanicException` where it was not written to be wrong.

    Raises:
        DataError: with the first line of what the library says.
    """
    try:
        yield
    except (LpeEvalError, KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException" and not isinstance(error, _KNOWN):
            raise
        raise DataError(f"{where} cannot be loaded: {first_line(error)[:300]}{hint}") from error
