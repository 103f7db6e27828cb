"""The order in which documents are looked at: by the seeded hash of their names, each read when its turn comes."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from lpe_eval.data.corpus import Corpus, Document, Part
from lpe_eval.data.texts import Text, text_bytes
from lpe_eval.errors import DataError

Reread = Callable[[], Document]
"""Gives a document again that has been looked at."""


def visit(corpus: Corpus, split: str, seed: int) -> Iterator[tuple[Document, Reread]]:
    """The documents of a split in their order, each with what gives it again.

    Raises:
        DataError: one cannot be read.
    """
    if corpus.streams:
        yield from ((each, _same(each)) for each in corpus.documents(split))
        return
    parts = corpus.parts(split)
    if parts is not None:
        for part, number in _ordered(parts, seed):
            document = part.read(number)
            if document is not None:
                held = isinstance(document.text, Text)
                yield document, _same(document) if held else partial(_read_again, part, number)
        return
    waiting = sorted(corpus.documents(split), key=lambda each: (_rank(each.name, seed), each.name), reverse=True)
    while waiting:
        # Popping lets go of texts that have been looked at.
        document = waiting.pop()
        yield document, _same(document)


def _ordered(parts: Sequence[Part], seed: int) -> Iterator[tuple[Part, int]]:
    """The places of all documents in the order of the hashes of their names; eight bytes are kept of each."""
    sizes = [len(part) for part in parts]
    first = np.cumsum([0, *sizes])
    names = ((part, number) for part, size in zip(parts, sizes, strict=True) for number in range(size))
    ranks = np.fromiter(
        (int.from_bytes(_rank(part.name(number), seed)[:8], "big") for part, number in names), np.uint64, first[-1]
    )
    order = np.argsort(ranks, kind="stable")

    def place(at: int) -> tuple[Part, int]:
        holder = int(np.searchsorted(first, at, side="right")) - 1
        return parts[holder], at - int(first[holder])

    begin = 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and ranks[order[end]] == ranks[order[begin]]:
            end += 1
        alike = [place(int(at)) for at in order[begin:end]]
        yield from sorted(alike, key=lambda each: (_rank(name := each[0].name(each[1]), seed), name))
        begin = end


def _same(document: Document) -> Reread:
    return lambda: document


def _read_again(part: Part, number: int) -> Document:
    document = part.read(number)
    if document is None:
        raise DataError(f"{part.name(number)} changed while it was read; run again")
    return document


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0".encode() + text_bytes(name)).digest()
