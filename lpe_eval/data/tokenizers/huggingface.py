"""The tokenizer of a Hugging Face model: a local folder, or `org/name[@revision]` of the Hub.

Only fast tokenizers serve, because only they say which characters a token stands for. Each token is given
the bytes between the furthest end reached before it and its own end. So the pieces of one character that
byte-level tokenizers make count once (for the first piece), blanks that a tokenizer drops count for the
token after them, and the sum over a text is exact.

Choices:
    * Control tokens are never added here. A text that spells one out ("</s>") is read as `transformers`
      reads it, usually as that control token.
    * Bytes that are not UTF-8 (surrogate escapes) are shown to the tokenizer as U+FFFD and count as one.
    * `adds_bos` is found by trial: whether "a" begins with BOS when control tokens are added.
"""

import hashlib
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from lpe_eval.data.corpus import first_line, text_bytes
from lpe_eval.data.tokenizer import EncodedText, Tokenizer
from lpe_eval.errors import DataError, MissingExtra, SpecError

_ESCAPES = dict.fromkeys(range(56448, 56576), "�")


class HuggingFace(Tokenizer):
    """See the module's docstring.

    Args:
        name: how it is opened again.
        tokenizer: a fast tokenizer of `transformers`.
    """

    def __init__(self, name: str, tokenizer: Any) -> None:
        self.name = name
        self.vocab_size = len(tokenizer)
        self.bos_id = tokenizer.bos_token_id
        self.eos_id = tokenizer.eos_token_id
        self.adds_bos = self.bos_id is not None and tokenizer("a")["input_ids"][:1] == [self.bos_id]
        # A stored limit would cut long texts in silence.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        rules = f"{tokenizer.backend_tokenizer.to_str()}\0{self.bos_id}\0{self.eos_id}"
        self.fingerprint = hashlib.sha256(rules.encode()).hexdigest()
        self._tokenizer = tokenizer

    @classmethod
    def open(cls, argument: str) -> "HuggingFace":
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise MissingExtra("a Hugging Face tokenizer", "hf") from error
        if not argument:
            raise SpecError("hf: names no tokenizer; write hf:PATH with a local folder or a model id of the Hub")
        path, _, revision = argument.partition("@") if not Path(argument).exists() else (argument, "", "")
        try:
            found = AutoTokenizer.from_pretrained(path, revision=revision or "main", trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"the tokenizer hf:{argument} cannot be loaded: {first_line(error)}; "
                "check the path or the id, and whether the network or a cached copy is there"
            ) from error
        if not found.is_fast:
            raise DataError(f"the tokenizer hf:{argument} has no fast version (tokenizer.json), which is needed")
        return cls(f"hf:{argument}", found)

    def encode(self, text: str) -> EncodedText:
        shown = text if text.isascii() else text.translate(_ESCAPES)
        found = self._tokenizer(shown, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        tokens = np.array(found["input_ids"], dtype=np.int64)
        if not len(tokens):
            return EncodedText(tokens, np.zeros_like(tokens))
        ends = list(accumulate((stop for _, stop in found["offset_mapping"]), max))
        ends[-1] = len(text)
        before = _bytes_before(text)
        return EncodedText(tokens, np.diff(before[ends], prepend=0))


def _bytes_before(text: str) -> np.ndarray:
    """How many bytes of the text lie before each character, and before its end."""
    if text.isascii():
        return np.arange(len(text) + 1, dtype=np.int64)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    widths = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    widths[(codes >= 0xDC80) & (codes < 0xDD00)] = 1
    assert widths.sum() == len(text_bytes(text))
    return np.concatenate([[0], np.cumsum(widths)])
