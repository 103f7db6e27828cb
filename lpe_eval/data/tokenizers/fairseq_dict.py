"""Words as tokens, numbered by fairseq's `dict.txt`: `fairseq_dict:PATH`.

Source: `data/dictionary.py` and `tokenizer.py` of fairseq in ofirpress/attention_with_linear_biases at 4b92f28.
Numbers 0 to 3 are <s>, <pad>, </s> and <unk>; each line of the file, "word count", is the next one. A line of
text is split at blanks, and every line break is the word </s>.

Choices:
    * A line break is part of the text here, so </s> stands for its byte. Blanks count for the word after
      them, and those at the end of the text for the last word.
    * The text must be tokenised as the dictionary's was (WikiText-103 has " @-@ " and "<unk>"); other words
      become <unk>, whose loss says nothing.
    * fairseq starts a stream with </s> unless a model was trained with add_bos_token, so </s> is the first
      token where a window needs one.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from lpe_eval.data.beginnings import first_tokens
from lpe_eval.data.spans import with_bytes
from lpe_eval.data.texts import Text
from lpe_eval.data.tokenizer import EncodedText, Tokenizer
from lpe_eval.errors import DataError, SpecError
from lpe_eval.plain import Unreadable, at_home, read_plain
from lpe_eval.spec.model_spec import FOLDER

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_END, _UNKNOWN = 2, 3
_OVERWRITE = " #fairseq:overwrite"
_WORD = re.compile(r"\n|\S+")


class FairseqDict(Tokenizer):
    """See the module's docstring.

    Args:
        name: how it is opened again.
        words: the number of each word, the special ones included.
        size: how many numbers are taken; a word that overwrites another has the later one.
    """

    bos_id = eos_id = _END
    unknown_id = _UNKNOWN
    adds_bos = False

    def __init__(self, name: str, words: dict[str, int], size: int) -> None:
        self.name = name
        self.vocab_size = size
        listed = "\n".join(f"{number} {word}" for word, number in words.items())
        self.fingerprint = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()
        self._words = words

    @classmethod
    def open(cls, argument: str) -> "FairseqDict":
        if not argument:
            raise SpecError("fairseq_dict: names no file; write fairseq_dict:PATH with the dict.txt of the training")
        path = Path(at_home(argument))
        try:
            lines = read_plain(path).split("\n")
        except Unreadable as error:
            raise DataError(f"the dictionary {path} {error}") from error
        words = {word: number for number, word in enumerate(_SPECIAL)}
        size = len(words)
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            entry = line.rstrip()
            word, blank, count = entry.removesuffix(_OVERWRITE).rpartition(" ")
            if not blank or not count.isdigit():
                raise DataError(f"{path}, line {number}: {line[:40]!r} is no word and its count")
            if word in words and not entry.endswith(_OVERWRITE):
                raise DataError(f"{path}, line {number}: the word {word!r} has a number already")
            words[word] = size
            size += 1
        return cls(f"fairseq_dict:{argument}", words, size)

    def encode(self, text: str) -> EncodedText:
        found = list(_WORD.finditer(text))
        numbers = [_END if each[0] == "\n" else self._words.get(each[0], _UNKNOWN) for each in found]
        return with_bytes(text, numbers, [each.end() for each in found])

    def first_tokens(self, text: Text, most: int) -> EncodedText:
        return first_tokens(self.encode, text, most)

    def stored(self) -> tuple[str, Mapping[str, bytes]]:
        path = Path(at_home(self.name.partition(":")[2]))
        return f"fairseq_dict:{FOLDER}/tokenizer/dict.txt", {"tokenizer/dict.txt": path.read_bytes()}
