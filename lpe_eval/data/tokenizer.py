"""The contract of a tokenizer: text to token ids, and how many bytes of the text each id stands for.

Bytes per token make bits per byte exact for any span: the scored tokens' nats are divided by the
scored tokens' own bytes, so numerator and denominator cannot part. Control tokens (BOS, EOS) are never
part of an encoding; windows and packing add them, which is why none can appear twice.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpe_eval.addresses import listed, typed_address, without_protocol
from lpe_eval.data.texts import Text
from lpe_eval.errors import DataError, LpeEvalError, SpecError
from lpe_eval.fetched import fetched
from lpe_eval.plain import first_line
from lpe_eval.registry import TOKENIZERS

ENDLESS = 1 << 31
"""The vocabulary of a tokenizer that does not say how many ids it knows."""

IDS = "ids"
"""The tokenizer of text that is token ids already."""

_NO_TOKENIZER = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
"""Endings of what is not fetched of a folder with a tokenizer."""
_SHORT_NAMES = {"hf": "huggingface", "py": "python"}
_PACKAGES = {
    "sentencepiece": "sentencepiece",
    "protobuf": "google.protobuf",
    "sacremoses": "sacremoses",
    "tiktoken": "tiktoken",
    "blobfile": "blobfile",
    "jieba": "jieba",
    "rjieba": "rjieba",
    "pythainlp": "pythainlp",
    "fugashi": "fugashi",
    "sudachipy": "sudachipy",
    "rhoknp": "rhoknp",
    "phonemizer": "phonemizer",
}
"""What tokenizers of `transformers` may need, by the name to install, and the module that shows whether it is there."""


class EncodedText(NamedTuple):
    """A text as tokens."""

    tokens: NDArray[np.int64]
    n_bytes: NDArray[np.int64]
    """UTF-8 bytes of the text that each token stands for; their sum is the text's, if there is any token.

    All zero where a tokenizer cannot tell."""


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
    unknown_id: int | None = None
    """What it gives for a part of the text that no symbol of it stands for, if it does."""
    prefix: tuple[str, ...] = ()
    """The control tokens that it puts before a text when left to itself, where they are more than BOS."""
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

    @classmethod
    def open_with_code(cls, argument: str) -> "Tokenizer":
        """As `open`, where Python code beside the tokenizer may be run; most kinds have none."""
        return cls.open(argument)

    @abstractmethod
    def encode(self, text: str) -> EncodedText:
        """The tokens of a text, without BOS or EOS."""

    def first_tokens(self, text: Text, most: int) -> EncodedText:
        """The first `most` tokens that `encode` gives for the whole text; fewer where it has no more.

        Override it where not all of a long text has to be encoded for that.
        """
        whole = self.encode(text.whole())
        return EncodedText(whole.tokens[:most], whole.n_bytes[:most])

    def stored(self) -> tuple[str, Mapping[str, bytes]]:
        """How a checkpoint keeps it: the name that opens it from there, and files by their paths in the checkpoint.

        The name has `FOLDER` of `spec/model_spec.py` for the checkpoint's folder. The default keeps the name alone.
        """
        return self.name, {}


def open_tokenizer(text: str, trust_remote_code: bool = False) -> Tokenizer:
    """The tokenizer that `text` names: `bytes`, `char:FILE`, or `hf:` and a local folder or a model id of the Hub.

    Args:
        text: its name.
        trust_remote_code: whether Python code beside it may be run.

    Raises:
        UnknownName: no tokenizer has that name.
        SpecError: the argument after the colon does not suit it.
        DataError: the tokenizer is missing or cannot be read.
        MissingExtra: it needs a package that is not installed.
    """
    name, _, argument = text.strip().partition(":")
    if not name:
        raise SpecError("no tokenizer is named; write bytes, char:FILE or hf:PATH")
    member = TOKENIZERS.load(_SHORT_NAMES.get(name, name))
    if not issubclass(member, Tokenizer):
        raise SpecError(f"the tokenizer {name!r} is not a subclass of lpe_eval.data.tokenizer.Tokenizer")
    address = typed_address(argument)
    argument = without_protocol(argument) if address is None else str(_copied(address))
    try:
        return member.open_with_code(argument) if trust_remote_code else member.open(argument)
    except OSError as error:
        raise DataError(f"the tokenizer {text[:200]} cannot be read: {error.strerror or error}") from error


def _copied(address: str) -> Path:
    """A tokenizer's file or folder at an address, on this machine; of a folder what is beside weights."""
    found = listed(address, DataError, 1)
    if not found.entries:
        raise DataError(f"there is no tokenizer at {address}; check the bucket and the place in it")
    if found.is_file:
        return fetched(found, DataError)
    return fetched(found, DataError, lambda names: [each for each in names if not each.endswith(_NO_TOKENIZER)])


@contextmanager
def told_by(where: str, hint: str = "", what: str = "cannot be loaded") -> Iterator[None]:
    """One sentence for whatever a library raises while it reads what `where` names.

    The library `tokenizers` is written in Rust: it raises bare `Exception`, of no class of its own, for what it
    cannot parse, and `PanicException` where it was not written to be wrong. Code beside a checkpoint raises anything.

    Raises:
        DataError: with the first line of what the library says, or with the package that it misses.
    """
    try:
        yield
    except (LpeEvalError, KeyboardInterrupt, MemoryError, GeneratorExit):
        raise
    except BaseException as error:
        missing = _missing_packages(str(error))
        if missing and not isinstance(error, OSError):
            raise DataError(
                f"{where} needs packages that are not installed: pip install {' '.join(missing)}"
            ) from error
        name = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        known = type(error) is Exception or type(error).__name__ == "PanicException"
        raise DataError(f"{where} {what}: {'' if known else name}{first_line(error)[:300]}{hint}") from error


def _missing_packages(said: str) -> list[str]:
    """The packages that an error names and that are not here."""
    return [package for package in _PACKAGES if package in said.lower() and is_missing(package)]


def is_missing(package: str) -> bool:
    """Whether a package that tokenizers may need is not installed."""
    try:
        return find_spec(_PACKAGES.get(package, package)) is None
    except (ImportError, ValueError):
        return True
