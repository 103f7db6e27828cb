"""What a run will take, told by a model whose time of a token is known: a constant, and more at longer lengths."""

import time

import numpy as np
import pytest
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.data.windows import plan, resolve
from lpe_eval.errors import LengthError
from lpe_eval.measure import estimate
from lpe_eval.measure.batches import Plan, Texts
from lpe_eval.measure.estimate import Stopwatch
from lpe_eval.spec.protocol_spec import ProtocolSpec
from lpe_eval.table import CellKey
from tests.support.closed_form import Uniform, document

CONSTANT, GROWING = 1e-4, 2e-6
"""Seconds of a token, and more for each token of its window's length."""


class Slow(Uniform):
    """Takes its time, and has positions for 128 tokens."""

    slept = 0.0

    def all_logits(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        if tokens.shape[1] > 128:
            raise LengthError(f"it has positions for 128 tokens, not {tokens.shape[1]}")
        seconds = tokens.numel() * (CONSTANT + GROWING * tokens.shape[1])
        self.slept += seconds
        time.sleep(seconds)
        return super().all_logits(tokens)


DOCUMENTS = [document(f"d{size}", np.random.default_rng(size).integers(0, 6, size)) for size in (1700, 900, 333)]


def planned(length: int) -> Plan:
    longest, sizes = max(length, 128), [len(each.tokens) for each in DOCUMENTS]
    windows = {}
    for name in ("nonoverlap", "sliding", "anchored"):
        protocol = resolve(ProtocolSpec(name=name), [16, longest])
        windows[CellKey("m", name, length, length)] = plan(protocol, length, sizes, "never", "score", longest)
    return Plan(length, windows)


def spent(length: int) -> float:
    """The seconds of all windows of a length, each fed once."""
    fed = {(each.document, each.start, each.stop) for windows in planned(length).windows.values() for each in windows}
    return sum((stop - start) * (CONSTANT + GROWING * (stop - start)) for _, start, stop in fed)


def test_the_guess_is_within_a_third_of_what_the_run_takes_and_costs_less():
    model = Slow(7)
    stopwatch = Stopwatch(model, Texts(DOCUMENTS, None, 0), lambda length: 256)
    for length in (16, 64, 128):
        guess = stopwatch.seconds_of(planned(length))
        assert guess.seconds == pytest.approx(spent(length), rel=0.3)
    assert model.slept < 0.5 * sum(map(spent, (16, 64, 128)))


def test_a_length_that_would_take_too_long_is_reckoned_from_those_before(monkeypatch: pytest.MonkeyPatch):
    model = Slow(7)
    stopwatch = Stopwatch(model, Texts(DOCUMENTS, None, 0), lambda length: 256)
    stopwatch.seconds_of(planned(32))
    stopwatch.seconds_of(planned(64))
    slept = model.slept
    monkeypatch.setattr(estimate, "_LONGEST", 0.0)
    assert stopwatch.seconds_of(planned(128)).seconds == pytest.approx(spent(128), rel=0.3)
    assert model.slept == slept


def test_a_length_without_positions_is_told_in_its_place():
    stopwatch = Stopwatch(Slow(7), Texts(DOCUMENTS, None, 0), lambda length: 256)
    assert stopwatch.seconds_of(planned(256)).why_not == "n/a: it has positions for 128 tokens, not 256"
    assert stopwatch.seconds_of(planned(64)).seconds == pytest.approx(spent(64), rel=0.3)


def test_nothing_to_do_takes_no_time():
    model = Slow(7)
    assert Stopwatch(model, Texts(DOCUMENTS, None, 0), lambda length: 256).seconds_of(Plan(64, {})).seconds == 0
    assert model.slept == 0
