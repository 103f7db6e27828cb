"""Windows: which targets are scored, how often, and with how much context."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lpe_eval.data.batch import batch_of
from lpe_eval.data.selection import EncodedDocument
from lpe_eval.data.windows import Bos, Tail, Window, check, plan, resolve
from lpe_eval.errors import SpecError
from lpe_eval.spec.protocol_spec import ProtocolSpec

LENGTHS = st.integers(1, 12)
DOCUMENTS = st.lists(st.integers(0, 40), max_size=4)
BOS = st.sampled_from(["always", "first-window", "never"])
TAIL = st.sampled_from(["score", "drop"])
NONOVERLAP = ProtocolSpec(name="nonoverlap")


def sliding(stride: int | None) -> ProtocolSpec:
    return ProtocolSpec(name="sliding", stride=stride)


def last(k: int) -> ProtocolSpec:
    return ProtocolSpec(name="last", last_k=k)


def anchored(k: int, stride: int | None = None) -> ProtocolSpec:
    return ProtocolSpec(name="anchored", last_k=k, stride=stride or k)


def scored(windows: list[Window]) -> Counter[tuple[int, int]]:
    return Counter((each.document, target) for each in windows for target in range(each.score_from, each.stop))


def contexts(windows: list[Window]) -> dict[tuple[int, int], int]:
    """Tokens that the model sees before it predicts each scored target, BOS included."""
    return {
        (each.document, target): target - each.start + each.bos
        for each in windows
        for target in range(each.score_from, each.stop)
    }


def every_target(documents: list[int], bos: Bos) -> set[tuple[int, int]]:
    first = 1 if bos == "never" else 0
    return {(number, target) for number, n_tokens in enumerate(documents) for target in range(first, n_tokens)}


@st.composite
def strided(draw: st.DrawFn) -> tuple[int, ProtocolSpec]:
    length = draw(LENGTHS)
    stride = draw(st.none() | st.integers(1, length))
    return length, draw(st.sampled_from([NONOVERLAP, sliding(stride)]))


@st.composite
def blocks(draw: st.DrawFn) -> tuple[list[int], int]:
    lengths = draw(st.lists(LENGTHS, min_size=1, max_size=4, unique=True))
    return lengths, draw(st.integers(1, min(lengths)))


@given(strided(), DOCUMENTS, BOS)
def test_nonoverlap_and_sliding_score_every_target_exactly_once(case, documents: list[int], bos: Bos) -> None:
    length, protocol = case
    counts = scored(plan(protocol, length, documents, bos, "score", length))
    assert set(counts) == every_target(documents, bos)
    assert set(counts.values()) <= {1}


@given(strided(), DOCUMENTS, BOS)
def test_dropping_the_tail_leaves_out_just_the_windows_that_are_not_full(case, documents: list[int], bos: Bos) -> None:
    length, protocol = case
    kept = plan(protocol, length, documents, bos, "score", length)
    dropped = plan(protocol, length, documents, bos, "drop", length)
    assert dropped == [each for each in kept if each.n_input == length]
    assert len(kept) - len(dropped) <= len(documents)


@given(blocks(), DOCUMENTS, BOS, TAIL)
def test_last_and_anchored_score_no_target_twice(case, documents: list[int], bos: Bos, tail: Tail) -> None:
    lengths, k = case
    for length in lengths:
        for protocol, longest in ((last(k), length), (anchored(k), max(lengths))):
            windows = plan(protocol, length, documents, bos, tail, longest)
            assert set(scored(windows).values()) <= {1}
            assert all(each.n_scored == k and each.n_input == length for each in windows)


@given(blocks(), DOCUMENTS, BOS, TAIL)
def test_no_window_feeds_more_than_its_length_or_leaves_its_document(
    case, documents: list[int], bos: Bos, tail: Tail
) -> None:
    lengths, k = case
    for length in lengths:
        for protocol in (NONOVERLAP, sliding(k), last(k), anchored(k)):
            for each in plan(protocol, length, documents, bos, tail, max(lengths)):
                assert 1 <= each.n_scored <= each.n_input <= length
                assert 0 <= each.start < each.stop <= documents[each.document]
                assert each.start + (not each.bos) <= each.score_from


@given(strided(), DOCUMENTS, BOS, TAIL)
def test_after_the_first_window_every_target_has_its_length_less_a_stride_of_context(
    case, documents: list[int], bos: Bos, tail: Tail
) -> None:
    length, protocol = case
    stride = length if protocol.name == "nonoverlap" else protocol.stride or max(1, length // 2)
    windows = plan(protocol, length, documents, bos, tail, length)
    for target, context in contexts(windows).items():
        whole = target[1] + (bos != "never")
        assert context <= min(length, whole)
        assert context >= min(length - stride + 1, whole)


@given(LENGTHS, DOCUMENTS, BOS, TAIL)
def test_a_stride_of_one_length_gives_the_windows_of_nonoverlap(
    length: int, documents: list[int], bos: Bos, tail: Tail
) -> None:
    assert plan(sliding(length), length, documents, bos, tail, length) == plan(
        NONOVERLAP, length, documents, bos, tail, length
    )


@given(LENGTHS, DOCUMENTS, BOS)
def test_a_stride_of_one_gives_every_target_all_the_context_there_is(
    length: int, documents: list[int], bos: Bos
) -> None:
    expected = {target: min(length, target[1] + (bos != "never")) for target in every_target(documents, bos)}
    assert contexts(plan(sliding(1), length, documents, bos, "score", length)) == expected


@given(blocks(), DOCUMENTS, BOS, TAIL)
def test_anchored_scores_the_same_targets_at_every_length(case, documents: list[int], bos: Bos, tail: Tail) -> None:
    lengths, k = case
    plans = {length: plan(anchored(k), length, documents, bos, tail, max(lengths)) for length in lengths}
    reach = max(lengths)
    reference = {
        (document, target): 1
        for document, n_tokens in enumerate(documents)
        for stop in range(reach + (bos == "never"), n_tokens + 1, k)
        for target in range(stop - k, stop)
    }
    for length, windows in plans.items():
        assert scored(windows) == reference
        assert set(contexts(windows).values()) <= set(range(length - k + 1, length + 1))


@given(st.lists(LENGTHS, min_size=2, max_size=4), DOCUMENTS)
def test_without_bos_all_lengths_of_nonoverlap_and_sliding_score_the_same_targets(
    lengths: list[int], documents: list[int]
) -> None:
    for protocol in (NONOVERLAP, sliding(None)):
        sets = [scored(plan(protocol, each, documents, "never", "score", max(lengths))) for each in lengths]
        assert all(each == sets[0] for each in sets)


@pytest.mark.parametrize(
    ("protocol", "length", "bos", "expected"),
    [
        (NONOVERLAP, 4, "never", [(0, 5, 1, 0), (4, 9, 5, 0), (8, 10, 9, 0)]),
        (NONOVERLAP, 4, "always", [(0, 4, 0, 1), (4, 8, 4, 1), (8, 10, 8, 1)]),
        (NONOVERLAP, 4, "first-window", [(0, 4, 0, 1), (3, 8, 4, 0), (7, 10, 8, 0)]),
        (sliding(2), 4, "never", [(0, 5, 1, 0), (2, 7, 5, 0), (4, 9, 7, 0), (6, 10, 9, 0)]),
        (sliding(None), 4, "never", [(0, 5, 1, 0), (2, 7, 5, 0), (4, 9, 7, 0), (6, 10, 9, 0)]),
        (sliding(2), 4, "always", [(0, 4, 0, 1), (2, 6, 4, 1), (4, 8, 6, 1), (6, 10, 8, 1)]),
        (sliding(3), 4, "first-window", [(0, 4, 0, 1), (2, 7, 4, 0), (5, 10, 7, 0)]),
        (last(2), 4, "never", [(0, 5, 3, 0), (4, 9, 7, 0)]),
        (last(2), 4, "always", [(0, 4, 2, 1), (4, 8, 6, 1)]),
        (anchored(2, 8), 8, "never", [(0, 9, 7, 0)]),
        (anchored(2, 8), 4, "never", [(4, 9, 7, 0)]),
        (anchored(2, 8), 8, "always", [(0, 8, 6, 1)]),
        (anchored(2, 8), 4, "always", [(4, 8, 6, 1)]),
        (anchored(2, 8), 8, "first-window", [(0, 8, 6, 1)]),
        (anchored(2, 8), 4, "first-window", [(3, 8, 6, 0)]),
    ],
)
def test_ten_tokens_are_cut_as_by_hand(protocol: ProtocolSpec, length: int, bos: Bos, expected) -> None:
    longest = 8 if protocol.name == "anchored" else length
    found = plan(protocol, length, [10], bos, "score", longest)
    assert found == [Window(0, start, stop, score_from, bool(has)) for start, stop, score_from, has in expected]


def test_anchored_blocks_follow_one_another_by_the_stride() -> None:
    for length, expected in ((6, [(0, 7, 5), (2, 9, 7)]), (4, [(2, 7, 5), (4, 9, 7)])):
        found = plan(anchored(2, 2), length, [10], "never", "score", 6)
        assert found == [Window(0, start, stop, score_from, False) for start, stop, score_from in expected]


def test_a_document_of_one_token_has_no_target_unless_bos_precedes_it() -> None:
    assert plan(NONOVERLAP, 4, [1, 0], "never", "score", 4) == []
    assert plan(NONOVERLAP, 4, [1, 0], "always", "score", 4) == [Window(0, 0, 1, 0, True)]


@pytest.mark.parametrize(
    ("protocol", "lengths", "message"),
    [
        (NONOVERLAP, [], "no lengths"),
        (NONOVERLAP, [4, 0], "at least 1, not 0"),
        (sliding(0), [4], "at least 1, not 0"),
        (sliding(5), [8, 4], "skip tokens at length 4"),
        (ProtocolSpec(name="nonoverlap", stride=2), [4], "no stride"),
        (ProtocolSpec(name="sliding", last_k=2), [4], "no last_k"),
        (last(0), [4], "at least 1, not 0"),
        (last(5), [8, 4], "length 4 has no 5 targets"),
        (anchored(5), [8, 4], "length 4 has no 5 targets"),
        (anchored(3, 2), [8, 4], "score targets of blocks of 3 twice"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(protocol: ProtocolSpec, lengths: list[int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check(protocol, lengths)
    with pytest.raises(SpecError, match=message):
        resolve(protocol, lengths)


def test_a_length_above_the_longest_and_an_incomplete_protocol_are_refused() -> None:
    with pytest.raises(SpecError, match="longest length is 4"):
        plan(anchored(1), 8, [20], "never", "score", 4)
    with pytest.raises(SpecError, match="resolve"):
        plan(ProtocolSpec(name="last"), 8, [20], "never", "score", 8)
    with pytest.raises(SpecError, match="resolve"):
        plan(ProtocolSpec(name="anchored", last_k=2), 8, [20], "never", "score", 8)


def test_defaults_are_filled_in_for_the_whole_sweep() -> None:
    assert resolve(ProtocolSpec(name="last"), [512, 1024]).last_k == 256
    assert resolve(ProtocolSpec(name="last"), [128, 1024]).last_k == 128
    assert resolve(ProtocolSpec(name="anchored"), [128, 1024]) == anchored(64, 256)
    assert resolve(ProtocolSpec(name="anchored"), [1]).last_k == 1
    assert resolve(ProtocolSpec(name="anchored"), [2048]).last_k == 256
    assert resolve(last(7), [128]).last_k == 7
    assert resolve(sliding(None), [128]) == sliding(None)
    assert [str(each) for each in (NONOVERLAP, sliding(None), sliding(3), last(7))] == [
        "nonoverlap", "sliding(stride=L/2)", "sliding(stride=3)", "last(k=7)",
    ]  # fmt: skip


def documents_of(lengths: list[int]) -> list[EncodedDocument]:
    tokens = [np.arange(n_tokens, dtype=np.int64) + 100 * number for number, n_tokens in enumerate(lengths)]
    return [EncodedDocument("d", "", each, np.ones_like(each)) for each in tokens]


@given(blocks(), DOCUMENTS, BOS)
def test_a_batch_holds_the_tokens_that_its_windows_name(case, lengths: list[int], bos: Bos) -> None:
    sweep, k = case
    documents = documents_of(lengths)
    for protocol in (NONOVERLAP, sliding(k), last(k), anchored(k)):
        for window in plan(protocol, min(sweep), lengths, bos, "score", max(sweep)):
            tokens, targets, scored_places = batch_of([window], documents, 999, torch.device("cpu"))
            document = documents[window.document].tokens.tolist()
            fed = [999] * window.bos + document[window.start : window.stop - 1]
            assert tokens.tolist() == [fed]
            # What follows a token in its document is its target, whatever the window.
            assert targets.tolist() == [[*fed[1:], document[window.stop - 1]]]
            assert targets[scored_places].tolist() == document[window.score_from : window.stop]


def test_windows_of_several_documents_share_a_batch() -> None:
    windows = plan(last(2), 4, [5, 9], "never", "drop", 4)
    batch = batch_of(windows, documents_of([5, 9]), None, torch.device("cpu"))
    assert batch.tokens.tolist() == [[0, 1, 2, 3], [100, 101, 102, 103], [104, 105, 106, 107]]
    assert batch.targets.tolist() == [[1, 2, 3, 4], [101, 102, 103, 104], [105, 106, 107, 108]]
    assert batch.scored.tolist() == [[False, False, True, True]] * 3


def test_bos_without_such_a_token_is_refused() -> None:
    windows = plan(NONOVERLAP, 4, [5], "always", "score", 4)
    with pytest.raises(SpecError, match="no such token"):
        batch_of(windows[:1], documents_of([5]), None, torch.device("cpu"))
