"""How often the gate is wrong: false alarms where nothing changed, and 0.5 % more nats that it must not miss.

Every simulated row goes through the gate as it is. The text is that of the default budget of `lpe-eval ppl` on the
standard library: three documents of 12,288 targets, whose losses spread over documents and blocks as those of the
released alibi do (1.10, 1.10 and 1.23 nats; 0.35, 0.35 and 0.68 over blocks). What a change of the model does to a
block is drawn with the spread that was measured for a real one: 0.54 % of the loss for noise in the embedding that
costs about 0.5 %.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest

from lpe_eval.report.gate.joining import judged_rows
from lpe_eval.report.gate.judge import Rules, Verdict, judge
from lpe_eval.report.numbers.student import student
from lpe_eval.table import BlockSum, CellKey
from tests.support.gate_runs import block, loss, run_of

pytestmark = pytest.mark.slow

SEEDS = 200
LEVELS, SPREADS, SIZES = (1.10, 1.10, 1.23), (0.35, 0.35, 0.68), (1023, *[1024] * 11, 1)
LENGTHS = (512, 8192)
NOISE = 0.0054
"""Relative standard deviation of the change of a block: the largest measured at a change of 0.5 %."""

Draw = Callable[[np.random.Generator, int], np.ndarray]
Cells = dict[CellKey, list[BlockSum]]


def normal(draw: np.random.Generator, count: int) -> np.ndarray:
    return draw.standard_normal(count)


def heavy(draw: np.random.Generator, count: int) -> np.ndarray:
    return draw.standard_t(4, count) / math.sqrt(2)


def long_to_the_left(draw: np.random.Generator, count: int) -> np.ndarray:
    """With a skewness of -0.7, the largest measured: a few blocks gain much, most lose a little."""
    return (8 - draw.gamma(8.0, size=count)) / math.sqrt(8)


def default_text(draw: np.random.Generator) -> list[BlockSum]:
    return [
        block(document, number, max(0.05, level + spread * draw.standard_normal()), tokens)
        for document, (level, spread) in enumerate(zip(LEVELS, SPREADS, strict=True))
        for number, tokens in enumerate(SIZES)
    ]


def many_documents(draw: np.random.Generator) -> list[BlockSum]:
    return [
        block(document, number, max(0.05, level + 0.35 * draw.standard_normal()))
        for document, level in enumerate(1.1 + 0.15 * draw.standard_normal(12))
        for number in range(3)
    ]


def moved(
    blocks: list[BlockSum], draw: np.random.Generator, change: float, noise: float, shape: Draw, between: float = 0.0
) -> list[BlockSum]:
    """The same text under a model that differs by `change` of the loss on average."""
    level = loss(blocks)
    each = noise * shape(draw, len(blocks))
    own = between * draw.standard_normal(1 + max(int(b.document[4:-3]) for b in blocks))
    return [
        b._replace(nll_nats=b.nll_nats + b.n_tokens * level * (change + e + own[int(b.document[4:-3])]))
        for b, e in zip(blocks, each, strict=True)
    ]


def simulate(
    change: float, rules: Rules, text: Callable = default_text, noise: float = NOISE, shape: Draw = normal,
    between: float = 0.0, trainings: int = 0, spread: float = 0.0,
) -> list[Verdict]:  # fmt: skip
    """A model and two lengths for each seed; beside it that many trainings, each off by `spread` as is the model."""
    run: Cells = {}
    baselines: list[Cells] = [{} for _ in range(max(1, trainings))]
    for seed in range(SEEDS):
        draw = np.random.default_rng([seed, 7])
        for length in LENGTHS:
            key = CellKey(f"alibi-{seed}", "nonoverlap", length, length)
            blocks = text(draw)
            run[key] = moved(blocks, draw, change + spread * float(draw.standard_normal()), noise, shape, between)
            for cells in baselines:
                cells[key] = moved(blocks, draw, spread * float(draw.standard_normal()), 0.0, normal)
    digests = [{key.model: f"training {number}" for key in run} for number in range(len(baselines))]
    pairs = zip(baselines, digests, strict=True)
    opened = [
        judged
        for number, (cells, named) in enumerate(pairs)
        for judged in judged_rows(run_of(cells, digests=named), str(number))
    ]
    found = judge(judged_rows(run_of(run), "to judge"), opened, rules)
    assert len(found) == SEEDS * len(LENGTHS)
    return found


def share(found: list[Verdict], verdict: str) -> float:
    return sum(each.verdict == verdict for each in found) / len(found)


def nominal(sigmas: float) -> float:
    return 0.5 * math.erfc(sigmas / math.sqrt(2))


def at_most(wanted: float, count: int) -> float:
    """A share that a gate with a true share of `wanted` exceeds in one such test of a hundred."""
    return wanted + 2.33 * math.sqrt(wanted * (1 - wanted) / count)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "shape"),
    [(NOISE, normal), (NOISE, heavy), (NOISE, long_to_the_left), (0.018, normal), (0.018, long_to_the_left)],
)
def test_without_a_change_the_default_rules_give_at_most_the_nominal_share_of_false_alarms(noise, shape):
    found = simulate(0.0, Rules(), noise=noise, shape=shape)
    assert share(found, "worse") <= nominal(3) + 1 / len(found)
    # Three times the noise leaves a change of 1 % unseen, which is said and does not pass.
    assert share(found, "inconclusive") <= 0.01 if noise == NOISE else share(found, "inconclusive") >= 0.99
    assert share(found, "worse") + share(found, "better") + share(found, "same") + share(found, "inconclusive") == 1


@pytest.mark.slow
@pytest.mark.parametrize("text", [default_text, many_documents])
def test_without_a_tolerance_the_share_of_false_alarms_is_the_nominal_one_of_the_sigmas(text):
    found = simulate(0.0, Rules(tolerance=0.0, sigmas=2.0), text=text)
    assert share(found, "worse") <= at_most(nominal(2), len(found))
    assert share(found, "better") <= at_most(nominal(2), len(found))
    assert share(found, "worse") + share(found, "better") >= 0.02, "a gate that never speaks is not calibrated"


@pytest.mark.slow
def test_with_eight_documents_or_more_what_documents_share_makes_no_more_false_alarms():
    found = simulate(0.0, Rules(tolerance=0.0, sigmas=2.0), text=many_documents, between=NOISE)
    assert {each.method for each in found} == {"paired-bootstrap-documents-1000"}
    assert share(found, "worse") <= at_most(nominal(2), len(found))


def test_what_three_documents_share_makes_few_more_false_alarms_than_the_nominal_share():
    # The error over blocks ignores it; the largest measured was 0.08 % between documents, for which the gate's
    # docstring says 0.37 % of rows (found over 3000 seeds).
    found = simulate(0.0, Rules(), between=0.0008)
    assert share(found, "worse") <= at_most(0.0037, len(found))


@pytest.mark.parametrize("shape", [normal, heavy, long_to_the_left])
def test_half_a_percent_more_nats_is_caught_in_95_of_100_runs_at_the_default_budget(shape):
    found = simulate(0.005, Rules(), shape=shape)
    assert share(found, "worse") >= 0.95
    assert {each.units for each in found} == {36}


def test_half_a_percent_fewer_nats_is_called_better_as_often():
    assert share(simulate(-0.005, Rules()), "better") >= 0.95


def test_identical_weights_on_another_machine_are_the_same_even_without_a_tolerance():
    found = simulate(0.0, Rules(tolerance=0.0), noise=1e-6)
    assert share(found, "same") == 1


@pytest.mark.slow
def test_what_a_row_says_it_would_see_is_seen_95_times_in_100():
    rules = Rules()
    expected = simulate(0.0, rules)
    least = float(np.mean([each.detectable for each in expected]))
    assert least == pytest.approx(student(3.0, 35) * NOISE / 6 + 1.645 * NOISE / 6, rel=0.1)
    assert share(simulate(least, rules), "worse") == pytest.approx(0.95, abs=0.03)


@pytest.mark.slow
def test_the_chance_of_missing_a_change_is_the_one_of_the_closed_form():
    # Equal blocks with a known spread: the change found is normal around the true one, with s = noise / sqrt(36).
    s, rules = NOISE / 6, Rules(tolerance=0.0025, sigmas=0.0)
    for change in (0.0020, 0.0032):
        wanted = 0.5 * math.erfc((0.0025 - change) / s / math.sqrt(2))
        found = share(simulate(change, rules), "worse")
        assert found == pytest.approx(wanted, abs=3 * math.sqrt(wanted * (1 - wanted) / (SEEDS * len(LENGTHS))))


@pytest.mark.slow
@pytest.mark.parametrize("trainings", [3, 5])
def test_another_training_of_the_recipe_is_called_worse_at_most_at_the_nominal_share(trainings):
    found = simulate(0.0, Rules(tolerance=0.0, sigmas=2.0), noise=0.0, trainings=trainings, spread=0.006)
    assert {each.method for each in found} == {f"trainings-{trainings}"}
    assert 0 < share(found, "worse") <= at_most(nominal(2), len(found))


@pytest.mark.slow
def test_a_training_that_leaves_the_spread_of_five_is_caught():
    # Five trainings that differ by 0.1 %: k = 3 allows 6.6 * 0.1 % * sqrt(1 + 1 / 5) = 0.73 % on average.
    assert share(simulate(0.02, Rules(), noise=0.0, trainings=5, spread=0.001), "worse") >= 0.95
