"""What a row is judged against: the row of its name, and several trainings of one recipe."""

import math

import numpy as np
import pytest

from lpe_eval.report.gate.joining import recipe
from lpe_eval.report.gate.judge import ALLOWABLE
from lpe_eval.report.numbers.student import student
from lpe_eval.table import CellKey
from tests.support.gate_runs import KEY, block, loss, run_of, text, worse_by
from tests.support.gate_verdicts import OTHER, one, verdicts

# Joining


def test_rows_that_only_one_side_has_are_missing_or_new():
    run, baseline = run_of({KEY: text()}), run_of({KEY: text(), OTHER: text()})
    assert [each.verdict for each in verdicts(run, baseline)] == ["same", "missing"]
    assert [each.verdict for each in verdicts(baseline, run)] == ["same", "new"]


@pytest.mark.parametrize(
    ("change", "aspect", "told"),
    [
        ({"task_version": 2}, "task", "task is python-stdlib, version 2, in the baseline python-stdlib, version 1"),
        ({"task": "custom"}, "task", "task is custom"),
        ({"dtype": "bfloat16"}, "dtype", "dtype is bfloat16, in the baseline float32"),
        ({"seed": 5}, "seed", "seed is 5, in the baseline 0"),
        ({"tokenizer": "other"}, "tokenizer", "tokenizer is other"),
        ({"spec": {"bos": "always"}}, "protocol", "bos always"),
        ({"spec": {"tail": "drop"}}, "protocol", "tail drop"),
    ],
    ids=str,
)
def test_what_was_measured_in_another_way_is_not_comparable_unless_that_is_allowed(change, aspect, told):
    new, old = run_of({KEY: text()}, **change), run_of({KEY: text()})
    found = one(new, old)
    assert found.verdict == "not comparable" and told in found.reason
    assert one(new, old, allowed=frozenset({aspect})).verdict == "same"
    for other in set(ALLOWABLE) - {aspect}:
        assert one(new, old, allowed=frozenset({other})).verdict == "not comparable"


def test_another_stride_is_another_protocol_and_another_length_another_row():
    by_256, by_128 = (CellKey("alibi", "sliding", 512, stride) for stride in (256, 128))
    found = one(run_of({by_128: text()}), run_of({by_256: text()}))
    assert found.verdict == "not comparable" and "sliding, stride 128" in found.reason
    both = verdicts(run_of({by_128: text(), by_256: text()}), run_of({by_256: text()}))
    assert [each.verdict for each in both] == ["new", "same"]
    assert [each.verdict for each in verdicts(run_of({KEY: text()}), run_of({OTHER: text()}))] == ["new", "missing"]


def test_where_anchored_blocks_lie_depends_on_the_longest_length_and_nothing_else_does():
    anchored = CellKey("alibi", "anchored-256", 512, 2048)
    longer = {"lengths": [512, 16384]}
    assert one(run_of({anchored: text()}, spec=longer), run_of({anchored: text()})).verdict == "not comparable"
    assert one(run_of({KEY: text()}, spec=longer), run_of({KEY: text()})).verdict == "same"


def test_two_tokenizers_that_made_the_same_ids_are_one():
    new, old = run_of({KEY: text()}, tokenizer="a", ids="same"), run_of({KEY: text()}, tokenizer="b", ids="same")
    assert one(new, old).verdict == "same"


def test_two_tokenizers_are_compared_by_bytes_where_that_is_allowed():
    # The same documents of 4096 bytes in 1024 tokens and in 512, blocks and all.
    old = [block(d, b, 1.0 + 0.02 * d) for d in range(12) for b in range(2)]
    new = [block(d, 0, 2.0 * (1.0 + 0.02 * d))._replace(n_bytes=8192) for d in range(12)]
    found = one(run_of({KEY: new}, tokenizer="other"), run_of({KEY: old}), allowed=frozenset({"tokenizer"}))
    assert (found.verdict, found.change) == ("same", pytest.approx(0.0, abs=1e-12))
    assert found.baseline == pytest.approx(loss(old) / 4, rel=1e-12)
    worse = run_of({KEY: worse_by(new, 0.01)}, tokenizer="other")
    assert one(worse, run_of({KEY: old}), allowed=frozenset({"tokenizer"})).verdict == "worse"


def test_the_path_of_the_corpus_does_not_matter_where_the_text_is_the_same():
    assert one(run_of({KEY: text()}, corpus="/ci/text"), run_of({KEY: text()}, corpus="/home/a/text")).verdict == "same"


# Several trainings of one recipe


def trainings(*shares: float, name: str = "alibi"):
    return [
        run_of({KEY._replace(model=name): worse_by(text(), share)}, digests={name: f"training {number}"})
        for number, share in enumerate(shares)
    ]


SHARES = (0.01, -0.01, 0.02, -0.02, 0.0)


def test_another_training_is_judged_by_the_spread_of_the_trainings():
    new = run_of({KEY: worse_by(text(), 0.03)}, digests={"alibi": "a new seed"})
    found = one(new, *trainings(*SHARES))
    spread = float(np.std(SHARES, ddof=1))
    assert (found.verdict, found.method, found.units) == ("same", "trainings-5", 5)
    assert found.change == pytest.approx(0.03, rel=1e-9)
    assert found.stderr == pytest.approx(spread * math.sqrt(1.2), rel=1e-9)
    assert found.allowed == pytest.approx(student(3.0, 4) * spread * math.sqrt(1.2), rel=1e-9)
    assert "within the spread of 5 trainings" in found.reason
    assert found.compared_with == "baseline 0, baseline 1, baseline 2, baseline 3, baseline 4"
    assert one(new, trainings(*SHARES)[4]).verdict == "worse", "one training says nothing of the spread"


def test_a_training_far_outside_the_spread_is_worse():
    new = run_of({KEY: worse_by(text(), 0.2)}, digests={"alibi": "a new seed"})
    found = one(new, *trainings(*SHARES))
    assert found.verdict == "worse" and "outside the spread" in found.reason


def test_trainings_may_be_numbered_models_of_one_baseline():
    cells = {KEY._replace(model=f"alibi@{n}"): worse_by(text(), share) for n, share in enumerate(SHARES)}
    new = run_of({KEY: worse_by(text(), 0.03)}, digests={"alibi": "a new seed"})
    found = one(new, run_of(cells))
    assert (found.verdict, found.method, found.model) == ("same", "trainings-5", "alibi")
    numbered = run_of({KEY._replace(model="alibi@9"): worse_by(text(), 0.03)})
    assert one(numbered, run_of(cells)).method == "trainings-5"
    same_number = run_of({KEY._replace(model="alibi@2"): worse_by(text(), 0.03)}, digests={"alibi@2": "retrained"})
    found = verdicts(same_number, run_of(cells))
    assert found[0].method.startswith("paired-")
    assert [(each.model, each.verdict) for each in found[1:]] == [(f"alibi@{n}", "missing") for n in (0, 1, 3, 4)]
    other = run_of({KEY._replace(model="rope"): text()})
    assert [(each.model, each.verdict) for each in verdicts(other, run_of(cells))] == [
        ("rope", "new"), ("alibi", "missing"),
    ]  # fmt: skip
    assert recipe("alibi@12") == "alibi" and recipe("org/model@main") == "org/model@main"


def test_a_checkpoint_that_is_one_of_the_trainings_is_compared_with_itself():
    new = run_of({KEY: worse_by(text(), 0.013)}, digests={"alibi": "training 0"})
    found = one(new, *trainings(*SHARES))
    assert (found.verdict, found.compared_with) == ("worse", "baseline 0")
    assert found.change == pytest.approx(1.013 / 1.01 - 1, rel=1e-6)


def test_a_checkpoint_that_is_named_twice_is_one_training():
    twice = trainings(0.0)[0]
    found = one(run_of({KEY: text()}, digests={"alibi": "a new seed"}), twice, twice)
    assert found.method.startswith("paired-")
