"""Text that is generated: documents by their number, drawn from numbers that are the same on every machine.

The numbers are 64-bit words of SHAKE-256 (FIPS 202) of a sentence that names the law, the seed, the split and the
document, and a law takes whole numbers from them by multiplying and shifting. No floating-point number and no
generator of a library takes part, so the text is the same, byte for byte, with every version of every library.

Choices:
    * The length of a document and the number of documents are not part of that sentence. A longer document begins as
      the shorter one, and more documents are those that were there and further ones.
    * A number below n is floor(word * n / 2^64), which is off from uniform by less than n / 2^64.
    * Nothing is drawn before a document is read.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Int
from pydantic import BaseModel, ConfigDict, Field

from lpe_eval.data.corpus import Corpus, Document, Optimum, Part
from lpe_eval.errors import DataError, SpecError
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.fingerprint import canonical
from lpe_eval.spec.tasks import LARGEST_SEED, parse_spec

SYMBOLS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
"""What documents are made of, a byte each; a law with fewer symbols takes the first."""

_DOCUMENTS = {"train": 512, "valid": 16, "test": 128}
"""How many documents a split has unless the options say otherwise."""
_NO_LAW = {"length", "documents"}
_LONGEST, _MOST = 1 << 24, 1 << 20
_AT_ONCE = 1 << 16


class GeneratedOptions(BaseModel):
    """Options that all generated text has; members subclass it inside their class as `Options`.

    Attributes:
        symbols: how many of `SYMBOLS` there are.
        length: characters of a document.
        documents: of every split; None is 512 for train, 16 for valid and 128 for test.
        seed: of all draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbols: int = Field(default=len(SYMBOLS), ge=2, le=len(SYMBOLS), strict=True)
    length: int = Field(default=32768, ge=2, le=_LONGEST, strict=True)
    documents: int | None = Field(default=None, ge=1, le=_MOST, strict=True)
    seed: int = Field(default=0, ge=-LARGEST_SEED, le=LARGEST_SEED, strict=True)


class Generated(Corpus):
    """A corpus whose documents are drawn from a law. A member draws one, and knows its best possible losses.

    Args:
        spec: what to open; its options are those of the member.

    Raises:
        SpecError: there is no such option, its value cannot be, or a path is given.
    """

    Options: ClassVar[type[GeneratedOptions]] = GeneratedOptions

    def __init__(self, spec: CorpusSpec) -> None:
        super().__init__(spec)
        self._name = spec.name.replace("_", "-")
        if spec.path is not None:
            raise SpecError(f"the corpus {self._name} is generated and has no path; leave {spec.path} out")
        self.options = parse_spec(dict(spec.options), self.Options, f"the corpus {self._name}")

    @property
    def label(self) -> str:
        given = "&".join(f"{name}={value}" for name, value in sorted(self.spec.options.items()))
        return f"{self._name}?{given}" if given else self._name

    @property
    def remedy(self) -> str:
        return f"lower --lengths, or ask for longer documents, as in --data '{self._name}?length=65536'"

    def parts(self, split: str) -> Sequence[Part]:
        if split not in _DOCUMENTS:
            raise DataError(f"{self._name} has no split {split!r}; it has {', '.join(_DOCUMENTS)}")
        return [_Drawn(self, split, self.options.documents or _DOCUMENTS[split])]

    def documents(self, split: str) -> Iterator[Document]:
        for part in self.parts(split):
            for number in range(len(part)):
                document = part.read(number)
                assert document is not None
                yield document

    def describe(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.options.model_dump(mode="json").items() if value is not None}

    def document(self, split: str, number: int) -> Document:
        """The document of a number in a split."""
        law = canonical({"law": self._name, **self.options.model_dump(mode="json", exclude=_NO_LAW)})
        return Document(f"{split}/{number}", self.draw(f"{law} {split} {number}"))

    @abstractmethod
    def draw(self, key: str) -> str:
        """The text of a document, whose words are those of a key."""

    @abstractmethod
    def optimum(self) -> Optimum:
        """What the text is made of, and the best possible losses of a window."""


class _Drawn(Part):
    """The documents of a split."""

    def __init__(self, corpus: Generated, split: str, size: int) -> None:
        self._corpus, self._split, self._size = corpus, split, size

    def __len__(self) -> int:
        return self._size

    def name(self, number: int) -> str:
        return f"{self._split}/{number}"

    def read(self, number: int) -> Document:
        return self._corpus.document(self._split, number)


def words(key: str, count: int) -> Iterator[int]:
    """The first 64-bit words of a key; more words of the same key begin with them."""
    drawn = np.frombuffer(hashlib.shake_256(key.encode()).digest(8 * count), dtype="<u8")
    for start in range(0, count, _AT_ONCE):
        # A number of Python has four times the bytes of a word.
        yield from drawn[start : start + _AT_ONCE].tolist()


def below(word: int, bound: int) -> int:
    """A whole number from 0 to `bound` - 1, from a word."""
    return word * bound >> 64


def times_before(values: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """How often each value occurred before."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(values)])
    found = np.empty(len(values), dtype=np.int64)
    found[order] = np.arange(len(values)) - np.repeat(first, np.diff(first, append=len(values)))
    return found
