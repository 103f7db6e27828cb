"""Pieces of work on cores of their own: the same results, one thread inside each, and nothing left changed."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from lpe_eval.model.attentions import blocked
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.cores import on_cores
from lpe_eval.model.encodings.dape import Dape
from lpe_eval.model.mask import Mask
from tests.support.attending import built, scored

ADJUSTING = ("dape(kerple_log)", "dape(rope)", "dape_v2(fire)", "cope", "transformer_xl")


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_pieces_from_threads_that_share_nothing():
    ready = threading.Barrier(3, timeout=30)

    def work(piece: int) -> tuple[int, int, int, bool]:
        if piece < 3:
            ready.wait()  # passes only if three pieces are under way at once
        return piece, threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()

    results = on_cores(work, range(8))
    assert [piece for piece, *_ in results] == list(range(8))
    assert len({thread for _, thread, *_ in results}) == 3
    assert all(threads == 1 and not gradients for *_, threads, gradients in results)
    assert torch.get_num_threads() == 3
    assert on_cores(work, []) == []


@pytest.mark.parametrize("inference", [True, False])
def test_the_callers_inference_mode_holds_on_every_core(inference: bool):
    with torch.inference_mode(inference), torch.no_grad():
        ones = torch.ones(4)
        # Writing in place to a tensor of inference mode is refused outside of it.
        added = on_cores(lambda piece: (ones[piece].add_(1), torch.is_inference_mode_enabled())[1], range(4))
    assert added == [inference] * 4
    assert ones.tolist() == [2] * 4


def test_an_error_reaches_the_caller_and_drops_what_has_not_begun():
    begun = []

    def work(piece: int) -> None:
        begun.append(piece)
        if piece == 0:
            raise MemoryError("no room")
        time.sleep(0.05)

    with pytest.raises(MemoryError, match="no room"):
        on_cores(work, range(100))
    assert len(begun) < 50
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("text", ADJUSTING)
def test_blocks_on_cores_of_their_own_equal_the_oracle(text: str, causal: bool, monkeypatch: pytest.MonkeyPatch):
    used = []
    monkeypatch.setattr(blocked, "_LOGITS_WORTH_CORES", 0)
    monkeypatch.setattr(blocked, "on_cores", lambda work, pieces: used.append(len(pieces)) or on_cores(work, pieces))
    encoding = built(text, causal)
    for rows, length in ((700, 700), (400, 700)):
        expected = scored(Dense, encoding, rows, length, Mask(causal), gradients=True)
        torch.testing.assert_close(
            scored(Blocked, encoding, rows, length, Mask(causal)), expected, rtol=2e-5, atol=2e-5
        )
    assert used == [6]  # 400 rows make four blocks, too few to share out among three


def test_every_thread_takes_blocks_and_gradients_stay_on_the_callers(monkeypatch: pytest.MonkeyPatch):
    threads, adjust = set(), Dape.adjust

    def noted(self, scores):
        threads.add(threading.get_ident())
        return adjust(self, scores)

    monkeypatch.setattr(Dape, "adjust", noted)
    encoding = built("dape(kerple_log)", True)
    scored(Blocked, encoding, 4000, 4000, Mask())
    assert len(threads) == 3
    assert threading.get_ident() not in threads
    threads.clear()
    scored(Blocked, encoding, 700, 700, Mask(), gradients=True)
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize(
    ("limit", "value"),
    [("_LOGITS_ON_CORES", 3 * 2 * 3 * 128 * 700 - 1), ("_LOGITS_WORTH_CORES", 6 * 2 * 3 * 128 * 700 + 1)],
)
def test_blocks_too_large_or_a_text_too_short_are_shared_by_all(
    limit: str, value: int, monkeypatch: pytest.MonkeyPatch
):
    for name in ("_LOGITS_WORTH_CORES", limit):
        monkeypatch.setattr(blocked, name, value if name == limit else 0)
    monkeypatch.setattr(blocked, "on_cores", lambda *_: pytest.fail("used"))
    scored(Blocked, built("dape(kerple_log)", True), 700, 700, Mask())
    monkeypatch.setattr(blocked, limit, value + (1 if limit == "_LOGITS_ON_CORES" else -1))
    with pytest.raises(pytest.fail.Exception, match="used"):
        scored(Blocked, built("dape(kerple_log)", True), 700, 700, Mask())
