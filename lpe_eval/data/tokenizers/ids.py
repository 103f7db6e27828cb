"""For text that is token ids already, when a model has no tokenizer: every id is known, and no text can be encoded."""

import hashlib

from lpe_eval.data.tokenizer import EncodedText, Tokenizer
from lpe_eval.errors import DataError, SpecError


class Ids(Tokenizer):
    """See the module's docstring."""

    name = "ids"
    vocab_size = 1 << 62
    bos_id = eos_id = None
    adds_bos = False
    fingerprint = hashlib.sha256(b"ids as they are stored").hexdigest()

    @classmethod
    def open(cls, argument: str) -> "Ids":
        if argument:
            raise SpecError(f"the tokenizer ids takes no argument; write ids, not ids:{argument}")
        return cls()

    def encode(self, text: str) -> EncodedText:
        raise DataError("the tokenizer ids encodes no text, only files of token ids; name another one with --tokenizer")
