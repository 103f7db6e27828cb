"""From where tokens end in a text to how many bytes each stands for.

Each token is given the bytes between the furthest end reached before it and its own end. So the pieces of one
character that byte-level tokenizers make count once (for the first piece), blanks that a tokenizer drops count
for the token after them, and the sum over a text is exact.

Choice: bytes that are not UTF-8 (surrogate escapes) are shown to a tokenizer as U+FFFD and count as one.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from lpe_eval.data.texts import text_bytes
from lpe_eval.data.tokenizer import EncodedText

_ESCAPES = dict.fromkeys(range(0xDC80, 0xDD00), "\N{REPLACEMENT CHARACTER}")


def shown(text: str) -> str:
    """The text as a tokenizer that knows Unicode alone may see it; as many characters as before."""
    return text if text.isascii() else text.translate(_ESCAPES)


def with_bytes(text: str, tokens: Sequence[int], ends: Iterable[int]) -> EncodedText:
    """Tokens and the bytes of each.

    Args:
        text: the whole text.
        tokens: their ids.
        ends: for each token the character of the text after its last one.
    """
    ids = np.array(tokens, dtype=np.int64)
    if not len(ids):
        return EncodedText(ids, np.zeros_like(ids))
    reached = list(accumulate(ends, max))
    reached[-1] = len(text)
    return EncodedText(ids, np.diff(bytes_before(text)[reached], prepend=0))


def bytes_before(text: str) -> NDArray[np.int64]:
    """How many bytes of the text lie before each character, and before its end."""
    if text.isascii():
        return np.arange(len(text) + 1, dtype=np.int64)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    widths = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    widths[(codes >= 0xDC80) & (codes < 0xDD00)] = 1
    assert widths.sum() == len(text_bytes(text))
    return np.concatenate([[0], np.cumsum(widths)])
