"""Your own encode function: `py:FILE.py:FACTORY` or `py:package.module:FACTORY`, perhaps with `?key=value&key=value`.

The factory is the one of a model (`lpe_eval/model/checkpoints/python.py`), or makes a tokenizer alone. What it returns
has a method `encode`, which takes a text and returns its ids (a list, an array or a tensor); or it is that function
itself, or a pair `(model, encode)`. Of what it returns, `bos_id` and `eos_id` (int) are read too.

Choices:
    * How many bytes an id stands for is known where there are as many ids as characters, or as bytes. Elsewhere it is
      not, and there are no bits per byte.
    * The fingerprint is over the source file, the settings, and the ids of each printable character of ASCII, since a
      function may get its alphabet from another file.
    * No BOS is ever added; a function that adds one itself puts it before every document.
"""

import hashlib
import inspect
import string
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpe_eval.data.tokenizer import ENDLESS, EncodedText, Tokenizer
from lpe_eval.errors import DataError, LpeEvalError
from lpe_eval.own_code import Made, calling, told


class Python(Tokenizer):
    """See the module's docstring."""

    adds_bos = False

    def __init__(self, made: Made) -> None:
        self.name, where = made.target.where, made.target.where
        value = made.value[0] if isinstance(made.value, tuple) and made.value else made.value
        encode = made.value[1] if isinstance(made.value, tuple) and len(made.value) == 2 else None
        encode = encode or getattr(value, "encode", None)
        if encode is None and inspect.isroutine(value):
            encode = value
        if not callable(encode):
            raise DataError(f"{where} gives no function encode(text); add one, or name a tokenizer with --tokenizer")
        self._encode: Callable[[str], Any] = encode
        size = getattr(value, "vocab_size", None)
        self.vocab_size = size if isinstance(size, int) else ENDLESS
        ids = {name: getattr(value, name, None) for name in ("bos_id", "eos_id")}
        self.bos_id, self.eos_id = (each if isinstance(each, int) else None for each in ids.values())
        tried = [self._tried(character) for character in string.printable]
        self.fingerprint = hashlib.sha256(made.describes() + repr(tried).encode()).hexdigest()

    @classmethod
    def open(cls, argument: str) -> "Python":
        with calling(argument) as made:
            return cls(made)

    def encode(self, text: str) -> EncodedText:
        with told(self.name, "cannot encode the text"):
            ids = self._ids(text)
        return EncodedText(ids, _bytes_of(text, len(ids)))

    def _ids(self, text: str) -> NDArray[np.int64]:
        made = self._encode(text)
        ids = np.asarray(made if isinstance(made, (list, tuple)) else getattr(made, "tolist", lambda: list(made))())
        if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
            raise DataError(
                f"{self.name}: encode(text) must return a list of whole numbers, not {ids.dtype} ids of {ids.ndim} axes"
            )
        return ids.astype(np.int64)

    def _tried(self, character: str) -> list[int] | None:
        """Its ids; None where it is not in the alphabet."""
        try:
            with told(self.name, "cannot encode"):
                return self._ids(character).tolist()
        except LpeEvalError:
            return None


def _bytes_of(text: str, n_ids: int) -> NDArray[np.int64]:
    whole = text.encode("utf-8", "surrogateescape")
    if n_ids == len(whole):
        return np.ones(n_ids, dtype=np.int64)
    if n_ids == len(text):
        return np.array([len(each.encode("utf-8", "surrogateescape")) for each in text], dtype=np.int64)
    return np.zeros(n_ids, dtype=np.int64)
