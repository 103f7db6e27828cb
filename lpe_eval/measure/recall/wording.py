"""How a key and its value are written, and found again as tokens.

A value is one token, so that it and all that it is told from are read from the logits of one pass. Whether a letter is
one token depends on what stands around it and on the tokenizer, so a form has several ways to divide its line, and
the first serves in which the letters differ in one token and in nothing else.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from lpe_eval.data.tokenizer import IDS, Tokenizer
from lpe_eval.errors import DataError, LengthError
from lpe_eval.measure.recall.trial import Tokens, below

LETTERS = "abcdefghijklmnopqrstuvwxyz"
_CONSONANTS, _VOWELS = "bcdfgklmnprst", "aeiou"
_SYLLABLES = 3


class Line(NamedTuple):
    """A line of text around a letter; `{key}` stands for a key."""

    before: str
    letter: str
    after: str
    upper: bool = False


FORMS: dict[str, tuple[Line, ...]] = {
    "assignment": (
        Line('\n{key} = "', "{letter}", '"\n', upper=True),
        Line("\n{key} =", " {letter}", "\n", upper=True),
    ),
    "sentence": (
        Line("\nThe special magic letter for {key} is ", "{letter}", ".\n"),
        Line("\nThe special magic letter for {key} is", " {letter}", ".\n"),
    ),
    "identifiers": (
        Line("{key}_", "{letter}", " = 0\n"),
        Line("{key}", "_{letter}", " = 0\n"),
    ),
}


class Written(NamedTuple):
    """A key as tokens: its line up to the value, the token of each letter, and the rest of the line."""

    before: Tokens
    letters: Tokens
    after: Tokens
    name: Tokens
    """The key alone, which the text around must not hold."""


def new_key(source: torch.Generator) -> str:
    """A word of three syllables that nobody uses: one of 274,625."""
    syllables = (
        _CONSONANTS[below(len(_CONSONANTS), source)] + _VOWELS[below(len(_VOWELS), source)] for _ in range(_SYLLABLES)
    )
    return "".join(syllables)


def written(tokenizer: Tokenizer, form: str, key: str, letters: Sequence[str]) -> Written:
    """A key and its possible values as tokens.

    Raises:
        LengthError: under this tokenizer no letter is a token of its own there, or a character is unknown.
    """
    if tokenizer.name == IDS:
        raise LengthError("the text is token ids without a tokenizer, so nothing can be written into it")
    try:
        found = _written(tokenizer, form, key, letters)
    except DataError as error:
        raise LengthError(f"{form} cannot be written under this tokenizer: {error}") from error
    if found is None:
        raise LengthError(
            f"the tokenizer {tokenizer.name} has no single tokens for letters where {form} has its values"
        )
    return found


def _written(tokenizer: Tokenizer, form: str, key: str, letters: Sequence[str]) -> Written | None:
    for line in FORMS[form]:
        word = key.upper() if line.upper else key
        before = tokenizer.encode(line.before.format(key=word)).tokens
        lines = [
            tokenizer.encode("".join(line[:3]).format(key=word, letter=letter)).tokens for letter in letters
        ]  # fmt: skip
        size = len(before)
        whole = len(lines[0])
        if whole <= size or any(len(each) != whole for each in lines):
            continue
        stacked = np.stack(lines)
        apart = (stacked[0] == stacked).all(0)
        values = stacked[:, size]
        same = np.delete(np.arange(whole), size)
        if apart[same].all() and np.array_equal(stacked[0, :size], before) and len(set(values.tolist())) == len(values):
            return Written(before, values, stacked[0, size + 1 :], tokenizer.encode(word).tokens)
    return None
