"""Tokenizers: ids, the bytes each stands for, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpe_eval.data.texts import text_bytes
from lpe_eval.data.tokenizer import Tokenizer, open_tokenizer
from lpe_eval.errors import DataError, MissingExtra, SpecError, UnknownName

SENTENCES = ["the cat sat on the mat", "naïve café – 日本語 🙂", "def f(x):\n    return x + 1\n"] * 20


def save_tokenizer(folder: Path, byte_level: bool, with_bos: bool) -> Path:
    from tokenizers import Tokenizer as Rust
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if byte_level:
        rust = Rust(models.BPE())
        rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        rust.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    else:
        rust = Rust(models.WordPiece(unk_token="[UNK]"))
        rust.normalizer = normalizers.BertNormalizer(lowercase=True)
        rust.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]", "<s>", "</s>"])
    rust.train_from_iterator(SENTENCES, trainer)
    if with_bos:
        ids = [(token, rust.token_to_id(token)) for token in ("<s>", "</s>")]
        rust.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    rust.enable_truncation(8)
    PreTrainedTokenizerFast(tokenizer_object=rust, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = save_tokenizer(tmp_path_factory.mktemp("byte_level"), byte_level=True, with_bos=True)
    return open_tokenizer(f"hf:{folder}")


@pytest.fixture(scope="module")
def word_piece(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = save_tokenizer(tmp_path_factory.mktemp("word_piece"), byte_level=False, with_bos=False)
    return open_tokenizer(f"hf:{folder}")


@given(st.binary(max_size=60))
def test_bytes_give_back_any_file(content: bytes) -> None:
    encoded = open_tokenizer("bytes").encode(content.decode("utf-8", "surrogateescape"))
    assert encoded.tokens.tolist() == list(content)
    assert encoded.n_bytes.tolist() == [1] * len(content)


def test_bytes_have_two_control_tokens_after_the_symbols() -> None:
    tokenizer = open_tokenizer("bytes")
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id) == (258, 256, 257)
    assert not tokenizer.adds_bos
    assert len(tokenizer.fingerprint) == 64


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")))
def test_byte_level_tokens_share_out_every_byte_of_any_file(byte_level: Tokenizer, content: bytes) -> None:
    encoded = byte_level.encode(content.decode("utf-8", "surrogateescape"))
    assert len(encoded.tokens) == len(encoded.n_bytes)
    assert encoded.n_bytes.sum() == len(content)
    assert (encoded.n_bytes >= 0).all()


def test_each_byte_level_token_of_plain_text_has_the_bytes_of_its_own_spelling(byte_level: Tokenizer) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(byte_level.name.removeprefix("hf:"))
    text = "the cat sat on the mat\nreturn x + 1"
    encoded = byte_level.encode(text)
    spelled = [len(reference.decode([token])) for token in encoded.tokens.tolist()]
    assert encoded.n_bytes.tolist() == spelled
    assert reference.decode(encoded.tokens.tolist()) == text


def test_a_character_of_several_tokens_counts_once(byte_level: Tokenizer) -> None:
    encoded = byte_level.encode("\u4e00")
    assert len(encoded.tokens) > 1
    assert encoded.n_bytes.tolist() == [3] + [0] * (len(encoded.tokens) - 1)


def test_dropped_blanks_count_for_the_token_after_them(word_piece: Tokenizer) -> None:
    text = "  the   cat  "
    encoded = word_piece.encode(text)
    assert len(encoded.tokens) == 2
    assert encoded.n_bytes.tolist() == [5, 8]


@pytest.mark.parametrize("text", SENTENCES[:3])
def test_a_normaliser_that_changes_the_text_changes_no_byte_count(word_piece: Tokenizer, text: str) -> None:
    assert word_piece.encode(text).n_bytes.sum() == len(text_bytes(text))


def test_control_tokens_and_a_stored_truncation_do_not_reach_an_encoding(byte_level: Tokenizer) -> None:
    encoded = byte_level.encode("the cat sat on the mat " * 10)
    assert len(encoded.tokens) > 8
    assert not np.isin(encoded.tokens, [byte_level.bos_id, byte_level.eos_id]).any()


def test_adds_bos_is_what_the_tokenizer_does_by_itself(byte_level: Tokenizer, word_piece: Tokenizer) -> None:
    assert byte_level.adds_bos
    assert word_piece.bos_id is not None
    assert not word_piece.adds_bos


def test_empty_text_has_no_tokens(byte_level: Tokenizer) -> None:
    for tokenizer in (byte_level, open_tokenizer("bytes")):
        tokens, n_bytes = tokenizer.encode("")
        assert tokens.tolist() == n_bytes.tolist() == []


def test_the_fingerprint_follows_the_rules_and_not_the_folder(
    byte_level: Tokenizer, word_piece: Tokenizer, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(byte_level.name.removeprefix("hf:")).save_pretrained(tmp_path)
    copy = open_tokenizer(f"hf:{tmp_path}")
    assert copy.fingerprint == byte_level.fingerprint
    assert word_piece.fingerprint != byte_level.fingerprint


@pytest.mark.parametrize(
    ("text", "family", "message"),
    [
        ("byte", UnknownName, "did you mean bytes"),
        ("bytes:x", SpecError, "takes no argument"),
        ("hf:", SpecError, "write hf:PATH"),
    ],
)
def test_a_tokenizer_that_cannot_be_is_refused(text: str, family: type[Exception], message: str) -> None:
    with pytest.raises(family, match=message):
        open_tokenizer(text)


def test_an_empty_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        open_tokenizer(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_a_broken_tokenizer_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, byte_level=True, with_bos=False)
    tmp_path.joinpath("tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        open_tokenizer(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_offline_a_model_id_is_refused_in_one_sentence(tmp_path: Path) -> None:
    code = "from lpe_eval.data.tokenizer import open_tokenizer; open_tokenizer('hf:no-such-org/no-such-model')"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith("lpe_eval.errors.DataError: the tokenizer hf:no-such-org/no-such-model cannot be loaded")


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"lpe-eval\[hf\]"):
        open_tokenizer("hf:anything")
