"""The contract of a corpus: named documents of a split, and the facts that say where they came from.

A corpus reads; it neither shuffles nor tokenises nor cuts. Which documents are used, and the hash of
their content, is decided in `selection.py`, so that it is decided in one way for every source.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpe_eval.data.texts import Text
from lpe_eval.errors import DataError, SpecError
from lpe_eval.plain import printable
from lpe_eval.registry import CORPORA
from lpe_eval.spec.corpus_spec import CorpusSpec


class Document(NamedTuple):
    """One document.

    Bytes that are not UTF-8 may stand in the text as surrogate escapes (PEP 383), so that
    `texts.text_bytes` gives back the file.
    """

    name: str
    """Unique in its split, and the same in every run."""
    text: str | Text | None
    """None where a row holds a null; a `Text` where it need not be held whole."""
    tokens: NDArray[np.integer] | None = None
    """Ids, where the source holds ids and no text."""


class Part(ABC):
    """Some documents whose names are known before they are read; mostly one file."""

    @abstractmethod
    def __len__(self) -> int:
        """How many places for documents it has."""

    @abstractmethod
    def name(self, number: int) -> str:
        """The name of the document at a place."""

    @abstractmethod
    def read(self, number: int) -> Document | None:
        """The document at a place; None where there is none, as in a blank line.

        Raises:
            DataError: it cannot be read.
        """


class Optimum(NamedTuple):
    """What is known of a text whose best possible loss is known.

    Attributes:
        symbols: the characters that it is made of, each one byte.
        losses: from a window, as the places of its characters in `symbols` (int64, [n]), the nats of each of them for
            the best guess by those who see what stands before it in the window and nothing else (float64, [n]). The
            first is guessed from nothing: it is a target where BOS stands before it.
    """

    symbols: str
    losses: Callable[[NDArray[np.int64]], NDArray[np.float64]]


class Corpus(ABC):
    """A source of documents.

    Args:
        spec: what to open.

    Raises:
        SpecError: the spec lacks something that this kind of corpus needs.
        DataError: the source is missing or cannot be read.
    """

    default_split: ClassVar[str] = "test"
    """The split of a spec that names none."""
    bibtex: ClassVar[str] = ""
    """What to cite for the text, as BibTeX, where the source is one known text."""

    def __init__(self, spec: CorpusSpec) -> None:
        self.spec = spec

    @property
    def label(self) -> str:
        """Name in tables and messages."""
        return printable(str(self.spec))

    @property
    def split(self) -> str:
        """The split that the spec asks for."""
        return self.spec.split or self.default_split

    @property
    def streams(self) -> bool:
        """Whether documents can only be taken in the order in which they come."""
        return False

    @property
    def holds_ids(self) -> bool:
        """Whether documents are token ids, so that no tokenizer is needed."""
        return False

    @property
    def remedy(self) -> str:
        """What to do where no document is long enough."""
        return "lower --lengths, or use --pack"

    def parts(self, split: str) -> Sequence[Part] | None:
        """The documents of a split, of which only those that are wanted need be read; None where that cannot be.

        Raises:
            DataError: there is no such split, or its files cannot be listed.
        """
        return None

    def remarks(self) -> list[str]:
        """What a reader of the numbers should know of how the text was taken, in sentences."""
        return []

    def optimum(self) -> Optimum | None:
        """How well the text can be guessed at best; None where nobody knows, as of all text that people wrote."""
        return None

    @abstractmethod
    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split, in an order that is the same in every run.

        Raises:
            DataError: there is no such split, or a document cannot be read.
        """

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Facts for a run's provenance: paths, revisions, versions. Costs no reading of documents."""


def open_corpus(spec: CorpusSpec) -> Corpus:
    """The corpus that a spec names.

    Raises:
        UnknownName: no corpus has that name.
        SpecError: what has that name is no corpus, or the spec does not suit it.
        DataError: the source is missing or cannot be read.
    """
    member = CORPORA.load(spec.name)
    if not issubclass(member, Corpus):
        raise SpecError(f"the corpus {spec.name!r} is not a subclass of lpe_eval.data.corpus.Corpus")
    return member(spec)


def text_of(row: Mapping[str, Any], column: str, where: str) -> str | None:
    """The text of one row of a table or one JSON object; None where it holds a null.

    Raises:
        DataError: there is no such column, or it does not hold text.
    """
    if column not in row:
        raise DataError(
            f"{where} has no column {column!r}, only {', '.join(map(repr, row))}; choose with --text-column"
        )
    text = row[column]
    if text is not None and not isinstance(text, str):
        raise DataError(f"the column {column!r} of {where} holds {type(text).__name__}, not text; choose another one")
    return text
