"""Byte-level BPE from its files: `bpe:vocab.json,merges.txt` as GPT-2 has them, or `bpe:tokenizer.json`.

These are the files that GPT-NeoX configurations name. The first form is GPT-2's tokenizer (Radford et al. 2019)
over that vocabulary; the second is whatever the `tokenizers` library stored.

Choices:
    * With two files, text that spells out <|endoftext|> is read as ordinary characters, as GPT-NeoX reads
      it; a tokenizer.json has it as it says.
    * <|endoftext|> is the end of a document and, where a window needs a first token, the beginning too: such
      vocabularies have no other.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lpe_eval.data import rust_tokenizers as rust
from lpe_eval.data.beginnings import first_tokens
from lpe_eval.data.texts import Text
from lpe_eval.data.tokenizer import EncodedText, Tokenizer, told_by
from lpe_eval.errors import DataError, MissingExtra, SpecError
from lpe_eval.plain import Unreadable, at_home, json_of, read_plain
from lpe_eval.spec.model_spec import FOLDER

_END = "<|endoftext|>"
_HOLES = 100_000
"""Numbers without a symbol that a vocabulary may have; the library fills each when it writes one down."""


class Bpe(Tokenizer):
    """See the module's docstring.

    Args:
        name: how it is opened again.
        tokenizer: a tokenizer of the `tokenizers` library.
    """

    adds_bos = False

    def __init__(self, name: str, tokenizer: Any) -> None:
        self.name = name
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.vocab_size = max(tokenizer.get_vocab().values()) + 1
        self.bos_id = self.eos_id = tokenizer.token_to_id(_END)
        self.fingerprint = hashlib.sha256(f"{tokenizer.to_str()}\0{self.eos_id}".encode()).hexdigest()
        self.unknown_id = rust.unknown_id(tokenizer)
        self._tokenizer = tokenizer

    @classmethod
    def open(cls, argument: str) -> "Bpe":
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtra("a BPE tokenizer", "hf") from error
        parted = (argument, "", "") if Path(at_home(argument)).is_file() else argument.partition(",")
        first, comma, second = map(at_home, parted)
        if not first or (comma and not second):
            raise SpecError("write bpe:vocab.json,merges.txt or bpe:tokenizer.json")
        for name in (first, second):
            if name and not Path(name).is_file():
                raise DataError(
                    f"the tokenizer bpe:{argument} needs the file {name}, which is not there; get it, "
                    "or choose another with --tokenizer"
                )
        if comma:
            vocab, merges = _vocabulary(Path(first)), _merges(Path(second))
            absent = [piece for pair in merges for piece in (*pair, "".join(pair)) if piece not in vocab]
            if absent:
                raise DataError(f"{second} joins {absent[0]!r}, which is not in {first}; they belong to two tokenizers")
            with told_by(f"the tokenizer bpe:{argument}"):
                made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
                made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        else:
            content = _json(Path(first))
            if "model" not in content:
                raise DataError(f"{first} is not a tokenizer.json; two files are written bpe:vocab.json,merges.txt")
            with told_by(f"the tokenizer bpe:{argument}"):
                made = tokenizers.Tokenizer.from_str(json.dumps(content))
        numbers = made.get_vocab().values()
        highest = max(numbers, default=-1)
        if not 0 <= highest < 2 * len(numbers) + _HOLES:
            raise DataError(f"the tokenizer bpe:{argument} has {len(numbers)} symbols with numbers up to {highest}")
        return cls(f"bpe:{argument}", made)

    def encode(self, text: str) -> EncodedText:
        return rust.encode(self._tokenizer, text, self.name)

    def first_tokens(self, text: Text, most: int) -> EncodedText:
        return first_tokens(self.encode, text, most)

    def stored(self) -> tuple[str, Mapping[str, bytes]]:
        return f"bpe:{FOLDER}/tokenizer/tokenizer.json", {"tokenizer/tokenizer.json": self._tokenizer.to_str().encode()}


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json_of(read_plain(file))
    except Unreadable as error:
        raise DataError(f"{file} cannot be read as JSON: it {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} holds no JSON object, which a tokenizer's vocabulary is")
    return content


def _vocabulary(file: Path) -> dict[str, int]:
    content = _json(file)
    if not content or not all(type(number) is int and 0 <= number < 2**31 for number in content.values()):
        raise DataError(f"{file} is not a vocabulary: a JSON object of symbols and their numbers")
    return content


def _merges(file: Path) -> list[tuple[str, str]]:
    try:
        lines = read_plain(file).split("\n")
    except Unreadable as error:
        raise DataError(f"{file} {error}") from error
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(lines, start=1):
        pair = line.rstrip("\r").split(" ")
        if line.startswith("#version") or pair == [""]:
            continue
        if len(pair) != 2:
            raise DataError(f"{file}, line {number}: {line[:40]!r} is no pair of symbols to join")
        merges.append((pair[0], pair[1]))
    return merges
