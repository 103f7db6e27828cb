"""Characters as tokens, as nanoGPT and minGPT number them: `char:FILE`.

FILE is the training text itself, whose distinct characters in sorted order are numbered from 0, or a `.json` file: a
list of characters in their order, an object of characters and their numbers, or one whose key `stoi` holds such an
object.

Choices:
    * The training text is read as Python reads text, with every line break a line feed, since that is how such
      vocabularies were made.
    * A symbol of the file that is longer than a character stands for nothing in a text. One called <unk>, [UNK] or
      <|unk|> is given for characters that are not in the file; without one such a character is refused.
    * There is neither BOS nor EOS unless the file has <s>, <bos>, </s>, <eos> or <|endoftext|>.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lpe_eval.data.beginnings import shortened
from lpe_eval.data.spans import bytes_before, shown
from lpe_eval.data.texts import Text
from lpe_eval.data.tokenizer import EncodedText, Tokenizer
from lpe_eval.errors import DataError, SpecError
from lpe_eval.plain import Unreadable, at_home, json_of, read_plain
from lpe_eval.spec.model_spec import FOLDER

_UNKNOWN = ("<unk>", "[UNK]", "<|unk|>")
_BEGIN, _END = ("<s>", "<bos>", "<|endoftext|>"), ("</s>", "<eos>", "<|endoftext|>")
_MOST = 1 << 34
"""Bytes of a training text whose characters are looked for."""


class Char(Tokenizer):
    """See the module's docstring.

    Args:
        name: how it is opened again.
        numbers: of each symbol.
    """

    adds_bos = False
    a_byte_or_more = True

    def __init__(self, name: str, numbers: Mapping[str, int]) -> None:
        self.name = name
        self.vocab_size = max(numbers.values()) + 1
        self.unknown_id, self.bos_id, self.eos_id = (
            next((numbers[each] for each in names if each in numbers), None) for names in (_UNKNOWN, _BEGIN, _END)
        )
        self._numbers = dict(numbers)
        listed = json.dumps(sorted(self._numbers.items(), key=lambda pair: pair[1]))
        self.fingerprint = hashlib.sha256(listed.encode()).hexdigest()
        characters = {ord(each): number for each, number in numbers.items() if len(each) == 1}
        self._table = np.full(max(characters, default=0) + 1, -1, dtype=np.int64)
        self._table[list(characters)] = list(characters.values())

    @classmethod
    def open(cls, argument: str) -> "Char":
        if not argument:
            raise SpecError("char: names no file; write char:FILE with the training text, or a .json of its characters")
        path = Path(at_home(argument))
        if path.suffix == ".pkl":
            raise DataError(
                f"{path} is a pickle, which may run code and is not opened; write char:FILE with the training text"
            )
        try:
            text = read_plain(path, _MOST)
            found = _listed(json_of(text), path) if path.suffix == ".json" else _of_text(text)
        except Unreadable as error:
            raise DataError(f"the characters of {path} {error}") from error
        if not found:
            raise DataError(f"{path} holds no character; give the text that the model was trained on")
        return cls(f"char:{argument}", found)

    def encode(self, text: str) -> EncodedText:
        seen = shown(text)
        codes = np.frombuffer(seen.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)
        tokens = np.where(codes < len(self._table), self._table[np.minimum(codes, len(self._table) - 1)], -1)
        strange = np.flatnonzero(tokens < 0)
        if len(strange):
            if self.unknown_id is None:
                where = int(strange[0])
                raise DataError(
                    f"the text has {len(strange)} characters that the tokenizer {self.name} does not know, first "
                    f"{seen[where]!r} (U+{int(codes[where]):04X}) at place {where}; remove them, or give a "
                    '.json of characters that has a symbol "<unk>"'
                )
            tokens[strange] = self.unknown_id
        return EncodedText(tokens, np.diff(bytes_before(text)))

    def first_tokens(self, text: Text, most: int) -> EncodedText:
        return shortened(self.encode(text.start(most)), most)

    def stored(self) -> tuple[str, Mapping[str, bytes]]:
        file = "tokenizer/characters.json"
        return f"char:{FOLDER}/{file}", {file: json.dumps(self._numbers).encode()}


def _of_text(text: str) -> dict[str, int]:
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return {character: number for number, character in enumerate(sorted(set(lines)))}


def _listed(content: Any, path: Path) -> dict[str, int]:
    if isinstance(content, dict) and isinstance(content.get("stoi"), dict):
        content = content["stoi"]
    if isinstance(content, list):
        content = {symbol: number for number, symbol in enumerate(content) if isinstance(symbol, str)}
    numbers = list(content.values()) if isinstance(content, dict) else []
    if not all(type(each) is int and 0 <= each < 1 << 31 for each in numbers) or len(set(numbers)) < len(numbers):
        raise DataError(f"{path} is no list of characters and no object of characters and their numbers")
    return content if isinstance(content, dict) else {}
