"""Selection: which documents are measured, how they are cut, and the hash that says so."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpe_eval.data.corpus import Corpus, Document, open_corpus
from lpe_eval.data.selection import Selection, choose_documents
from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.errors import DataError, SpecError
from lpe_eval.spec.corpus_spec import CorpusSpec

BYTES = open_tokenizer("bytes")


def folder_of(root: Path, sizes: dict[str, int]) -> Corpus:
    root.mkdir(exist_ok=True)
    for name, size in sizes.items():
        root.joinpath(f"{name}.txt").write_text((name * size)[:size])
    return open_corpus(CorpusSpec(name="local", path=str(root)))


def chosen(corpus: Corpus, longest: int, max_tokens: int, seed: int = 0, **more: object) -> Selection:
    return choose_documents(corpus, "all", BYTES, longest=longest, max_tokens=max_tokens, seed=seed, **more)


def names(selection: Selection) -> list[str]:
    return [document.name for document in selection.documents]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return folder_of(tmp_path_factory.mktemp("texts"), {"a": 5, "b": 11, "c": 30, "d": 12, "e": 10, "f": 100, "g": 14})


def test_only_documents_longer_than_the_longest_length_are_taken(corpus: Corpus) -> None:
    selection = chosen(corpus, longest=10, max_tokens=1000)
    assert sorted(names(selection)) == ["b.txt", "c.txt", "d.txt", "f.txt", "g.txt"]
    assert (selection.n_eligible, selection.n_seen) == (5, 7)


def test_a_document_is_cut_to_half_a_window_more_than_a_full_one(corpus: Corpus) -> None:
    sizes = {"b.txt": 11, "c.txt": 16, "d.txt": 12, "f.txt": 16, "g.txt": 14}
    for selection in (chosen(corpus, longest=10, max_tokens=69), chosen(corpus, longest=10, max_tokens=1000, cap=16)):
        assert {each.name: len(each.tokens) for each in selection.documents} == sizes
    assert max(len(each.tokens) for each in chosen(corpus, 10, 1000, cap=50).documents) == 50


@given(max_tokens=st.integers(74, 180), seed=st.integers(0, 5))
def test_where_the_budget_asks_for_more_long_documents_give_more_step_by_step(
    corpus: Corpus, max_tokens: int, seed: int
) -> None:
    whole = {"b.txt": 11, "c.txt": 30, "d.txt": 12, "f.txt": 100, "g.txt": 14}
    selection = chosen(corpus, longest=10, max_tokens=max_tokens, seed=seed)
    found = {each.name: len(each.tokens) for each in selection.documents}
    # Brute force: from 16, the least, in steps of as much; the last step ends where the budget does.
    steps = [min(n, max_tokens) for n in range(16, 116, 16)]
    level = max((n for n in steps if sum(min(n, size) for size in whole.values()) <= max_tokens), default=16)
    expected = {name: min(level, whole[name]) for name in names(selection)}
    for name in names(selection):
        expected[name] += min(16, whole[name] - expected[name], max(0, max_tokens - sum(expected.values())))
    assert found == expected
    assert sum(found.values()) == min(max_tokens, 167)
    assert selection.missing == max(0, max_tokens - 167)


@given(max_tokens=st.integers(1, 90), seed=st.integers(0, 20))
def test_no_more_than_the_wanted_tokens_are_taken_but_always_one_document(
    corpus: Corpus, max_tokens: int, seed: int
) -> None:
    selection = chosen(corpus, longest=10, max_tokens=max_tokens, seed=seed)
    sizes = [len(each.tokens) for each in selection.documents]
    assert sum(sizes) <= max(max_tokens, 11)
    assert min(sizes) >= 11
    everything = chosen(corpus, longest=10, max_tokens=1000, seed=seed)
    assert names(everything)[: len(sizes)] == names(selection)
    # What was left would not have held the shortest of cuts, or there was nothing more.
    assert len(sizes) == 5 or max_tokens - sum(sizes) < 11


def test_tokens_and_digest_are_those_of_the_file(corpus: Corpus) -> None:
    for document in chosen(corpus, longest=10, max_tokens=1000).documents:
        content = Path(corpus.describe()["path"], document.name).read_bytes()
        assert document.digest == hashlib.sha256(content).hexdigest()
        assert bytes(document.tokens.tolist()) == content[: len(document.tokens)]
        assert document.n_bytes.tolist() == [1] * len(document.tokens)


def test_the_order_depends_on_the_seed_and_on_nothing_else(tmp_path: Path) -> None:
    few = folder_of(tmp_path / "few", dict.fromkeys("abcdefgh", 20))
    many = folder_of(tmp_path / "many", dict.fromkeys("abcdefghijklmnop", 20))
    order = names(chosen(few, 10, 10_000))
    assert names(chosen(few, 10, 10_000)) == order
    assert [name for name in names(chosen(many, 10, 10_000)) if name in order] == order
    assert names(chosen(few, 10, 10_000, seed=1)) != order
    assert order != sorted(order)


def test_the_fingerprint_follows_names_contents_and_cuts(tmp_path: Path) -> None:
    sizes = dict.fromkeys("abc", 20)
    reference = chosen(folder_of(tmp_path / "one", sizes), 10, 10_000).fingerprint
    assert chosen(folder_of(tmp_path / "two", sizes), 10, 10_000).fingerprint == reference
    assert chosen(folder_of(tmp_path / "one", sizes), 10, 59).fingerprint != reference
    folder_of(tmp_path / "two", {"short": 3})
    assert chosen(folder_of(tmp_path / "two", {}), 10, 10_000).fingerprint == reference
    tmp_path.joinpath("two", "a.txt").write_text("b" * 20)
    assert chosen(folder_of(tmp_path / "two", {}), 10, 10_000).fingerprint != reference
    tmp_path.joinpath("one", "a.txt").rename(tmp_path / "one" / "z.txt")
    assert chosen(folder_of(tmp_path / "one", {}), 10, 10_000).fingerprint != reference


def test_when_no_document_is_long_enough_the_longest_is_named(corpus: Corpus) -> None:
    with pytest.raises(DataError, match=r"has the 201 tokens .* the longest of 7 has 100: lower --lengths"):
        chosen(corpus, longest=200, max_tokens=1000)
    with pytest.raises(DataError, match=r"whole split all .* has 188 tokens, not the 201"):
        chosen(corpus, longest=200, max_tokens=1000, pack=True)


def test_packing_joins_documents_with_an_end_between_them(tmp_path: Path) -> None:
    corpus = folder_of(tmp_path / "c", {"a": 3, "b": 4, "c": 5})
    selection = chosen(corpus, longest=4, max_tokens=1000, pack=True)
    (stream,) = selection.documents
    ends = np.flatnonzero(stream.tokens == BYTES.eos_id)
    assert len(stream.tokens) == 14
    assert ends[-1] < 13
    (trained,) = chosen(corpus, longest=4, max_tokens=1000, pack=True, ends=True).documents
    assert trained.tokens.tolist() == [*stream.tokens.tolist(), BYTES.eos_id]
    words = [bytes(each[each < 256].tolist()).decode() for each in np.split(stream.tokens, ends + 1) if len(each)]
    assert sorted(words) == ["aaa", "bbbb", "ccccc"]
    assert (stream.n_bytes == (stream.tokens < 256)).all()
    assert (stream.name, selection.n_eligible, selection.n_seen) == ("packed", 3, 3)


def test_packing_stops_at_the_wanted_tokens_and_not_before_a_full_window(tmp_path: Path) -> None:
    corpus = folder_of(tmp_path / "c", dict.fromkeys("abcdefgh", 5))
    whole = chosen(corpus, 4, 1000, pack=True).documents[0].tokens
    for max_tokens, expected in ((13, 13), (1, 5), (48, 47), (1000, 47)):
        selection = chosen(corpus, 4, max_tokens, pack=True)
        assert selection.documents[0].tokens.tolist() == whole[:expected].tolist()
        assert selection.n_seen == -(-expected // 6)


def test_a_stream_is_read_in_its_order_and_no_further_than_needed() -> None:
    taken: list[int] = []

    class Endless(Corpus):
        @property
        def streams(self) -> bool:
            return True

        def documents(self, split: str) -> Iterator[Document]:
            for number in range(10**9):
                taken.append(number)
                yield Document(str(number), "x" * (5 if number % 2 else 20))

        def describe(self) -> dict[str, str]:
            return {}

    selection = chosen(Endless(CorpusSpec(name="endless")), longest=10, max_tokens=48)
    assert names(selection) == ["0", "2", "4"]
    assert [len(each.tokens) for each in selection.documents] == [16, 16, 16]
    assert len(taken) <= 6


def ids_file(path: Path, ids: list[int], **fields: object) -> Corpus:
    np.array(ids, dtype=np.uint16).tofile(path)
    return open_corpus(CorpusSpec(name="tokenized_bin", path=str(path), token_dtype="uint16", **fields))


def test_stored_ids_are_used_as_they_are_and_stand_for_no_bytes(tmp_path: Path) -> None:
    selection = chosen(ids_file(tmp_path / "ids.bin", list(range(40))), longest=10, max_tokens=16)
    assert selection.documents[0].tokens.tolist() == list(range(16))
    assert not selection.documents[0].n_bytes.any()


def test_ids_that_the_tokenizer_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ids from 1 to 258, but the tokenizer bytes knows 258"):
        chosen(ids_file(tmp_path / "ids.bin", [1] * 15 + [258]), longest=10, max_tokens=1000)


def test_a_document_that_brings_its_own_bos_gives_it_up_where_bos_is_added(tmp_path: Path) -> None:
    corpus = ids_file(tmp_path / "ids.bin", [256, *range(20)])
    assert chosen(corpus, 10, 100).documents[0].tokens.tolist() == [256, *range(20)]
    for bos in ("always", "first-window"):
        assert chosen(corpus, 10, 100, bos=bos).documents[0].tokens.tolist() == list(range(20))
        assert chosen(corpus, 10, 12, bos=bos).documents[0].tokens.tolist() == list(range(12))


def test_numbers_that_cannot_be_are_refused(corpus: Corpus) -> None:
    with pytest.raises(SpecError, match="leave no full window"):
        chosen(corpus, 10, 100, cap=10)
    with pytest.raises(SpecError, match="at least 1"):
        chosen(corpus, 10, 0)
