"""fairseq's dictionary: words, numbers and bytes, and what is refused."""

from pathlib import Path

import pytest

from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.errors import DataError, SpecError


def test_words_are_numbered_as_in_the_dictionary_and_lines_end_in_eos(tmp_path: Path) -> None:
    (tmp_path / "dict.txt").write_text("the 10\n, 9\ncafé 3\nmadeupword0000 0\n")
    tokenizer = open_tokenizer(f"fairseq_dict:{tmp_path / 'dict.txt'}")
    text = " the café ,\n \n the <unk> cats , "
    encoded = tokenizer.encode(text)
    assert encoded.tokens.tolist() == [4, 6, 5, 2, 2, 4, 3, 3, 5]
    assert encoded.n_bytes.tolist() == [4, 6, 2, 1, 2, 4, 6, 5, 3]
    assert encoded.n_bytes.sum() == len(text.encode())
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.bos_id) == (8, 2, 2)
    assert tokenizer.encode(" ").tokens.tolist() == []


def test_a_word_that_overwrites_another_takes_a_new_number(tmp_path: Path) -> None:
    (tmp_path / "dict.txt").write_text("a 3\n<unk> 2 #fairseq:overwrite\nb 1\n")
    tokenizer = open_tokenizer(f"fairseq_dict:{tmp_path / 'dict.txt'}")
    assert tokenizer.encode("a <unk> b c").tokens.tolist() == [4, 5, 6, 3]
    assert tokenizer.vocab_size == 7


@pytest.mark.parametrize(
    ("content", "message"), [("a 3\na 4\n", "line 2: the word 'a'"), ("alone\n", "line 1"), ("a b\n", "line 1")]
)
def test_a_dictionary_that_is_none_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "dict.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        open_tokenizer(f"fairseq_dict:{tmp_path / 'dict.txt'}")


def test_a_missing_dictionary_is_refused_by_the_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        open_tokenizer(f"fairseq_dict:{tmp_path / 'dict.txt'}")
    with pytest.raises(SpecError, match="names no file"):
        open_tokenizer("fairseq_dict:")
