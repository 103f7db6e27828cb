"""Which documents are measured: chosen once for a whole sweep, so that every length reads the same text.

Documents are visited in the order of a seeded hash of their names. Adding or removing a document moves
no other one, and no list has to be stored. Only documents with more tokens than the longest length are
taken, since a shorter one would have no full window there; that choice favours long documents, and the
counts in `Selection` say how strongly. A streaming corpus is taken in its own order.

With `pack`, all documents become one stream in which each is followed by EOS, as in KERPLE's evaluation
(Chi et al. 2022). Windows then reach across documents, and "context" may be another document.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpe_eval.data.corpus import Corpus, Document, text_bytes
from lpe_eval.data.tokenizer import EncodedText, Tokenizer
from lpe_eval.data.windows import Bos
from lpe_eval.errors import DataError, SpecError


class EncodedDocument(NamedTuple):
    """A document as tokens, perhaps cut at its end."""

    name: str
    digest: str
    """SHA-256 of the whole document's bytes; where it has no text, of the ids read."""
    tokens: NDArray[np.int64]
    n_bytes: NDArray[np.int64]
    """Bytes of text that each token stands for; all zero where the source holds ids and no text."""


class Selection(NamedTuple):
    """The documents of a sweep."""

    documents: list[EncodedDocument]
    fingerprint: str
    """SHA-256 over the name, the content and the number of tokens kept of each document used."""
    n_eligible: int
    """Documents long enough, of those looked at; with `pack`, documents in the stream."""
    n_seen: int
    """Documents looked at before there was enough."""


def choose_documents(
    corpus: Corpus,
    split: str,
    tokenizer: Tokenizer,
    *,
    longest: int,
    max_tokens: int,
    seed: int,
    pack: bool = False,
    bos: Bos = "never",
    cap: int | None = None,
) -> Selection:
    """Takes documents until `max_tokens` are reached.

    Args:
        corpus: where documents come from.
        split: which of its splits.
        tokenizer: what makes tokens of them.
        longest: the longest length of the sweep; a document must have one token more.
        max_tokens: tokens in all. The last document is cut to what is left, or left out where that
            is too short; the first is always taken, with at least `longest + 1` tokens.
        seed: of the order in which documents are visited.
        pack: whether all become one stream with EOS after each document.
        bos: which windows will start with BOS; a document that brings its own is then refused.
        cap: the most tokens taken from one document, so that no single one rules the average;
            None is half a longest window more than one full one.

    Raises:
        SpecError: `cap` or `max_tokens` cannot be.
        DataError: no document is long enough, or one has ids that the tokenizer does not know.
    """
    minimum = longest + 1
    cap = minimum + longest // 2 if cap is None else cap
    if cap < minimum:
        raise SpecError(f"at most {cap} tokens of a document leave no full window of {longest}; allow {minimum}")
    if max_tokens < 1:
        raise SpecError(f"the number of tokens must be at least 1, not {max_tokens}")
    text = _Text(corpus, split, tokenizer, bos, seed)
    if pack:
        return _pack(text, minimum, max(max_tokens, minimum))
    return _choose(text, minimum, max_tokens, cap)


class _Text(NamedTuple):
    """Where documents come from, what makes tokens of them, and the seed of their order."""

    corpus: Corpus
    split: str
    tokenizer: Tokenizer
    bos: str
    seed: int


def _choose(text: _Text, minimum: int, max_tokens: int, cap: int) -> Selection:
    chosen: list[EncodedDocument] = []
    n_seen = most = 0
    left = max_tokens
    for document in _visit(text):
        if chosen and left < minimum:
            break
        n_seen += 1
        if document.tokens is None and text.tokenizer.a_byte_or_more:
            n_bytes = len(text_bytes(document.text))
            if n_bytes < minimum:
                most = max(most, n_bytes)
                continue
        encoded = _encode(document, text, cap)
        most = max(most, len(encoded.tokens))
        if len(encoded.tokens) < minimum:
            continue
        kept = min(len(encoded.tokens), cap, max(left, minimum))
        left -= kept
        chosen.append(encoded._replace(tokens=encoded.tokens[:kept], n_bytes=encoded.n_bytes[:kept]))
    if not chosen:
        raise DataError(
            f"no document of {text.corpus.label} (split {text.split}) has the {minimum} tokens that "
            f"length {minimum - 1} needs; the longest of {n_seen} has {most}: lower --lengths, or use --pack"
        )
    return Selection(chosen, _fingerprint(chosen), len(chosen), n_seen)


def _pack(text: _Text, minimum: int, max_tokens: int) -> Selection:
    pieces: list[EncodedDocument] = []
    eos_id = text.tokenizer.eos_id
    end = np.array([] if eos_id is None else [eos_id], dtype=np.int64)
    left = max_tokens
    for document in _visit(text):
        if left <= 0:
            break
        encoded = _encode(document, text, left)
        tokens = np.concatenate([encoded.tokens, end])[:left]
        n_bytes = np.concatenate([encoded.n_bytes, np.zeros_like(end)])[:left]
        pieces.append(encoded._replace(tokens=tokens, n_bytes=n_bytes))
        left -= len(tokens)
    if left > max_tokens - minimum:
        raise DataError(
            f"the whole split {text.split} of {text.corpus.label} has {max_tokens - left} tokens, "
            f"not the {minimum} that length {minimum - 1} needs; lower --lengths"
        )
    fingerprint = _fingerprint(pieces)
    stream = EncodedDocument(
        "packed",
        fingerprint,
        np.concatenate([each.tokens for each in pieces]),
        np.concatenate([each.n_bytes for each in pieces]),
    )
    return Selection([stream], fingerprint, len(pieces), len(pieces))


def _visit(text: _Text) -> Iterator[Document]:
    corpus, seed = text.corpus, text.seed
    if corpus.streams:
        yield from corpus.documents(text.split)
        return
    waiting = sorted(corpus.documents(text.split), key=lambda each: (_rank(each.name, seed), each.name), reverse=True)
    while waiting:
        # Popping lets go of texts that have been looked at.
        yield waiting.pop()


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0".encode() + text_bytes(name)).digest()


def _encode(document: Document, text: _Text, most_ids: int) -> EncodedDocument:
    tokenizer = text.tokenizer
    if document.tokens is None:
        digest = hashlib.sha256(text_bytes(document.text)).hexdigest()
        encoded = tokenizer.encode(document.text)
    else:
        # A file of ids may be far larger than memory, and all of it one document.
        tokens = document.tokens[:most_ids].astype(np.int64)
        digest = hashlib.sha256(tokens.tobytes()).hexdigest()
        encoded = EncodedText(tokens, np.zeros_like(tokens))
    tokens = encoded.tokens
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < tokenizer.vocab_size:
        raise DataError(
            f"{document.name} holds token ids from {tokens.min()} to {tokens.max()}, but the tokenizer "
            f"{tokenizer.name} knows {tokenizer.vocab_size}; check the tokenizer and the type of the ids"
        )
    if text.bos != "never" and len(tokens) and tokens[0] == tokenizer.bos_id:
        raise DataError(
            f"{document.name} begins with BOS (id {tokens[0]}) itself, so BOS would come twice; use --bos never"
        )
    return EncodedDocument(document.name, digest, tokens, encoded.n_bytes)


def _fingerprint(documents: Iterable[EncodedDocument]) -> str:
    whole = hashlib.sha256()
    for document in documents:
        whole.update(text_bytes(f"{document.name}\0{document.digest}\0{len(document.tokens)}\0"))
    return whole.hexdigest()
