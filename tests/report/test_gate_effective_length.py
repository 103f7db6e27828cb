"""A gate holds an effective length: worse where a run makes use of less context beyond chance."""

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from lpe_eval.commands.compare import Comparison, notes, table_of
from lpe_eval.report.gate.effective_length import length_rows
from lpe_eval.report.gate.joining import judged_rows
from lpe_eval.report.gate.judge import judge
from lpe_eval.report.gate.rules import EFFECTIVE_LENGTH, Rules, Verdict
from lpe_eval.report.gate.verdicts import as_json, as_junit, exit_code, remedy, sentence
from lpe_eval.table import BlockSum
from tests.support.far_context import LENGTHS, cells, changed, copier, text
from tests.support.gate_runs import run_of

DISTANCES = (100, 200, 400, 800, 1600, 3200)
LEVEL = [3.0, 2.8, 2.7, 2.6, 2.6, 2.6]
"""Makes use of 1024 tokens."""

Losses = Mapping[int, Sequence[BlockSum]]


def judged(new: Losses, *old: Losses, rules: Rules | None = None, **how) -> Verdict:
    """The verdict on the effective length of one model."""
    run = run_of(cells({"mine": new}), **how)
    baselines = [
        (run_of(cells({"mine": each}), digests={"mine": f"training {number}"}), f"baseline {number}")
        for number, each in enumerate(old)
    ]
    rows = [row for each, name in baselines for row in length_rows(each, name)]
    (found,) = judge(length_rows(run, "run"), rows, rules or Rules())
    return found


def test_every_model_under_anchored_has_a_row_beside_those_of_its_losses():
    run = run_of(cells({"one": text(LEVEL), "other": text(LEVEL)}))
    rows = length_rows(run, "run")
    assert [(row.row["model"], row.row["metric"], row.row["length"]) for row in rows] == [
        ("one", EFFECTIVE_LENGTH, 4096), ("other", EFFECTIVE_LENGTH, 4096),
    ]  # fmt: skip
    assert not length_rows(run_of(cells({"one": {512: text(LEVEL)[512]}})), "run"), "one length says nothing"
    found = judge([*judged_rows(run, "run"), *rows], [*judged_rows(run, "b"), *length_rows(run, "b")], Rules())
    assert len(found) == 14 and {each.verdict for each in found} == {"same"}


@pytest.mark.parametrize("window", LENGTHS[:-1])
def test_a_copier_whose_window_became_shorter_is_worse(window: int):
    found = judged(text(copier(window, DISTANCES)), text(copier(4096, DISTANCES)))
    assert (found.verdict, found.value, found.baseline) == ("worse", window, 4096)
    assert f"the effective length is {window}, in the baseline 4096" in found.reason
    assert exit_code([found], Rules()) == 3
    longer = judged(text(copier(4096, DISTANCES)), text(copier(window, DISTANCES)))
    assert (longer.verdict, longer.value, longer.baseline) == ("better", 4096, window)


def test_identical_weights_are_the_same_whatever_the_text():
    for documents, noise in ((1, 0.3), (3, 0.1), (12, 0.05)):
        whole = text(LEVEL, documents=documents, noise=noise)
        assert judged(whole, whole, rules=Rules(tolerance=0.0)).verdict == "same"
        rounded = changed(whole, lambda length: 0.0, noise=1e-6)
        assert judged(rounded, whole, rules=Rules(tolerance=0.0)).verdict == "same"


def test_a_step_that_is_missed_by_chance_is_no_regression():
    """The gain from 512 to 1024 tokens is at the edge of what is beyond chance: the run misses it, the baseline not."""
    whole = text([3.0, 2.8, 2.7, 2.69, 2.69, 2.69], documents=12, noise=0.02)
    sure = changed(whole, lambda length: -0.008 if length >= 1024 else 0.0)
    unsure = changed(whole, lambda length: 0.002 if length >= 1024 else 0.0, noise=0.025)
    found = judged(unsure, sure)
    assert (found.value, found.baseline) == (512, 1024)
    assert found.verdict == "inconclusive" and "perhaps by chance" in found.reason
    assert exit_code([found], Rules()) == 5 and "tokens of text" in remedy([found])
    assert found.needed > 12 * 3 * 256
    # With much text the same shortfall is known, and it is within what the gate allows: 0.25 % of 2.7 nats.
    many = text([3.0, 2.8, 2.7, 2.699, 2.699, 2.699], documents=400, noise=0.002, seed=5)
    small = changed(many, lambda length: 0.001 if length >= 1024 else 0.0, noise=0.0002)
    wide = changed(many, lambda length: -0.001 if length >= 1024 else 0.0)
    found = judged(small, wide)
    assert (found.value, found.baseline, found.verdict) == (512, 1024, "same")
    assert "within what is allowed" in found.reason


def test_a_shortfall_beyond_the_tolerance_is_worse_only_beyond_chance():
    whole = text(LEVEL, documents=12, noise=0.02)
    lost = changed(whole, lambda length: 0.1 if length >= 1024 else 0.0, noise=0.01)
    found = judged(lost, whole)
    assert (found.verdict, found.value, found.baseline) == ("worse", 512, 1024)
    assert "nats less" in found.reason and found.units > 1
    allowed = judged(lost, whole, rules=Rules(tolerance=0.2))
    assert allowed.verdict == "same"


def test_a_model_that_is_worse_by_as_much_at_every_length_makes_use_of_as_much():
    whole = text(LEVEL, noise=0.01)
    found = judged(changed(whole, lambda length: 0.5, noise=0.01), whole)
    assert (found.verdict, found.value) == ("same", 1024)


def test_a_model_that_breaks_on_the_way_is_worse():
    whole = text(LEVEL, noise=0.005)
    broken = changed(whole, lambda length: 3.0 if length == 512 else 0.0, noise=0.005)
    found = judged(broken, whole)
    assert (found.verdict, found.value, found.baseline) == ("worse", 256, 1024)


def test_a_length_that_lost_its_value_makes_it_shorter():
    whole = text(LEVEL, noise=0.005)
    run = run_of(cells({"mine": whole}), statuses={key: "n/a" for key in cells({"mine": whole}) if key.length > 256})
    (found,) = judge(length_rows(run, "run"), length_rows(run_of(cells({"mine": whole})), "b"), Rules())
    assert found.verdict == "worse" and "no value at 512" in found.reason
    none = run_of(cells({"mine": whole}), statuses=dict.fromkeys(cells({"mine": whole}), "n/a"))
    (found,) = judge(length_rows(none, "run"), length_rows(run_of(cells({"mine": whole})), "b"), Rules())
    assert found.verdict == "worse" and "the shortest length has no value" in found.reason


def test_only_lengths_that_both_measured_count():
    whole = text(LEVEL, noise=0.005)
    some = {length: whole[length] for length in (128, 512, 4096)}
    assert judged(some, whole).verdict == "same"
    assert judged(some, whole).value == 4096, "from 512 to 4096 it gains, and 1024 was not asked"
    lone = judged({4096: whole[4096], 64: whole[128]}, whole)
    assert lone.verdict == "not comparable" and "one length in common" in lone.reason


def test_a_baseline_without_such_a_row_goes_on_working():
    whole = text(LEVEL, noise=0.005)
    run = run_of(cells({"mine": whole}))
    old = run_of(cells({"mine": {4096: whole[4096]}}))
    found = judge([*judged_rows(run, "run"), *length_rows(run, "run")], judged_rows(old, "b"), Rules())
    assert {(each.metric, each.verdict) for each in found} == {
        ("nll_nats", "same"), ("nll_nats", "new"), (EFFECTIVE_LENGTH, "new"),
    }  # fmt: skip
    assert exit_code(found, Rules()) == 0


def test_little_text_in_common_and_other_settings_are_not_comparable():
    whole = text(LEVEL)
    third = {length: blocks[:12] for length, blocks in whole.items()}
    assert judged(third, whole).verdict == "not comparable"
    assert judged(whole, whole, dtype="bfloat16").verdict == "not comparable"
    rules = Rules(allowed=frozenset({"tokenizer"}))
    other = judged(whole, whole, tokenizer="another", rules=rules)
    assert other.verdict == "new" and "two tokenizers" in other.reason


def test_one_block_of_text_cannot_tell():
    whole = {length: blocks[:1] for length, blocks in text(LEVEL).items()}
    found = judged(changed(whole, lambda length: 0.1 if length > 512 else 0.0), whole)
    assert found.verdict == "inconclusive" and "single block" in found.reason


def test_several_trainings_say_how_much_a_gain_varies():
    def training(seed: int, lost: float) -> Losses:
        return changed(text(LEVEL, noise=0.004), lambda at: lost if at >= 1024 else 0.0, noise=0.002, seed=seed)

    gains = np.random.default_rng(0).normal(0.0, 0.004, 6)
    old = [training(seed, gain) for seed, gain in enumerate(gains)]
    assert judged(training(90, 0.0), *old).verdict == "same"
    lost = judged(training(91, 0.1), *old)
    assert (lost.verdict, lost.value, lost.baseline, lost.method) == ("worse", 512, 1024, "trainings-6")
    few = judged(training(92, 0.1), *old[:2])
    assert few.verdict == "inconclusive" and "trainings in the baseline" in remedy([few])


def test_it_is_told_as_a_length_in_every_report():
    found = judged(text(copier(512, DISTANCES)), text(copier(4096, DISTANCES)))
    line = [str(cell) for cell in table_of(Comparison("run", ("b",), Rules(), [found])).rows[0]]
    assert line[:4] == ["mine", "anchored-256 by 1024, effective length", "4096 -> 512", "-87.50"]
    said = sentence([found], "worse")
    assert said.startswith("mine, anchored-256 by 1024, effective length (the effective length is 512")
    assert any("effective length is 512" in each for each in notes(Comparison("run", ("b",), Rules(), [found])))
    report = json.loads(as_json([found], Rules(), "run", ["b"]))["rows"][0]
    assert [report[name] for name in ("metric", "value", "baseline", "allowed")] == [EFFECTIVE_LENGTH, 512, 4096, None]
    assert b'name="anchored-256 by 1024, effective length"' in as_junit([found], Rules(), "run", ["b"])


@pytest.mark.slow
@pytest.mark.parametrize(("documents", "noise"), [(12, 0.015), (40, 0.015), (12, 0.004)])
def test_unchanged_models_are_called_worse_at_most_at_the_share_that_the_page_tells(documents: int, noise: float):
    """docs/gate.md: a model whose last gain is small, measured twice with noise of its own in every block."""
    verdicts = []
    for seed in range(200):
        gain = 0.01 * (seed % 5)
        losses = [3.0, 2.8, 2.7, 2.7 - gain, 2.7 - gain, 2.7 - gain]
        whole = text(losses, documents=documents, noise=0.02, seed=seed)
        verdicts.append(judged(changed(whole, lambda length: 0.0, noise=noise, seed=1000 + seed), whole).verdict)
    shares = {each: verdicts.count(each) / len(verdicts) for each in set(verdicts)}
    assert shares.get("worse", 0.0) <= 0.005, shares
    assert shares.get("inconclusive", 0.0) <= 0.12, shares
    assert shares["same"] >= 0.85, shares


@pytest.mark.slow
def test_a_window_that_was_halved_is_caught():
    caught = 0
    for seed in range(100):
        whole = text(LEVEL, documents=12, noise=0.02, seed=seed)
        lost = changed(whole, lambda length: 0.1 if length >= 1024 else 0.0, noise=0.0155, seed=1000 + seed)
        caught += judged(lost, whole).verdict == "worse"
    assert caught >= 95
    assert math.isclose(0.0155 / 2.8, 0.0054, rel_tol=0.05), "noise as it was measured for a changed model"
