"""How much context a model makes use of: the rule on losses whose answer is known."""

import math

import numpy as np
import pytest

from lpe_eval.report.numbers.effective_length import CHANCE, LEAST, effective_length
from lpe_eval.report.numbers.resampling import MIN_DOCUMENTS, together
from lpe_eval.report.numbers.statistics import paired_difference
from tests.support.far_context import LENGTHS, copier, text

DISTANCES = (100, 200, 400, 800, 1600, 3200)


@pytest.mark.parametrize("window", LENGTHS)
@pytest.mark.parametrize("documents", [3, 12])
def test_of_a_copier_with_a_window_it_is_the_window(window: int, documents: int):
    found = effective_length(text(copier(window, DISTANCES), documents=documents))
    assert (found.length, found.low, found.high) == (window, window, window)
    assert found.beyond == ("none" if window == LENGTHS[-1] else "level")
    reached = sum(distance <= window for distance in DISTANCES)
    assert found.gain == pytest.approx(math.log(256) * (reached - 1) / len(DISTANCES))
    assert found.tokens == documents * 3 * 256


@pytest.mark.parametrize("window", [300, 1500])
def test_between_two_lengths_it_is_the_longer_one_that_was_measured(window: int):
    repeats = range(10, 4000, 10)
    assert effective_length(text(copier(window, repeats))).length == min(each for each in LENGTHS if each >= window)


def test_of_a_uniform_model_it_is_the_shortest_length_and_nothing_is_gained():
    found = effective_length(text([math.log(256)] * len(LENGTHS), noise=0.0))
    assert (found.length, found.low, found.high, found.beyond) == (128, 128, 128, "level")
    assert found.gain == 0 and found.gain_stderr == 0


@pytest.mark.parametrize(
    ("losses", "length", "beyond"),
    [
        ([3.0, 2.8, 2.6, 2.5, 2.4, 2.3], 4096, "none"),
        ([3.0, 2.8, 2.6, 2.6, 2.6, 2.6], 512, "level"),
        # A step that gains nothing does not end it; one that loses does, whatever comes after.
        ([3.0, 2.8, 2.8, 2.8, 2.5, 2.5], 2048, "level"),
        ([3.0, 2.8, 2.9, 2.6, 2.5, 2.4], 256, "loses"),
        ([3.0, 2.8, 2.6, 4.0, 9.0, 5.0], 512, "loses"),
        ([3.0, 3.5, 2.0, 2.0, 2.0, 2.0], 128, "loses"),
        # Small steps down add up, and so do small steps up.
        ([2.5] + [2.5 - step * 0.9 * LEAST for step in range(1, 6)], 2048, "level"),
        ([3.0, 2.5] + [2.5 + step * 0.9 * LEAST for step in range(1, 5)], 256, "level"),
    ],
)
def test_the_rule_on_losses_without_noise(losses: list[float], length: int, beyond: str):
    found = effective_length(text(losses, noise=0.0))
    assert (found.length, found.beyond) == (length, beyond)


def test_a_gain_that_is_sure_and_too_small_to_matter_is_none():
    found = effective_length(text([2.5, 2.5 - 0.9 * LEAST] + [2.5 - 0.9 * LEAST] * 4))
    assert (found.length, found.high) == (128, 128)
    assert effective_length(text([2.5, 2.5 - 1.1 * LEAST] + [2.5 - 1.1 * LEAST] * 4)).length == 256


def test_a_gain_within_its_noise_is_none_and_the_interval_says_so():
    losses = [3.0, 2.5, 2.49, 2.49, 2.49, 2.49]
    unsure = effective_length(text(losses, noise=0.1, documents=3, seed=3))
    assert unsure.length == 256 and unsure.low == 256 and (unsure.high or 0) > 256
    sure = effective_length(text(losses, noise=0.002, documents=30))
    assert (sure.length, sure.low) == (512, 512)


def test_how_finely_lengths_are_taken_does_not_matter():
    """A loss that falls steadily up to 2048: of the fine steps none is beyond chance by itself."""
    fine = tuple(range(128, 4097, 128))
    level = [3.0 - 0.3 * min(math.log2(length / 128), 4) for length in fine]
    found = effective_length(text(level, fine, documents=40, noise=0.02))
    assert found.length is not None and 1024 <= found.length <= 2048 <= (found.high or 0)
    coarse = effective_length(text([level[0], level[15], level[31]], (128, 2048, 4096), documents=40, noise=0.02))
    assert coarse.length == 2048


def test_a_length_without_a_value_ends_the_range():
    whole = text([3.0, 2.8, 2.6, 2.5, 2.4, 2.3])
    upto = {length: blocks for length, blocks in whole.items() if length <= 512}
    found = effective_length(upto, [1024, 2048, 4096])
    assert (found.length, found.beyond) == (512, "no value")
    # What has a value again beyond it does not count: nothing is known of the way there.
    holed = {length: blocks for length, blocks in whole.items() if length != 1024}
    assert effective_length(holed, [1024]).length == 512
    alone = effective_length({128: whole[128]}, [256, 512])
    assert (alone.length, alone.beyond, alone.gain) == (128, "no value", 0.0)


def test_where_there_is_no_answer_it_says_why():
    whole = text([3.0] * 6)
    assert effective_length({512: whole[512]}).note.startswith("a single length was measured")
    assert "the shortest length, 128, has no value" in effective_length({256: whole[256]}, [128]).note
    single = {length: blocks[:1] for length, blocks in whole.items()}
    assert "single block" in effective_length(single).note
    assert effective_length(single).length is None


def test_resampled_together_two_lengths_differ_as_they_do_in_a_pair():
    for documents in (3, MIN_DOCUMENTS, 30):
        found = text([3.0, 2.9, 2.7, 2.6, 2.6, 2.6], noise=0.05, documents=documents)
        joint = together(list(found.values()))
        assert joint is not None
        for one, other in ((0, 1), (2, 5)):
            pair = paired_difference(found[LENGTHS[one]], found[LENGTHS[other]])
            drawn = joint.replicates[:, one] - joint.replicates[:, other]
            assert joint.losses[one] - joint.losses[other] == pytest.approx(pair.difference, abs=1e-12)
            spread = drawn.std(ddof=1) * math.sqrt(joint.drawn / (joint.drawn - 1))
            assert spread == pytest.approx(pair.stderr, rel=1e-9)
            assert joint.worth == pair.units and joint.noun in pair.ci_method


def test_the_same_sums_give_the_same_answer_in_any_order():
    found = text([3.0, 2.9, 2.7, 2.69, 2.69, 2.69], noise=0.05)
    shuffled = {length: blocks[::-1] for length, blocks in reversed(found.items())}
    assert effective_length(found) == effective_length(shuffled)


@pytest.mark.slow
@pytest.mark.parametrize("documents", [3, 12, 40])
def test_chance_makes_it_longer_as_rarely_as_the_rule_says(documents: int):
    """Models that gain up to 256 tokens and are level from there, with noise in every block of every length."""
    longer = shorter = covered = 0
    runs = 400
    for seed in range(runs):
        found = effective_length(text([3.0, 2.5] + [2.5] * 4, documents=documents, noise=0.02, seed=seed))
        assert found.length is not None and found.low is not None and found.high is not None
        longer += found.length > 256
        shorter += found.length < 256
        covered += found.low <= 256 <= found.high
    assert longer / runs <= CHANCE + 2.33 * math.sqrt(CHANCE * (1 - CHANCE) / runs)
    assert shorter == 0 and covered / runs >= 0.95


@pytest.mark.slow
def test_a_gain_of_five_standard_errors_is_found():
    """Between 12 equal documents with noise sd in each block, the error of a difference is sd * sqrt(2 / 36)."""
    sd = 0.05
    gain = 5 * sd * math.sqrt(2 / 36)
    found = [
        effective_length(text([3.0, 2.5, 2.5 - gain], (128, 256, 512), noise=sd, seed=seed)).length
        for seed in range(200)
    ]
    assert np.mean([length == 512 for length in found]) >= 0.9
