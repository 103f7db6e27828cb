"""Tokenizers that people bring: each case of the collections, what it did before, and what it must do now.

R is a report from a public tracker, A a finding of the architectures, F a fault of the first hour, P of packaging.
The oracle for ids is `tokenizers.Tokenizer.from_file`.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.data import tokenizer as contract
from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.errors import DataError, LpeEvalError
from lpe_eval.report.folders.ppl import read_run
from tests.support.transformers_models import since_version_5

END = "<|endoftext|>"
SAMPLE = "in 2023 and 12345, Don't  stop\n\n  café 日本 I'll" * 3
PLAIN = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}


def backend(**parts: Any) -> Backend:
    """A byte-level BPE with "12" and the like in its vocabulary, and other parts around it."""
    made = Backend(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text = [" 12 123 1234 2023 in and don't stop café"] * 60
    options = {"initial_alphabet": alphabet, "special_tokens": [END, "<s>"], "show_progress": False}
    made.train_from_iterator(text, trainers.BpeTrainer(vocab_size=300, **options))
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def write(folder: Path, made: Backend, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    folder.joinpath("tokenizer_config.json").write_text(json.dumps({**PLAIN, **config}))
    return folder


def digits() -> Any:
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])


def prefixed(*symbols: str) -> Backend:
    made = backend()
    made.add_special_tokens(list(symbols))
    made.post_processor = processors.TemplateProcessing(
        single=f"{' '.join(symbols)} $A", special_tokens=[(each, made.token_to_id(each)) for each in symbols]
    )
    return made


@pytest.mark.parametrize("parts", ["digits", "lower", pytest.param("prefix space", marks=since_version_5), "no regex"])
@pytest.mark.parametrize(
    "name", ["GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer", "LlamaTokenizer", "BertTokenizer", "T5Tokenizer"]
)
def test_r2_ids_are_those_of_the_file_whatever_class_is_named(name: str, parts: str, tmp_path: Path) -> None:
    """Before: the class built its own pre-tokenizer and normaliser, and 8 ids came instead of 17, without a word."""
    changed = {
        "digits": {"pre_tokenizer": digits()},
        "lower": {"normalizer": normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])},
        "prefix space": {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
        "no regex": {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)},
    }[parts]
    folder = write(tmp_path / "t", backend(**changed), tokenizer_class=name, bos_token=END)
    expected = Backend.from_file(str(folder / "tokenizer.json")).encode(SAMPLE, add_special_tokens=False).ids
    for typed in (f"hf:{folder}", f"hf:{folder}/tokenizer.json", f"bpe:{folder}/tokenizer.json"):
        encoded = open_tokenizer(typed).encode(SAMPLE)
        assert encoded.tokens.tolist() == expected
        assert encoded.n_bytes.sum() == len(SAMPLE.encode())


class Prefix(NamedTuple):
    """What a tokenizer puts before a text."""

    number: str
    before: str
    symbols: list[str]
    adds_bos: bool
    said: tuple[str, ...]


@pytest.mark.parametrize(
    "case",
    [
        Prefix("R20", "dropped without a word", ["[gMASK]", "<sop>"], False, ("[gMASK]", "<sop>")),
        Prefix("R20 one that is not called BOS", "dropped without a word", ["[CLS]"], True, ()),
        Prefix("none", "as now", [], False, ()),
    ],
    ids=lambda case: case.number,
)
def test_r20_a_prefix_is_fed_or_said(case: Prefix, tmp_path: Path) -> None:
    made = prefixed(*case.symbols) if case.symbols else backend()
    ours = open_tokenizer(f"hf:{write(tmp_path / 't', made)}")
    assert (ours.adds_bos, ours.prefix) == (case.adds_bos, case.said)
    if case.adds_bos:
        assert made.encode("a").ids[0] == ours.bos_id


SLOW = """
from transformers import PreTrainedTokenizer
class Tok(PreTrainedTokenizer):
    @property
    def vocab_size(self): return 256
    def get_vocab(self): return {chr(i): i for i in range(256)}
    def _tokenize(self, text):
        return list(text)
    def _convert_token_to_id(self, token): return ord(token)
"""


def own_code(folder: Path, code: str = SLOW) -> str:
    folder.mkdir()
    folder.joinpath("tok.py").write_text(code)
    mapped = {"AutoTokenizer": ["tok.Tok", None]}
    folder.joinpath("tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Tok", "auto_map": mapped}))
    return f"hf:{folder}"


def test_r11_and_a5_code_beside_a_tokenizer_runs_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: --trust-remote-code did not reach the tokenizer."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    name = own_code(tmp_path / "slow")
    with pytest.raises(DataError, match="use --trust-remote-code"):
        open_tokenizer(name)
    assert open_tokenizer(name, True).encode("abc").tokens.tolist() == [97, 98, 99]
    knows = "    def _convert_id_to_token(self, number): return chr(number)\n"
    both = open_tokenizer(own_code(tmp_path / "both", SLOW + knows), True).encode("abc")
    assert both.n_bytes.tolist() == [1, 1, 1]
    raises = "        if len(text) > 1: raise Exception('no such thing')\n        return list(text)\n"
    bare = open_tokenizer(own_code(tmp_path / "bare", SLOW.replace("        return list(text)\n", raises)), True)
    with pytest.raises(DataError, match="cannot be encoded: no such thing"):
        bare.encode("abc")


class Refusal(NamedTuple):
    """A tokenizer that cannot be opened, and what is said."""

    number: str
    before: str
    make: Callable[[Path], str]
    sentence: str


def alone(name: str, content: bytes) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        folder.joinpath(name).write_bytes(content)
        return f"hf:{folder}"

    return make


REFUSALS = [
    Refusal("F11 a file", "asked the Hub twelve times", lambda at: f"hf:{at}/no.json", "there is no file or folder"),
    Refusal("F11 a folder", "asked the Hub", lambda at: "hf:./nowhere", "there is no file or folder"),
    Refusal("F11 empty", "asked for packages", lambda at: f"hf:{at}", "has no tokenizer.json and no vocabulary"),
    Refusal("P10", "traceback", alone("tokenizer.json", b'{"model": '), "cannot be loaded"),
    Refusal("A5 sentencepiece", "tiktoken", alone("tokenizer.model", b"\n\x0e"), "pip install sentencepiece protobuf"),
    Refusal("A5 tiktoken", "tiktoken", alone("tokenizer.model", b"IQ== 0"), "pip install tiktoken"),
    Refusal("char", "no such kind", lambda at: f"char:{at}/no.txt", "cannot be read: No such file"),
    Refusal("char pickle", "no such kind", lambda at: f"char:{at}/meta.pkl", "is a pickle"),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.number)
def test_what_cannot_be_opened_is_told_in_one_sentence(
    case: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lpe_eval.data.tokenizers import huggingface

    monkeypatch.setattr(huggingface, "is_missing", lambda package: True)
    with pytest.raises(LpeEvalError) as caught:
        open_tokenizer(case.make(tmp_path))
    assert case.sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["sentencepiece", "protobuf", "sacremoses", "tiktoken"])
def test_a5_and_p10_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: a traceback of ImportError."""
    monkeypatch.setattr(contract, "is_missing", lambda name: name == package)
    with pytest.raises(DataError, match=f"pip install {package}"), contract.told_by("the tokenizer hf:x"):
        raise ImportError(f"You need to install {package} to use this")


def test_a5_and_f17_unknown_symbols_are_counted_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: a vocabulary without its unknown symbol was a traceback, and unknown words were not counted."""
    monkeypatch.chdir(tmp_path)
    words = {word: number for number, word in enumerate(["<unk>", "a", "b", END])}
    for folder, unknown in (("known", "<unk>"), ("broken", "<gone>")):
        made = Backend(models.WordLevel(words, unk_token=unknown))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        write(tmp_path / folder, made)
    tmp_path.joinpath("t.txt").write_text("a b c " * 200)
    typed = ["ppl", "-m", "alibi", "--data", "t.txt", "--lengths", "16", "--max-tokens", "300", "--out", "o"]
    found = CliRunner().invoke(app, [*typed, "--tokenizer", "hf:known", "--protocol", "nonoverlap"])
    assert found.exit_code == 0, found.output
    assert "100 of 300 tokens (33 %) stand for what the tokenizer hf:known does not know" in " ".join(
        found.output.split()
    )
    assert read_run(Path("o")).provenance["models"]["alibi"]["tokens_unknown"] == 100
    refused = CliRunner().invoke(app, [*typed, "--overwrite", "--tokenizer", "hf:broken"])
    assert refused.exit_code == 2
    assert "cannot be encoded" in refused.output


@pytest.mark.parametrize("form", ["text", "list", "object", "stoi"])
def test_char_numbers_characters_as_their_owners_do(form: str, tmp_path: Path) -> None:
    """Before: seven of seven owners of character models wrote a Hugging Face tokenizer by hand."""
    text = "hello\r\nwörld"
    chars = sorted(set(text.replace("\r\n", "\n")))
    stoi = {character: number for number, character in enumerate(chars)}
    content = {"list": chars, "object": stoi, "stoi": {"stoi": stoi, "vocab_size": len(chars)}}.get(form)
    path = tmp_path / ("input.txt" if form == "text" else "chars.json")
    path.write_bytes(text.encode() if form == "text" else json.dumps(content).encode())
    ours = open_tokenizer(f"char:{path}")
    assert ours.vocab_size == len(chars)
    encoded = ours.encode("low wöl".replace(" ", "\n"))
    assert encoded.tokens.tolist() == [stoi[character] for character in "low\nwöl"]
    assert encoded.n_bytes.tolist() == [1, 1, 1, 1, 1, 2, 1]
    with pytest.raises(DataError, match=r"1 characters that the tokenizer .* does not know, first 'z'"):
        ours.encode("lz")
    path.with_name("u.json").write_text(json.dumps([*chars, "<unk>"]))
    assert open_tokenizer(f"char:{path.with_name('u.json')}").encode("lz").tokens.tolist() == [stoi["l"], len(chars)]


@pytest.mark.parametrize("kind", ["hf", "bpe", "char", "bytes"])
def test_f3_and_f4_a_trained_checkpoint_holds_its_tokenizer(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: an IndexError for more than 258 symbols, and a checkpoint that could not be moved."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "tok", backend())
    for split in ("train", "valid"):
        tmp_path.joinpath("books").mkdir(exist_ok=True)
        tmp_path.joinpath("books", f"{split}.txt").write_text("in 2023 and 12345 don't stop " * 60)
    name = {"hf": "hf:tok", "bpe": "bpe:tok/tokenizer.json", "char": "char:books/train.txt", "bytes": "bytes"}[kind]
    small = ["--train-length", "16", "--batch-tokens", "32", "--steps", "2", "--width", "16", "--layers", "1"]
    typed = ["train", "--encoding", "alibi", "--corpus", "books", *small, "--heads", "2", "-q", "--out", "made"]
    found = CliRunner().invoke(app, [*typed, "--tokenizer", name])
    assert found.exit_code == 0, found.output
    before = open_tokenizer(name)
    shutil.move("made", "moved")
    shutil.rmtree("tok")
    tmp_path.joinpath("books", "valid.txt").rename("t.txt")
    shutil.rmtree("books")
    measure = ["ppl", "-m", "moved", "--data", "t.txt", "--lengths", "16", "--max-tokens", "200", "-q", "--out", "o"]
    measured = CliRunner().invoke(app, [*measure, "--protocol", "nonoverlap"])
    assert measured.exit_code == 0, measured.output
    run = read_run(Path("o"))
    assert np.isfinite(run.rows.value).all()
    facts = run.provenance["models"][run.rows.model[0]]
    assert facts["tokenizer_fingerprint"] == before.fingerprint
    assert facts["opened"]["vocab_size"] == before.vocab_size


@pytest.mark.parametrize("prefix", ["hf:", ""])
def test_r31_a_home_is_written_out_behind_a_prefix_too(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: -m hf:~/base was refused while --data ~/t.txt was not."""
    from lpe_eval.model.checkpoint import locate

    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "tok", backend())
    tmp_path.joinpath("tok", "config.json").write_text('{"model_type": "llama"}')
    assert str(locate(f"{prefix}~/tok").path) == str(tmp_path / "tok")
    one, other = (open_tokenizer(f"hf:{where}").encode("in").tokens.tolist() for where in ("~/tok", tmp_path / "tok"))
    assert one == other
