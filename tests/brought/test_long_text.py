"""Long texts: the budget is met, planning costs what the budget costs, and ids are those of the whole text.

Cases R7, F5 and R24 of the collections. The oracle for ids is `tokenizers.Tokenizer` on all of the text.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from lpe_eval.data.beginnings import first_tokens
from lpe_eval.data.corpus import open_corpus
from lpe_eval.data.selection import choose_documents
from lpe_eval.data.texts import FileText, Text
from lpe_eval.data.tokenizer import EncodedText, open_tokenizer
from lpe_eval.spec.corpus_spec import CorpusSpec

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DIGITS_FROM_THE_RIGHT = r"\d{1,3}(?=(?:\d{3})*(?!\d))|[^\d\s]+|\s+"


def some_text(seed: int, size: int) -> str:
    draw = random.Random(seed)
    words = [
        "alpha",
        "Beta",
        "12345",
        "don't",
        "naïve",
        "日本語。",
        "x=1;",
        "\n\n",
        "\n    ",
        "   ",
        "...",
        "e\u0301",
        "🙂",
    ]
    text = ""
    while len(text) < size:
        run = draw.choice("a 1=\n") * draw.choice([0, 0, 40, 700])
        text += " ".join([*draw.choices(words, k=50), run, ""])
    return text[:size]


def trained(kind: str) -> Tokenizer:
    corpus = [some_text(seed, 3000) for seed in range(4)]
    if kind == "unigram":
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.NFKC()
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        options = {"unk_token": "<unk>", "special_tokens": ["<unk>"], "show_progress": False}
        made.train_from_iterator(corpus, trainers.UnigramTrainer(vocab_size=120, **options))
        return made
    if kind == "word_piece":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        options = {"special_tokens": ["[UNK]"], "show_progress": False}
        made.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=150, **options))
        return made
    made = Tokenizer(models.BPE())
    if kind == "one_word":
        # As Llama 2: no pre-tokenizer, so that the whole text is one word.
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=["<unk>"], show_progress=False)
        made.train_from_iterator([word for text in corpus for word in text.split()], trainer)
        return made
    splits = {"llama3": LLAMA3, "digits": DIGITS_FROM_THE_RIGHT}
    first = [pre_tokenizers.Split(Regex(splits[kind]), "isolated")] if kind in splits else []
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not first)
    made.pre_tokenizer = pre_tokenizers.Sequence([*first, level])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"initial_alphabet": alphabet, "special_tokens": ["<|endoftext|>"], "show_progress": False}
    made.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=400, **options))
    return made


@pytest.fixture(scope="module", params=["gpt2", "llama3", "digits", "one_word", "unigram", "word_piece"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param) / "tokenizer.json"
    trained(request.param).save(str(path))
    return path


def test_r7_the_first_tokens_are_those_of_the_whole_text(file: Path) -> None:
    oracle, ours = Tokenizer.from_file(str(file)), open_tokenizer(f"hf:{file}")
    for seed in range(2):
        text = some_text(seed, 60_000)
        whole = oracle.encode(text, add_special_tokens=False).ids
        n_bytes = ours.encode(text).n_bytes
        for most in (1, 10, 769, 3000):
            found = ours.first_tokens(Text(text), most)
            assert found.tokens.tolist() == whole[:most]
            assert found.n_bytes.tolist() == n_bytes[:most].tolist()


@settings(deadline=None, max_examples=12)
@given(piece=st.text(" \n\ta1.é中', ", min_size=1, max_size=30), most=st.integers(1, 400))
def test_r7_texts_that_repeat_anything_have_the_same_first_tokens(piece: str, most: int) -> None:
    backend = trained_once()
    text = piece * (24_000 // len(piece))

    def encode(part: str) -> EncodedText:
        found = backend.encode(part, add_special_tokens=False)
        return EncodedText(np.array(found.ids), np.array([stop for _, stop in found.offsets]))

    assert first_tokens(encode, Text(text), most).tokens.tolist() == encode(text).tokens[:most].tolist()


_ONCE: list[Tokenizer] = []


def trained_once() -> Tokenizer:
    if not _ONCE:
        _ONCE.append(trained("llama3"))
    return _ONCE[0]


def test_r7_no_more_of_a_text_is_encoded_than_the_budget_needs(file: Path) -> None:
    ours, read = open_tokenizer(f"hf:{file}"), []

    class Counting(Text):
        def start(self, most: int) -> str:
            read.append(most)
            return super().start(most)

        def whole(self) -> str:
            raise AssertionError("all of it is read")

    found = ours.first_tokens(Counting(some_text(1, 1 << 17) * 64), 2000)
    assert len(found.tokens) == 2000
    assert max(read) < 1 << 18


def test_r7_a_text_without_a_calm_place_is_encoded_whole_and_right() -> None:
    backend = trained_once()
    text = "1234567" * 3000

    def encode(part: str) -> EncodedText:
        found = backend.encode(part, add_special_tokens=False)
        return EncodedText(np.array(found.ids), np.array([stop for _, stop in found.offsets]))

    assert first_tokens(encode, Text(text), 50).tokens.tolist() == encode(text).tokens[:50].tolist()


class Budget(NamedTuple):
    """Sizes of texts, a budget, and what each gives."""

    number: str
    before: str
    sizes: dict[str, int]
    longest: int
    budget: int
    given: list[int]
    missing: int = 0


@pytest.mark.parametrize(
    "case",
    [
        Budget("F5 one text", "769 tokens, without a note", {"a": 1 << 20}, 512, 200_000, [200_000]),
        Budget("F5 two books", "12,288 of 200,000", {"a": 1 << 20, "b": 1 << 20}, 4096, 200_000, [99_647, 100_353]),
        Budget("F5 long and short", "769 each", {"a": 5000, "b": 1000, "c": 90_000}, 512, 20_000, [1000, 5000, 14_000]),
        Budget("F5 an odd rest", "769 each", {"a": 9000, "b": 9000}, 512, 10_001, [4618, 5383]),
        Budget("F5 too little", "769 each", {"a": 2000, "b": 3000, "c": 9}, 512, 20_000, [2000, 3000], 15_000),
        Budget("met before", "as now", {"a": 2000, "b": 3000, "c": 2000}, 512, 1538, [769, 769]),
    ],
    ids=lambda case: case.number,
)
def test_f5_the_budget_is_met_where_the_text_allows_it(case: Budget, tmp_path: Path) -> None:
    for name, size in case.sizes.items():
        tmp_path.joinpath(f"{name}.txt").write_text(("word " * size)[:size])
    corpus = open_corpus(CorpusSpec.parse(str(tmp_path)))
    options = {"longest": case.longest, "max_tokens": case.budget, "seed": 0}
    found = choose_documents(corpus, "all", open_tokenizer("bytes"), **options)
    assert sorted(len(each.tokens) for each in found.documents) == case.given
    assert found.missing == case.missing
    again = choose_documents(open_corpus(CorpusSpec.parse(str(tmp_path))), "all", open_tokenizer("bytes"), **options)
    assert again.fingerprint == found.fingerprint


def test_a_large_file_stays_on_the_disk_and_has_the_digest_and_tokens_of_its_bytes(tmp_path: Path) -> None:
    import hashlib

    content = b"\xef\xbb\xbf" + some_text(3, 1_800_000).encode() * 3
    path = tmp_path / "large.txt"
    path.write_bytes(content)
    (document,) = open_corpus(CorpusSpec.parse(str(path))).documents("all")
    assert isinstance(document.text, FileText)
    (chosen,) = choose_documents(
        open_corpus(CorpusSpec.parse(str(path))), "all", open_tokenizer("bytes"), longest=64, max_tokens=5000, seed=0
    ).documents
    assert chosen.digest == hashlib.sha256(content[3:]).hexdigest() == document.text.digest
    assert bytes(chosen.tokens.tolist()) == content[3:5003]
    assert document.text.whole() == content[3:].decode()


def test_only_what_is_visited_is_read_of_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2000):
        tmp_path.joinpath(f"{number}.txt").write_text("ab " * 200)
    read: list[str] = []
    original = Path.read_bytes

    def counted(self: Path) -> bytes:
        read.append(self.name)
        return original(self)

    monkeypatch.setattr(Path, "read_bytes", counted)
    corpus = open_corpus(CorpusSpec.parse(str(tmp_path)))
    found = choose_documents(corpus, "all", open_tokenizer("bytes"), longest=64, max_tokens=970, seed=0)
    assert len(found.documents) == 10
    assert len(read) <= 11


@pytest.mark.parametrize("bos", ["always", "first-window"])
@pytest.mark.parametrize(
    "make", [lambda text: f"<s>{text}", lambda text: text], ids=["R24: refused before", "without its own"]
)
def test_r24_a_document_that_begins_with_bos_is_read_as_if_it_did_not(
    make: Callable[[str], str], bos: str, tmp_path: Path
) -> None:
    made = trained("gpt2")
    made.add_special_tokens(["<s>", "</s>"])
    made.save(str(tmp_path / "tokenizer.json"))
    tmp_path.joinpath("tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}'
    )
    ours = open_tokenizer(f"hf:{tmp_path}")
    plain = some_text(2, 3000).strip()
    tmp_path.joinpath("a.txt").write_text(make(plain))
    corpus = open_corpus(CorpusSpec.parse(str(tmp_path / "a.txt")))
    for pack in (False, True):
        (found,) = choose_documents(
            corpus, "all", ours, longest=16, max_tokens=100, seed=0, bos=bos, pack=pack  # pyright: ignore[reportArgumentType]
        ).documents  # fmt: skip
        assert found.tokens.tolist() == made.encode(plain, add_special_tokens=False).ids[:100]
        assert ours.bos_id not in found.tokens
