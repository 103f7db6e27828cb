"""Key tokens that somebody stored: spans of documents, read as data and never as a program.

Two forms are read:

    a folder of LongPPL's released code     `slice_0.txt`, `slice_1.txt`, ...: `[a, b];[c, d]`, in characters, one line
                                            for the document of that number, counted from 0 in the order of the data
    `key_tokens.jsonl` of a run of ours     a line a document: {"document": ..., "digest": ..., "bytes": [[a, b], ...]};
                                            "characters" may stand in place of "bytes", and one of the names may lack

The released code reads its files with `eval`. Here whatever is not numbers in brackets is refused.

Choices:
    * A line of ours belongs to the document with its digest; without a digest, to the document of that name.
    * Spans of a released folder come from a tokenizer that gives a blank before a word to the word's token or leaves it
      out. Where not one span of the folder begins with a blank, they were left out: the blanks right before a span may
      then belong to its first token.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from lpe_eval.data.corpus import Corpus, Document
from lpe_eval.data.spans import bytes_before
from lpe_eval.data.texts import Text
from lpe_eval.errors import DataError
from lpe_eval.plain import Unreadable, json_of, read_plain
from lpe_eval.text_tables import KEY_SPANS

_SLICE = re.compile(r"slice_(\d{1,9})\.txt")
_SPAN = re.compile(r"\s*\[\s*(\d{1,15})\s*,\s*(\d{1,15})\s*\]\s*")


class KeySpans(NamedTuple):
    """Spans by document.

    Attributes:
        fingerprint: SHA-256 of the files.
        spans: by digest, rising and apart, in bytes: the first byte that a token may have, the byte that it must
            reach, and the end.
    """

    fingerprint: str
    spans: Mapping[str, Int[np.ndarray, "m 3"]]


class _Stored(NamedTuple):
    """Spans of one document before its text was seen."""

    where: str
    spans: list[tuple[int, int]]
    in_characters: bool


def read_key_spans(path: Path, corpus: Corpus, split: str, documents: Mapping[str, str]) -> KeySpans:
    """The stored spans of some documents; others in the files are passed over.

    Args:
        path: a file or a folder of the forms above, or a run's folder.
        corpus: where the documents come from; read again where spans count characters.
        split: which of its splits.
        documents: the digest of each that is measured, by name.

    Raises:
        DataError: the files cannot be read, hold something else, or belong to other text.
    """
    path = path.expanduser()
    if path.is_dir() and (path / KEY_SPANS).is_file():
        path = path / KEY_SPANS
    if path.is_dir():
        return _released(path, corpus, split, documents)
    text = _text(path)
    stored, names = _ours(path, text, documents)
    if any(each.in_characters for each in stored.values()):
        texts = {documents[each.name]: each for _, each in _wanted(corpus, split, names)}
        found = {digest: _in_bytes(each, texts.get(digest)) for digest, each in stored.items()}
    else:
        found = {digest: tidy([(a, a, b) for a, b in each.spans]) for digest, each in stored.items()}
    if not found:
        raise DataError(f"{path} has no key tokens of any document that is measured; they are of another text")
    return KeySpans(hashlib.sha256(text.encode()).hexdigest(), found)


def tidy(spans: Sequence[tuple[int, int, int]]) -> Int[np.ndarray, "m 3"]:
    """Spans in rising order, those that overlap or touch joined."""
    found: list[tuple[int, int, int]] = []
    for earliest, first, end in sorted(spans, key=lambda each: (each[1], each[2])):
        if end <= first:
            continue
        if found and first <= found[-1][2]:
            found[-1] = (found[-1][0], found[-1][1], max(found[-1][2], end))
        else:
            # Blanks up to the span before are not also this one's.
            found.append((max(earliest, found[-1][2] if found else 0), first, end))
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def _released(folder: Path, corpus: Corpus, split: str, documents: Mapping[str, str]) -> KeySpans:
    files = {int(found[1]): file for file in folder.iterdir() if (found := _SLICE.fullmatch(file.name))}
    if not files:
        raise DataError(f"{folder} holds no key tokens: neither {KEY_SPANS} nor slice_0.txt and its like")
    texts = {number: _text(file) for number, file in sorted(files.items())}
    stored = {number: _Stored(str(files[number]), _spans(files[number], text), True) for number, text in texts.items()}
    held = {number: each for number, each in _wanted(corpus, split, documents) if number in stored}
    if not held:
        raise DataError(
            f"no document that is measured has one of the numbers of {folder}; a number is a document's place in the "
            "data, so measure the data that the key tokens were made of"
        )
    told: dict[int, tuple[str, list[tuple[int, int, int]]]] = {}
    blanks = False
    for number, document in held.items():
        text = _start(document, stored[number])
        blanks = blanks or any(text[a : a + 1] == " " for a, b in stored[number].spans if b > a)
        told[number] = text, [(_before_blanks(text, a), a, b) for a, b in stored[number].spans]
    found = {}
    for number, (text, spans) in told.items():
        at = bytes_before(text)
        as_they_are = [(a if blanks else earliest, a, b) for earliest, a, b in spans]
        found[documents[held[number].name]] = tidy([(int(at[e]), int(at[a]), int(at[b])) for e, a, b in as_they_are])
    whole = hashlib.sha256("".join(f"{number}\0{text}\0" for number, text in texts.items()).encode())
    return KeySpans(whole.hexdigest(), found)


def _spans(path: Path, text: str) -> list[tuple[int, int]]:
    """The spans of a released file; an empty one has none."""
    parts = [part for part in text.strip().split(";") if part.strip()]
    found = [_SPAN.fullmatch(part) for part in parts]
    for part, each in zip(parts, found, strict=True):
        if each is None:
            raise DataError(f"{path} has {part.strip()[:60]!r} where a span such as [12, 15] belongs")
    pairs = [(int(each[1]), int(each[2])) for each in found if each is not None]
    return [_rising(path, *pair) for pair in pairs]


def _ours(path: Path, text: str, documents: Mapping[str, str]) -> tuple[dict[str, _Stored], dict[str, str]]:
    """By digest what is stored, and the digests by the names of those documents."""
    digests = {digest: name for name, digest in documents.items()}
    found: dict[str, _Stored] = {}
    makers: set[tuple[str, str]] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json_of(line)
        except Unreadable as error:
            raise DataError(f"{where} {error}") from error
        if not isinstance(value, dict) or not ({"bytes", "characters"} & value.keys()):
            raise DataError(f"{where} names no spans; it needs a key bytes or characters")
        makers.add((str(value.get("model", "")), str(value.get("protocol", ""))))
        if len(makers) > 1:
            said = " and ".join(sorted({f"{model} ({protocol})" for model, protocol in makers}))
            raise DataError(f"{path} has key tokens that {said} chose; keep the lines of one of them")
        digest = value["digest"] if "digest" in value else documents.get(str(value.get("document")))
        in_characters = "bytes" not in value
        spans = _pairs(where, value["characters" if in_characters else "bytes"])
        if isinstance(digest, str) and digest in digests:
            found[digest] = _Stored(where, spans, in_characters)
    return found, {digests[digest]: digest for digest in found}


def _pairs(where: str, value: Any) -> list[tuple[int, int]]:
    fits = isinstance(value, list) and all(
        isinstance(each, list) and [type(end) for end in each] == [int, int] for each in value
    )
    if not fits:
        raise DataError(f"{where}: spans are a list of pairs of whole numbers")
    return [_rising(where, *pair) for pair in value]


def _rising(where: object, start: int, end: int) -> tuple[int, int]:
    if not 0 <= start <= end < 1 << 50:
        raise DataError(f"{where} has a span from {start} to {end}, which is none")
    return start, end


def _wanted(corpus: Corpus, split: str, documents: Mapping[str, str]) -> Iterator[tuple[int, Document]]:
    """The documents of these names, with their place in the data."""
    left = set(documents)
    for number, document in enumerate(corpus.documents(split)):
        if not left:
            return
        if document.name in left:
            left.remove(document.name)
            yield number, document


def _in_bytes(stored: _Stored, document: Document | None) -> Int[np.ndarray, "m 3"]:
    if document is None:
        raise DataError(f"{stored.where} counts characters of a document that has no text here")
    at = bytes_before(_start(document, stored))
    return tidy([(int(at[a]), int(at[a]), int(at[b])) for a, b in stored.spans])


def _start(document: Document, stored: _Stored) -> str:
    """As much of a text as the spans reach."""
    reach = max((end for _, end in stored.spans), default=0)
    if document.text is None or document.tokens is not None:
        raise DataError(f"{stored.where} counts characters, and {document.name} has no text")
    text = document.text.start(reach) if isinstance(document.text, Text) else document.text[:reach]
    if len(text) < reach:
        raise DataError(
            f"{stored.where} has a span up to character {reach}, and {document.name} has {len(text)}: the spans are of "
            "another text"
        )
    return text


def _before_blanks(text: str, start: int) -> int:
    while start > 0 and text[start - 1] == " ":
        start -= 1
    return start


def _text(path: Path) -> str:
    try:
        return read_plain(path)
    except Unreadable as error:
        raise DataError(f"{path} {error}") from error
