"""Documents from chains that nobody knows: the text, and the best guess against closed forms and enumeration."""

import hashlib
import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

from lpe_eval.data.corpora.urn import Urn
from lpe_eval.data.corpus import open_corpus
from lpe_eval.data.selection import choose_documents
from lpe_eval.data.tokenizers.bytes import Bytes
from lpe_eval.errors import DataError, SpecError, UnknownName
from lpe_eval.spec.corpus_spec import CorpusSpec
from tests.support.known_optimum import chain_probability, counted_losses, gain_inside, window_probabilities


def opened(options: str = "") -> Urn:
    corpus = open_corpus(CorpusSpec.parse(f"urn?{options}" if options else "urn"))
    assert isinstance(corpus, Urn)
    return corpus


def text(corpus: Urn, number: int = 0, split: str = "test") -> str:
    return str(corpus.document(split, number).text)


def places(corpus: Urn, text: str) -> np.ndarray:
    symbols = corpus.optimum().symbols
    return np.array([symbols.index(each) for each in text], dtype=np.int64)


@pytest.mark.parametrize(
    ("options", "split", "digest"),
    [
        ("", "test", "8f3a0b67b2ad4d3e"),
        ("", "train", "c8ee6bf837a6ca7d"),
        ("alpha=0.5&seed=3", "test", "e6a2e35ac5936e14"),
        ("symbols=10&alpha=1/3&length=1000", "valid", "6be5918b99485dcb"),
    ],
)
def test_the_text_is_the_same_on_every_machine(options: str, split: str, digest: str) -> None:
    assert hashlib.sha256(text(opened(options), 1, split).encode()).hexdigest()[:16] == digest


def test_what_tells_documents_apart_and_what_does_not() -> None:
    plain = text(opened())
    assert len(plain) == 32768
    assert set(plain) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    assert text(opened("length=40000"))[:32768] == plain, "a longer document begins as the shorter one"
    assert text(opened("documents=3&alpha=1/10&symbols=64")) == plain, "defaults may be spelled out"
    others = [text(opened(), 1), text(opened(), 0, "valid"), text(opened("seed=1")), text(opened("alpha=0.2"))]
    assert len({plain[:99], *(each[:99] for each in others)}) == 5


def test_splits_have_documents_by_number_and_read_those_that_are_wanted() -> None:
    corpus = opened("length=50")
    assert {split: sum(map(len, corpus.parts(split))) for split in ("train", "valid", "test")} == {
        "train": 512, "valid": 16, "test": 128,
    }  # fmt: skip
    assert [document.name for document in opened("length=50&documents=3").documents("train")] == [
        "train/0", "train/1", "train/2",
    ]  # fmt: skip
    (part,) = opened("length=16777216").parts("test")
    assert part.name(7) == "test/7", "no document of 16 million characters is drawn to be named"
    with pytest.raises(DataError, match="urn has no split 'dev'; it has train, valid, test"):
        corpus.parts("dev")
    with pytest.raises(DataError, match=r"or ask for longer documents, as in --data 'urn.length=65536'"):
        choose_documents(opened("length=50"), "test", Bytes(), longest=50, max_tokens=100, seed=0)


def test_the_short_form_takes_options_of_any_corpus_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CorpusSpec.parse("urn") == CorpusSpec(name="urn")
    assert CorpusSpec.parse("urn?alpha=0.5&length=99") == CorpusSpec(name="urn", options={"alpha": 0.5, "length": 99})
    assert CorpusSpec.parse("wikitext?documents=split") == CorpusSpec(name="wikitext", options={"documents": "split"})
    with pytest.raises(SpecError, match="ends in a question mark"):
        CorpusSpec.parse("urn?")
    with pytest.raises(SpecError, match="the corpus python-stdlib has no options; leave alpha out"):
        open_corpus(CorpusSpec.parse("python-stdlib?alpha=1"))
    (tmp_path / "urn?alpha=1").write_text("a file of that name is that file")
    assert CorpusSpec.parse("urn?alpha=1").name == "local"


def test_options_are_told_and_slips_are_refused() -> None:
    corpus = opened("length=50&alpha=0.25")
    assert corpus.label == "urn?alpha=0.25&length=50"
    assert corpus.describe() == {"symbols": "64", "length": "50", "seed": "0", "alpha": "1/4"}
    for options, sentence in (
        ("alpha=0", "the corpus urn, alpha: alpha must be above 0 and have at most six digits, not 0"),
        ("alpha=1e-9", "alpha must be above 0 and have at most six digits"),
        ("alpha=1/0", "alpha must be a number or a fraction such as 1/3, not '1/0'"),
        ("alpha=true", "alpha must be a number or a fraction such as 1/3, not True"),
        ("alpha=nan", "alpha must be a number or a fraction"),
        ("symbols=65", "less than or equal to 64"),
        ("length=1.5", "valid integer"),
        ("length", "'length' is not key=value"),
    ):
        with pytest.raises(SpecError, match=sentence):
            opened(options)
    with pytest.raises(UnknownName, match="alpa'; did you mean alpha"):
        opened("alpa=1")
    with pytest.raises(SpecError, match="the corpus urn is generated and has no path; leave here out"):
        open_corpus(CorpusSpec(name="urn", path="here"))


@pytest.mark.parametrize(("symbols", "alpha"), [(2, Fraction(1, 2)), (3, Fraction(1, 5)), (2, Fraction(2))])
def test_documents_have_the_probability_of_a_dirichlet_chain(symbols: int, alpha: Fraction) -> None:
    length, many = 5, 6000
    corpus = opened(f"symbols={symbols}&alpha={alpha}&length={length}")
    drawn = Counter(text(corpus, number) for number in range(many))
    squares, freedom = 0.0, -1
    for path in product(range(symbols), repeat=length):
        expected = float(many * chain_probability(path, symbols, alpha))
        if expected >= 5:
            squares += (drawn["".join("ABC"[each] for each in path)] - expected) ** 2 / expected
            freedom += 1
    # The 99.9 % point of chi squared, by Wilson and Hilferty.
    assert squares < freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


@pytest.mark.parametrize("length", [128, 1024, 16384])
@pytest.mark.parametrize("start", [0, 777])
def test_the_best_guess_is_the_ratio_of_counts(length: int, start: int) -> None:
    corpus = opened()
    window = places(corpus, text(corpus)[start : start + length])
    slow = counted_losses(tuple(window.tolist()), 64, Fraction(1, 10))
    np.testing.assert_allclose(corpus.optimum().losses(window), slow, rtol=0, atol=1e-9)


def test_at_the_beginning_of_a_document_no_guess_is_better() -> None:
    corpus = opened("symbols=3&alpha=1/5")
    for path in product(range(3), repeat=5):
        exact = -math.log(chain_probability(path, 3, Fraction(1, 5)))
        assert corpus.optimum().losses(np.array(path)).sum() == pytest.approx(exact, abs=1e-12)


def test_without_context_there_is_nothing_to_know() -> None:
    corpus = opened()
    losses = corpus.optimum().losses(places(corpus, text(corpus)[500:600]))
    assert losses[:2] == pytest.approx(math.log(64), abs=1e-15), "neither the first symbol nor what follows it at once"
    assert len(corpus.optimum().losses(np.array([], dtype=np.int64))) == 0
    # Behind a symbol that came m times before, and never before this one: 64 alpha + m over alpha.
    assert corpus.optimum().losses(np.array([0, 1, 0, 1, 0, 2]))[1:] == pytest.approx(
        np.log([64, 64, 7.4 / 1.1, 7.4 / 1.1, 8.4 / 0.1]), abs=1e-12
    )


def test_inside_a_document_little_can_be_gained_over_it_in_a_whole_window() -> None:
    half = Fraction(1, 2)
    assert gain_inside(5, 0, 2, half) == 0, "at the beginning it is exact"
    assert sum(window_probabilities(4, 2, 2, half).values()) == 1
    by_length = [gain_inside(length, 4, 2, half) for length in range(1, 8)]
    assert by_length[0] == pytest.approx(0, abs=1e-12), "a first symbol is as likely as any"
    assert all(one < other for one, other in pairwise(by_length)), "each target gains a little"
    assert by_length[-1] < bound_of_two_symbols(), "and all targets together less than the first symbol tells"
    steps = np.diff(by_length)
    assert steps[-1] < steps[0], "later targets gain less"


def bound_of_two_symbols() -> float:
    """What a symbol far inside a document tells of a chain of two symbols with alpha 1/2, in nats.

    The chance to leave a symbol is Beta(1/2, 1/2): sin squared of a uniform angle. The share of a symbol in the long
    run is the chance to leave the other over the sum of both, and what it tells is ln 2 less its mean entropy.
    """
    angles = (np.arange(2000) + 0.5) / 2000 * math.pi / 2
    one, other = np.meshgrid(np.sin(angles) ** 2, np.sin(angles) ** 2)
    share = one / (one + other)
    entropy = -share * np.log(share) - (1 - share) * np.log1p(-share)
    return math.log(2) - float(entropy.mean())


def test_what_the_docstring_says_of_the_default_is_so() -> None:
    draw = np.random.default_rng(0)
    told = []
    for _ in range(40):
        rows = draw.gamma(0.1, size=(64, 64)) + 1e-300
        rows /= rows.sum(axis=1, keepdims=True)
        shares = np.full(64, 1 / 64) @ np.linalg.matrix_power(rows, 256)
        told.append(math.log(64) + float((shares * np.log(shares)).sum()))
    assert np.mean(told) == pytest.approx(0.073, abs=4 * np.std(told) / math.sqrt(40))
