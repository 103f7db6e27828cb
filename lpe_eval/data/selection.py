"""Which documents are measured: chosen once for a whole sweep, so that every length reads the same text.

Documents are visited in the order of a seeded hash of their names. Adding or removing a document moves
no other one, and no list has to be stored. Only documents with more tokens than the longest length are
taken, since a shorter one would have no full window there; that choice favours long documents, and the
counts in `Selection` say how strongly. A streaming corpus is taken in its own order.

Each document gives at most half a longest window more than one full one, so that no single one rules the average.
Where all documents together give less than the budget that way, long ones give more, up to one level for all
(`budget.py`). So the budget is met where the text allows it, but for a rest that has no room for a full window.

With `pack`, all documents become one stream with EOS between them, as in KERPLE's evaluation
(Chi et al. 2022). Windows then reach across documents, and "context" may be another document.

Of a document no more is read and encoded than what is wanted (`texts.py`, `beginnings.py`), and one without text,
such as a row with a null, is passed over and counted.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpe_eval.data.budget import shares_of
from lpe_eval.data.corpus import Corpus, Document
from lpe_eval.data.texts import Text, text_bytes
from lpe_eval.data.tokenizer import EncodedText, Tokenizer, told_by
from lpe_eval.data.visiting import Reread, visit
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
    n_without_text: int = 0
    """Documents passed over because they hold a null."""
    n_unknown: int = 0
    """Tokens that stand for what the tokenizer has no symbol for."""
    missing: int = 0
    """Tokens of the budget that the text does not have."""

    @property
    def n_tokens(self) -> int:
        """Tokens of all documents."""
        return sum(len(each.tokens) for each in self.documents)


def choose_documents(
    corpus: Corpus,
    split: str,
    tokenizer: Tokenizer,
    *,
    longest: int,
    max_tokens: int,
    seed: int,
    pack: bool = False,
    ends: bool = False,
    bos: Bos = "never",
    cap: int | None = None,
    needs: str | None = None,
    remedy: str | None = None,
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
        pack: whether all become one stream with EOS between documents.
        ends: whether a stream has EOS after its last document too, as training wants it.
        bos: which windows will start with BOS; a document that begins with BOS then gives up its own.
        cap: the most tokens taken from one document; None is half a longest window more than one full one, and more
            where the budget would not be met.
        needs: what needs tokens that no document has, for that message; None is the longest length.
        remedy: what to do about it; None is what the corpus says of lengths.

    Raises:
        SpecError: `cap` or `max_tokens` cannot be.
        DataError: no document is long enough, or one has ids that the tokenizer does not know.
    """
    minimum = longest + 1
    if cap is not None and cap < minimum:
        raise SpecError(f"at most {cap} tokens of a document leave no full window of {longest}; allow {minimum}")
    if max_tokens < 1:
        raise SpecError(f"the number of tokens must be at least 1, not {max_tokens}")
    text = _Text(corpus, split, tokenizer, bos, seed, needs or f"length {longest}", remedy or corpus.remedy)
    if pack:
        return _pack(text, minimum, max(max_tokens, minimum), ends)
    return _choose(text, minimum, max_tokens, cap)


class _Text(NamedTuple):
    """Where documents come from, what makes tokens of them, the seed of their order, and what a message says."""

    corpus: Corpus
    split: str
    tokenizer: Tokenizer
    bos: str
    seed: int
    needs: str
    remedy: str


_SMALL_REST = 20
"""A rest of the budget below one part in so many is left where no whole window fits into it."""


def _choose(text: _Text, minimum: int, max_tokens: int, cap: int | None) -> Selection:
    chosen: list[EncodedDocument] = []
    again: list[Reread] = []
    n_seen = n_after = n_without_text = most = 0
    left, at_most = max_tokens, minimum + (minimum - 1) // 2 if cap is None else cap
    enough = False
    for document, reread in visit(text.corpus, text.split, text.seed):
        full = bool(chosen) and left < minimum
        if full and left * _SMALL_REST < max_tokens:
            break
        n_seen, n_after = n_seen + (not full), n_after + full
        if document.text is None:
            n_without_text += 1
            continue
        if document.tokens is None and text.tokenizer.a_byte_or_more:
            n_bytes = _as_text(document).n_bytes
            if n_bytes < minimum:
                most = max(most, n_bytes)
                continue
        encoded = _encode(document, text, minimum if full else at_most)
        most = max(most, len(encoded.tokens))
        if len(encoded.tokens) < minimum:
            continue
        if full:
            # There is more text, and no room for a whole window of it.
            enough = True
            break
        kept = min(len(encoded.tokens), max(left, minimum))
        left -= kept
        chosen.append(_cut(encoded, kept))
        again.append(reread)
    if not chosen:
        raise _too_short(text, minimum, n_seen, n_without_text, most)
    enough = enough or left * _SMALL_REST < max_tokens
    if not enough and cap is None:
        chosen = _deeper(text, chosen, again, max_tokens, at_most)
    missing = 0 if enough else max(0, max_tokens - sum(len(each.tokens) for each in chosen))
    return _selection(text, chosen, (len(chosen), n_seen + (0 if enough else n_after), n_without_text), missing)


def _deeper(
    text: _Text, chosen: Sequence[EncodedDocument], again: Sequence[Reread], max_tokens: int, known: int
) -> list[EncodedDocument]:
    """The same documents, the long ones with as much more as the budget has room for."""
    found = list(chosen)
    whole = [len(each.tokens) < known for each in found]
    reached = [len(each.tokens) for each in found]
    while True:
        wanted = shares_of(reached, whole, max_tokens, known)
        behind = [at for at, size in enumerate(reached) if not whole[at] and size < wanted[at]]
        if not behind:
            return [_cut(each, size) for each, size in zip(found, wanted, strict=True)]
        for at in behind:
            found[at] = _encode(again[at](), text, wanted[at])
            reached[at] = len(found[at].tokens)
            whole[at] = reached[at] < wanted[at]


def _pack(text: _Text, minimum: int, max_tokens: int, ends: bool) -> Selection:
    pieces: list[EncodedDocument] = []
    eos_id = text.tokenizer.eos_id
    end = np.array([] if eos_id is None else [eos_id], dtype=np.int64)
    left, n_without_text, last_ends = max_tokens, 0, False
    for document, _ in visit(text.corpus, text.split, text.seed):
        if left <= 0:
            break
        if document.text is None:
            n_without_text += 1
            continue
        encoded = _encode(document, text, left)
        tokens = np.concatenate([encoded.tokens, end])[:left]
        n_bytes = np.concatenate([encoded.n_bytes, np.zeros_like(end)])[:left]
        pieces.append(encoded._replace(tokens=tokens, n_bytes=n_bytes))
        left -= len(tokens)
        last_ends = len(tokens) > len(encoded.tokens)
    if pieces and not ends and last_ends:
        # Nothing comes after it, so nothing ends there.
        pieces[-1] = _cut(pieces[-1], len(pieces[-1].tokens) - 1)
        left += 1
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
    counts = (len(pieces), len(pieces) + n_without_text, n_without_text)
    return _selection(text, [stream], counts, left if left > 1 else 0)._replace(fingerprint=fingerprint)


def _selection(text: _Text, documents: list[EncodedDocument], counts: tuple[int, int, int], missing: int) -> Selection:
    unknown = text.tokenizer.unknown_id
    n_unknown = 0 if unknown is None else sum(int((each.tokens == unknown).sum()) for each in documents)
    return Selection(documents, _fingerprint(documents), *counts, n_unknown, missing)


def _encode(document: Document, text: _Text, most_ids: int) -> EncodedDocument:
    """The first tokens of a document, at most `most_ids`, without a BOS of its own where windows bring one."""
    tokenizer = text.tokenizer
    more = most_ids + (text.bos != "never")
    if document.tokens is None:
        held = _as_text(document)
        with told_by(f"{document.name} with the tokenizer {tokenizer.name}", what="cannot be encoded"):
            encoded = tokenizer.first_tokens(held, more)
        digest = held.digest
    else:
        # A file of ids may be far larger than memory, and all of it one document.
        tokens = document.tokens[:more].astype(np.int64)
        digest = hashlib.sha256(tokens[:most_ids].tobytes()).hexdigest()
        encoded = EncodedText(tokens, np.zeros_like(tokens))
    tokens = encoded.tokens
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < tokenizer.vocab_size:
        raise DataError(
            f"{document.name} holds token ids from {tokens.min()} to {tokens.max()}, but the tokenizer "
            f"{tokenizer.name} knows {tokenizer.vocab_size}; check the tokenizer and the type of the ids"
        )
    begins = int(text.bos != "never" and len(tokens) > 0 and tokens[0] == tokenizer.bos_id)
    kept = slice(begins, begins + most_ids)
    return EncodedDocument(document.name, digest, tokens[kept], encoded.n_bytes[kept])


def _as_text(document: Document) -> Text:
    return document.text if isinstance(document.text, Text) else Text(document.text or "")


def _cut(document: EncodedDocument, most: int) -> EncodedDocument:
    return document._replace(tokens=document.tokens[:most], n_bytes=document.n_bytes[:most])


def _too_short(text: _Text, minimum: int, n_seen: int, n_without_text: int, most: int) -> DataError:
    where = f"{text.corpus.label} (split {text.split})"
    if n_seen == n_without_text:
        return DataError(f"{where} holds no document with text ({n_seen} rows were looked at)")
    return DataError(
        f"no document of {where} has the {minimum} tokens that "
        f"{text.needs} needs; the longest of {n_seen} has {most}: {text.remedy}"
    )


def _fingerprint(documents: Iterable[EncodedDocument]) -> str:
    whole = hashlib.sha256()
    for document in documents:
        whole.update(text_bytes(f"{document.name}\0{document.digest}\0{len(document.tokens)}\0"))
    return whole.hexdigest()
