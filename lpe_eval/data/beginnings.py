"""The first tokens of a long text, made from its beginning alone and equal to those of the whole.

What a tokenizer does near the end of its input depends on that end: a word goes on, a run of blanks gets longer,
rules look ahead. Far before the end it does not. So two beginnings of different lengths are encoded, both cut at a
calm place, and tokens count as settled where the two agree, well before the shorter one ends. Where they do not agree,
or where no calm place is near, both grow, in the end to the whole text.

A place is calm where a blank or a line break stands between two characters that are none, or after the end of a
sentence in scripts without blanks. Neither a word nor a number nor a run of blanks is ever cut there, and no symbol of
the usual vocabularies reaches across it.
"""

import re
from collections.abc import Callable

import numpy as np

from lpe_eval.data.texts import Text
from lpe_eval.data.tokenizer import EncodedText

_CALM = re.compile(r"(?<=\S)\s(?=\S)|(?<=[。！？])(?=\S)")
_AT_LEAST = 1 << 13
"""Characters; a text that is hardly longer is encoded whole."""
_PER_TOKEN = 5
_REST = 64
"""So many tokens at the end of what two beginnings agree on do not count as settled."""
_BACK = 1 << 16


def first_tokens(encode: Callable[[str], EncodedText], text: Text, most: int) -> EncodedText:
    """The first `most` tokens of a text, with their bytes; fewer where it has no more.

    Args:
        encode: the whole tokens of a text.
        text: may be far longer than what is needed.
        most: how many are wanted.
    """
    size = max(_AT_LEAST, _PER_TOKEN * most)
    while True:
        more = size + size // 8 + _AT_LEAST
        read = text.start(more)
        if len(read) < more:
            return shortened(encode(read), most)
        near, far = _calm(read, size), _calm(read, len(read))
        grown = 2 * size
        if near is not None and far is not None and near < far:
            one, other = encode(read[:near]), encode(read[:far])
            settled = _agreed(one, other) - _REST
            if settled >= most:
                return shortened(other, most)
            if settled > 0 and len(one.tokens) - settled < 4 * _REST:
                # They agree and are too few: as many characters as that many tokens have here.
                grown = max(size + size // 8, size * (most + 4 * _REST) // settled)
        size = grown


def shortened(encoded: EncodedText, most: int) -> EncodedText:
    """The first `most` tokens."""
    return EncodedText(encoded.tokens[:most], encoded.n_bytes[:most])


def _agreed(one: EncodedText, other: EncodedText) -> int:
    n = min(len(one.tokens), len(other.tokens))
    differ = (one.tokens[:n] != other.tokens[:n]) | (one.n_bytes[:n] != other.n_bytes[:n])
    return int(np.argmax(differ)) if differ.any() else n


def _calm(text: str, before: int) -> int | None:
    """The last calm place up to a character, if there is one near."""
    back = max(0, before - _BACK)
    places = [found.start() for found in _CALM.finditer(text, back, before)]
    return places[-1] if places else None
