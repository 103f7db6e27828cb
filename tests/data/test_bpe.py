"""Byte-level BPE from GPT-2's two files, and from a tokenizer.json."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lpe_eval.data.texts import text_bytes
from lpe_eval.data.tokenizer import Tokenizer, open_tokenizer
from lpe_eval.errors import DataError, SpecError

TEXTS = ["the cat sat on the mat", "naïve café – 日本語 🙂", "it's 1234 we'll\n\n  x"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer as Rust
    from tokenizers import models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("bpe")
    rust = Rust(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    rust.train_from_iterator(TEXTS * 9, trainers.BpeTrainer(vocab_size=310, initial_alphabet=alphabet))
    rust.model.save(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**vocab, "<|endoftext|>": len(vocab)}))
    rust.add_special_tokens(["<|endoftext|>"])
    rust.enable_truncation(4)
    rust.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def two_files(files: Path) -> Tokenizer:
    return open_tokenizer(f"bpe:{files / 'vocab.json'},{files / 'merges.txt'}")


def test_two_files_are_gpt2s_tokenizer(files: Path, two_files: Tokenizer) -> None:
    from transformers import GPT2TokenizerFast

    vocab = json.loads((files / "vocab.json").read_text())
    merges = [
        tuple(line.split()) for line in (files / "merges.txt").read_text().splitlines() if not line.startswith("#")
    ]
    theirs = GPT2TokenizerFast(vocab=vocab, merges=merges)
    for text in TEXTS:
        assert two_files.encode(text).tokens.tolist() == theirs(text)["input_ids"]
    assert two_files.eos_id == two_files.bos_id == theirs.eos_token_id
    assert two_files.vocab_size == len(theirs)
    assert not two_files.adds_bos


def test_one_file_gives_the_same_tokens_and_is_never_cut_short(files: Path, two_files: Tokenizer) -> None:
    whole = open_tokenizer(f"bpe:{files / 'tokenizer.json'}")
    for text in TEXTS:
        assert whole.encode(text).tokens.tolist() == two_files.encode(text).tokens.tolist()
    assert whole.encode("a<|endoftext|>b").tokens[1] == whole.eos_id
    assert two_files.eos_id not in two_files.encode("a<|endoftext|>b").tokens
    assert whole.fingerprint != two_files.fingerprint


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(content=st.binary(max_size=40))
def test_the_bytes_of_all_tokens_are_the_bytes_of_the_text(two_files: Tokenizer, content: bytes) -> None:
    text = content.decode("utf-8", "surrogateescape")
    encoded = two_files.encode(text)
    assert encoded.n_bytes.sum() == len(text_bytes(text))
    assert (encoded.n_bytes >= 0).all()


def test_a_broken_or_missing_file_is_named(files: Path, tmp_path: Path) -> None:
    vocab, merges = files / "vocab.json", files / "merges.txt"
    with pytest.raises(DataError, match=r"none\.json, which is not there"):
        open_tokenizer(f"bpe:{tmp_path / 'none.json'},{merges}")
    broken = {
        "list.json": ("[1]", "no JSON object"),
        "cut.json": ('{"a": ', "cannot be read as JSON"),
        "odd.json": ('{"a": "b"}', "is not a vocabulary"),
    }
    for name, (content, message) in broken.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=message):
            open_tokenizer(f"bpe:{tmp_path / name},{merges}")
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(DataError, match="line 2: 'a b c' is no pair"):
        open_tokenizer(f"bpe:{vocab},{tmp_path / 'merges.txt'}")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nzq qz\n")
    with pytest.raises(DataError, match="joins 'zq', which is not in"):
        open_tokenizer(f"bpe:{vocab},{tmp_path / 'merges.txt'}")
    with pytest.raises(DataError, match=r"is not a tokenizer\.json"):
        open_tokenizer(f"bpe:{vocab}")
    for wrong in ("bpe:", f"bpe:{vocab},"):
        with pytest.raises(SpecError, match="write bpe:"):
            open_tokenizer(wrong)
