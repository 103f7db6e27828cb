"""Bytes as tokens: 256 symbols, then BOS = 256 and EOS = 257.

Bits per token are then bits per byte. Text with surrogate escapes gives back the bytes of its file.
"""

import hashlib

import numpy as np

from lpe_eval.data.beginnings import shortened
from lpe_eval.data.texts import Text, text_bytes
from lpe_eval.data.tokenizer import EncodedText, Tokenizer
from lpe_eval.errors import SpecError


class Bytes(Tokenizer):
    """See the module's docstring."""

    name = "bytes"
    vocab_size = 258
    bos_id = 256
    eos_id = 257
    adds_bos = False
    a_byte_or_more = True
    fingerprint = hashlib.sha256(b"bytes 0..255, bos 256, eos 257").hexdigest()

    @classmethod
    def open(cls, argument: str) -> "Bytes":
        if argument:
            raise SpecError(f"the tokenizer bytes takes no argument; write bytes, not bytes:{argument}")
        return cls()

    def encode(self, text: str) -> EncodedText:
        tokens = np.frombuffer(text_bytes(text), dtype=np.uint8).astype(np.int64)
        return EncodedText(tokens, np.ones_like(tokens))

    def first_tokens(self, text: Text, most: int) -> EncodedText:
        return shortened(self.encode(text.start(most)), most)
