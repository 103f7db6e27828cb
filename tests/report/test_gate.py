"""Verdicts on rows whose answer is known, and on text that changed."""

import math

import numpy as np
import pytest

from lpe_eval.report.numbers.student import student
from tests.support.gate_runs import KEY, block, loss, run_of, text, worse_by
from tests.support.gate_verdicts import one

# One row


def test_the_same_run_is_the_same():
    found = one(run_of({KEY: text()}), run_of({KEY: text()}))
    assert (found.verdict, found.change, found.stderr, found.common) == ("same", 0.0, 0.0, 1.0)
    assert (found.changed, found.vanished, found.added, found.compared_with) == (0, 0, 0, "baseline 0")
    assert found.allowed == 0.0025 and found.detectable > 0.0025


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.002, "same"), (-0.002, "same"), (0.003, "worse"), (-0.003, "better"), (5.0, "worse")]
)
def test_a_change_beyond_the_tolerance_is_worse_or_better(share, verdict):
    found = one(run_of({KEY: worse_by(text(), share)}), run_of({KEY: text()}))
    assert found.verdict == verdict
    assert found.change == pytest.approx(share, rel=1e-9)
    assert found.baseline == pytest.approx(loss(text()), rel=1e-12)
    assert found.value == pytest.approx(loss(text()) * (1 + share), rel=1e-12)


def test_a_change_within_the_error_of_the_pairs_is_the_same_and_says_what_it_allowed():
    noise = np.random.default_rng(0).standard_normal(36)
    old = text()
    new = [each._replace(nll_nats=each.nll_nats + 1024 * 0.05 * float(x)) for each, x in zip(old, noise, strict=True)]
    found = one(run_of({KEY: new}), run_of({KEY: old}))
    # It is not called worse, and not the same either: at this error a change of 1 % could pass unseen.
    assert found.verdict == "inconclusive" and abs(found.change) > 0.0025
    assert one(run_of({KEY: new}), run_of({KEY: old}), detectable=0.1).verdict == "same"
    assert found.method == "paired-bootstrap-documents-1000" and found.units == 12
    assert found.allowed == pytest.approx(student(3.0, 11) * found.stderr, rel=1e-12)
    assert one(run_of({KEY: new}), run_of({KEY: old}), sigmas=0.0).verdict != "same"


def test_a_documents_last_single_target_is_no_unit_of_its_own():
    old = [each for d in range(3) for each in (block(d, 0, 1.0 + 0.1 * d), block(d, 1, 1.0, tokens=1))]
    new = [each._replace(nll_nats=each.nll_nats * (1.001 + 0.0001 * k)) for k, each in enumerate(old)]
    assert one(run_of({KEY: new}), run_of({KEY: old})).units == 3


def test_a_single_block_has_no_error_so_nothing_but_the_same_losses_can_pass_it():
    old = run_of({KEY: [block(0, 0, 1.0)]})
    assert one(old, old).verdict == "same"
    for loss_now in (1.001, 1.09, 0.9):
        found = one(run_of({KEY: [block(0, 0, loss_now)]}), old)
        assert (found.verdict, found.method) == ("inconclusive", "none")
        assert "could pass unseen" in found.reason
    assert one(run_of({KEY: [block(0, 0, 1.11)]}), old).verdict == "worse"


def test_a_loss_of_zero_can_only_stay_or_get_worse():
    old = run_of({KEY: [block(n, 0, 0.0) for n in range(9)]})
    assert one(old, old).verdict == "same"
    found = one(run_of({KEY: [block(n, 0, 0.1) for n in range(9)]}), old)
    assert (found.verdict, found.change) == ("worse", math.inf)


MATRIX = {
    ("ok", "n/a"): "worse", ("ok", "error"): "worse", ("ok", "failed"): "worse",
    ("n/a", "ok"): "better", ("n/a", "n/a"): "same", ("n/a", "error"): "worse", ("n/a", "failed"): "worse",
    ("error", "ok"): "better", ("error", "n/a"): "same", ("error", "error"): "same", ("error", "failed"): "worse",
    ("failed", "ok"): "better", ("failed", "n/a"): "not comparable", ("failed", "error"): "not comparable",
    ("failed", "failed"): "not comparable",
}  # fmt: skip


@pytest.mark.parametrize(("before", "now"), MATRIX, ids=lambda status: status)
def test_a_value_that_is_lost_is_worse_and_one_that_is_gained_is_better(before, now):
    def run(status):
        blocks = text()
        blocks[0] = blocks[0]._replace(nll_nats=math.inf, n_nonfinite=3) if status == "error" else blocks[0]
        return run_of({KEY: blocks}, {KEY: status})

    found = one(run(now), run(before))
    assert found.verdict == MATRIX[before, now]
    assert found.reason
    if now not in ("ok", "error"):
        assert f"the reason for {now}" in found.reason


def test_losses_that_are_not_finite_on_both_sides_are_judged_by_their_number():
    def run(count):
        return run_of({KEY: [text()[0]._replace(nll_nats=math.nan, n_nonfinite=count), *text()[1:]]})

    assert one(run(4), run(3)).verdict == "worse"
    assert one(run(2), run(3)).verdict == "better"


# Text


def test_documents_that_changed_or_vanished_are_left_out_and_counted():
    old = [block(d, 0, 1.0 + 0.05 * d) for d in range(20)]
    new = [each._replace(nll_nats=each.nll_nats * 1.0001) for each in old[2:]]
    new[0] = block(2, 0, 9.0, edition=1)
    new.append(block(77, 0, 9.0))
    found = one(run_of({KEY: new}), run_of({KEY: old}))
    assert (found.changed, found.vanished, found.added) == (1, 2, 1)
    assert found.common == 17 / 20
    assert found.verdict == "same" and found.change == pytest.approx(0.0001, rel=1e-6)


@pytest.mark.parametrize(("kept", "verdict"), [(16, "same"), (15, "not comparable"), (0, "not comparable")])
def test_below_80_percent_of_the_tokens_in_common_a_row_is_not_comparable(kept, verdict):
    old = [block(d, 0, 1.0 + 0.05 * d) for d in range(20)]
    new = [block(d, 0, 1.0 + 0.05 * d, edition=int(d >= kept)) for d in range(20)]
    found = one(run_of({KEY: new}), run_of({KEY: old}))
    assert (found.verdict, found.common) == (verdict, kept / 20)
    assert verdict == "same" or "same text" in found.reason


def test_a_run_may_read_more_text_than_its_baseline_and_not_much_less():
    assert one(run_of({KEY: text(20)}), run_of({KEY: text(20)[:36]})).verdict == "same"
    assert one(run_of({KEY: text(20)[:36]}), run_of({KEY: text(20)})).verdict == "not comparable"


def test_a_block_that_was_cut_at_another_place_is_other_text():
    old = [*text(), block(40, 0, 1.0), block(40, 1, 1.0, tokens=100)]
    new = [*text(), block(40, 0, 1.0), block(40, 1, 9.0, tokens=1024)]
    found = one(run_of({KEY: new}), run_of({KEY: old}))
    assert (found.verdict, found.change) == ("same", 0.0)
    assert found.common == (37 * 1024) / (37 * 1024 + 100)


def test_a_file_that_only_moved_is_the_same_text():
    moved = [each._replace(document=f"moved/{each.document}") for each in text()]
    found = one(run_of({KEY: moved}), run_of({KEY: text()}))
    assert (found.verdict, found.common, found.changed, found.vanished) == ("same", 1.0, 0, 0)


def test_packed_text_is_compared_whole_or_not_at_all():
    packed = [each._replace(document="packed", digest="all of it", block=n) for n, each in enumerate(text())]
    old = run_of({KEY: packed}, spec={"pack": True})
    assert one(old, old).verdict == "same"
    other = run_of({KEY: [each._replace(digest="all but one") for each in packed]}, spec={"pack": True})
    found = one(other, old)
    assert found.verdict == "not comparable" and "packed text is one stream" in found.reason
    assert "packed" in one(run_of({KEY: text()}), old).reason
