"""Values that come back: the text, and the best guess against enumeration of everything that could have been."""

import hashlib
import math
from collections import Counter

import numpy as np
import pytest

from lpe_eval.data.corpus import Corpus, open_corpus
from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.spec.corpus_spec import CorpusSpec
from tests.support.known_optimum import echo_probabilities, losses_by_chain_rule


def opened(options: str = "") -> Corpus:
    return open_corpus(CorpusSpec.parse(f"echo?{options}" if options else "echo"))


def places(corpus: Corpus, text: str) -> np.ndarray:
    found = corpus.optimum()
    assert found is not None
    symbols = found.symbols
    return np.array([symbols.index(each) for each in text], dtype=np.int64)


def losses(corpus: Corpus, window: np.ndarray) -> np.ndarray:
    found = corpus.optimum()
    assert found is not None
    return found.losses(window)


@pytest.mark.parametrize(
    ("symbols", "octaves", "value", "length"), [(2, 1, 1, 8), (2, 2, 1, 10), (2, 2, 2, 11), (3, 1, 2, 8), (4, 2, 1, 7)]
)
def test_the_best_guess_is_that_of_enumeration(symbols: int, octaves: int, value: int, length: int) -> None:
    corpus = opened(f"symbols={symbols}&octaves={octaves}&value={value}")
    windows = echo_probabilities(length, symbols, octaves, value)
    assert sum(windows.values()) == 1
    some = sorted(windows)[:: max(1, len(windows) // 150)]
    for window in some:
        ours = losses(corpus, np.array(window))
        np.testing.assert_allclose(ours, losses_by_chain_rule(windows, window), rtol=0, atol=1e-12, err_msg=str(window))


@pytest.mark.parametrize(
    ("options", "split", "digest"),
    [("", "test", "7082c250661e7cc0"), ("symbols=8&octaves=5&value=2&length=3000", "train", "98a05ab942fb354c")],
)
def test_the_text_is_the_same_on_every_machine(options: str, split: str, digest: str) -> None:
    (part,) = opened(options).parts(split) or ()
    document = part.read(1)
    assert document is not None
    assert hashlib.sha256(str(document.text).encode()).hexdigest()[:16] == digest


def test_names_come_from_all_groups_alike_and_bring_their_values_back() -> None:
    (part,) = opened("length=80000").parts("test") or ()
    document = part.read(0)
    assert document is not None
    records = str(document.text)[1:].split(" ")
    assert {len(each) for each in records} == {7}
    values: dict[str, set[str]] = {}
    for each in records:
        values.setdefault(each[:2], set()).add(each[2:])
    assert {len(each) for each in values.values()} == {1}
    symbols = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    groups = Counter(int(math.log2(64 * symbols.index(each[0]) + symbols.index(each[1]))) for each in records)
    assert set(groups) == set(range(12))
    assert all(abs(count - 10000 / 12) < 4 * math.sqrt(10000 / 12) for count in groups.values())


def test_each_doubling_of_the_context_shows_as_many_more_values() -> None:
    corpus = opened("length=300000")
    (part,) = corpus.parts("test") or ()
    document = part.read(0)
    assert document is not None
    records = losses(corpus, places(corpus, str(document.text)))[: 8 * 37000].reshape(-1, 8).sum(axis=1)
    before = np.arange(len(records))
    # A value is unknown if none of the records before had its name; each group has a twelfth of all records.
    unknown = sum((1 - 1 / (12 * 2.0**group)) ** before for group in range(12)) / 12
    expected = math.log(12) + 5.5 * math.log(2) + unknown * 5 * math.log(64)
    expected[0] += math.log(8)
    for start in (16, 128, 1024, 8192):
        here = slice(start, 4 * start)
        off = (records[here] - expected[here]).mean()
        assert abs(off) < 4 * records[here].std() / math.sqrt(3 * start)
    assert np.diff(unknown[[64, 128, 256, 512, 1024]]) == pytest.approx(-1 / 12, rel=0.03), (
        "a twelfth, but for both ends"
    )


def test_without_context_names_cost_their_entropy_and_values_the_whole_alphabet() -> None:
    corpus = opened()
    window = places(corpus, " BC12345")
    nats = losses(corpus, window)
    assert nats[0] == pytest.approx(math.log(8), abs=1e-12), "a window may begin at any of eight places"
    assert nats[1] + nats[2] == pytest.approx(math.log(12 * 64), abs=1e-12), "one of the 64 names of the sixth group"
    assert nats[3:] == pytest.approx(math.log(64), abs=1e-12)
    assert losses(corpus, places(corpus, " BC12345 BC12345"))[11:] == pytest.approx(0, abs=1e-12)


def test_slips_are_refused() -> None:
    with pytest.raises(SpecError, match="the corpus echo, octaves"):
        opened("octaves=17")
    with pytest.raises(UnknownName, match="alpha"):
        opened("alpha=1")
