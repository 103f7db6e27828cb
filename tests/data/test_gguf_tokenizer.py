"""The tokenizer inside a GGUF file, as llama.cpp's converter writes it."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.errors import DataError

gguf = pytest.importorskip("gguf")
TEXT = "the cat sat on the mat, then the other cat sat on the other mat\n" * 5


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    """Byte-level BPE with the pre-tokenizer that GGUF files of Llama 3 stand for."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"])
    made.train_from_iterator([TEXT], trainer)
    return made


def test_its_ids_are_those_of_the_tokenizer_it_was_made_of(trained: Tokenizer, tmp_path: Path):
    file = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    size = trained.get_vocab_size()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([trained.id_to_token(number) for number in range(size)])
    writer.add_token_types([3 if number < 2 else 1 for number in range(size)])
    merges = json.loads(trained.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(each) for each in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_tensor("token_embd.weight", np.zeros((2, 2), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    opened = open_tokenizer(f"hf:{file}")
    encoded = opened.encode(TEXT)
    assert encoded.tokens.tolist() == trained.encode(TEXT, add_special_tokens=False).ids
    assert encoded.n_bytes.sum() == len(TEXT)
    assert (opened.bos_id, opened.eos_id) == (0, 1)


def test_one_that_cannot_be_read_is_one_sentence(tmp_path: Path):
    (tmp_path / "small.gguf").write_bytes(b"GGUF nothing")
    with pytest.raises(DataError, match=r"small\.gguf cannot be loaded"):
        open_tokenizer(f"hf:{tmp_path / 'small.gguf'}")
