"""How far a model recalls: the rules by brute force, and the interval by resampling one by one."""

import itertools
import math

import numpy as np
import pytest

from lpe_eval.report.numbers.recall_length import (
    REPLICATES,
    SURE,
    Rule,
    Scores,
    effective_length,
    lengths_of,
    resamples,
)

LENGTHS = (64, 128, 256, 512)


def by_hand(totals: np.ndarray, counts: np.ndarray, lengths: tuple[int, ...], rule: Rule) -> int:
    """Length after length, with plain sums."""
    found = 0
    means = [
        totals[:, at].sum() / counts[:, at].sum() if counts[:, at].sum() else math.nan for at in range(len(lengths))
    ]
    if rule.least is None:
        first, count = means[0], len(totals)
        residues = [totals[row, 0] - first * counts[row, 0] for row in range(count)]
        error = math.sqrt(sum(each**2 for each in residues) * count / (count - 1)) / counts[:, 0].sum()
        if not (first > 0 and first > SURE * error):
            return 0
    for at, length in enumerate(lengths):
        bar = rule.share * means[0] if rule.least is None else rule.least
        if not means[at] >= bar:
            break
        found = length
    return found


def test_all_shapes_of_scores_come_to_what_they_do_by_hand():
    draw = np.random.default_rng(0)
    for rule in (Rule(), Rule(0.5), Rule(least=0.6)):
        seen = set()
        for _ in range(300):
            counts = draw.integers(0, 3, (6, 4)).astype(float)
            totals = counts * (draw.uniform(0.2, 1.2, 4) + 0.4 * draw.standard_normal((6, 4)))
            if not counts[:, 0].any():
                continue
            scores = Scores(totals, counts, LENGTHS)
            found = int(lengths_of(np.ones((1, 6)), scores, rule)[0])
            assert found == by_hand(totals, counts, LENGTHS, rule)
            seen.add(found)
        assert seen == {0, *LENGTHS}


@pytest.mark.parametrize("window", [0, 64, 128, 256, 512])
def test_the_length_of_a_copier_with_a_window_is_the_window(window: int):
    gains = np.array([math.log(258) if length <= window else 0.0 for length in LENGTHS])
    found = effective_length(Scores(np.tile(64 * gains, (16, 1)), np.full((16, 4), 64.0), LENGTHS), Rule())
    assert found[:3] == (window, window, window)


def test_a_length_that_holds_again_after_one_that_does_not_is_not_reached():
    totals = np.tile([1.0, 0.9, 0.5, 1.0], (8, 1))
    assert effective_length(Scores(totals, np.ones((8, 4)), LENGTHS), Rule()).value == 128
    assert effective_length(Scores(totals, np.ones((8, 4)), LENGTHS), Rule(least=0.95)).value == 64
    assert effective_length(Scores(totals, np.ones((8, 4)), LENGTHS), Rule(least=0.2)).value == 512


def test_the_bar_itself_is_reached_and_a_model_that_recalls_nothing_has_no_length():
    totals = np.tile([1.0, 0.85, 0.8499, 0.0], (8, 1))
    assert effective_length(Scores(totals, np.ones((8, 4)), LENGTHS), Rule()).value == 128
    for near in (0.0, -0.5):
        assert effective_length(Scores(np.full((8, 4), near), np.ones((8, 4)), LENGTHS), Rule()).value == 0
    # Twice the standard error of the shortest is what must be exceeded: here it is 0.1, whatever comes after.
    spread = np.array([[0.1 * sign * math.sqrt(8 * 7 / 8)] for sign in (1, -1)] * 4) * np.ones((8, 4))
    for mean, value in ((0.21, 512), (0.19, 0)):
        assert effective_length(Scores(spread + mean, np.ones((8, 4)), LENGTHS), Rule()).value == value


def test_what_has_no_number_and_what_was_not_asked_reaches_nothing():
    totals = np.tile([1.0, math.nan, 1.0, 1.0], (8, 1))
    assert effective_length(Scores(totals, np.ones((8, 4)), LENGTHS), Rule()).value == 64
    counts = np.ones((8, 4))
    counts[:, 2:] = 0
    assert effective_length(Scores(np.ones((8, 4)) * counts, counts, LENGTHS), Rule()).value == 128


def test_the_interval_is_that_of_every_resample_there_is():
    totals = np.array([[1.0, 1.01, 0.23], [1.0, 0.93, 1.41], [1.0, 0.42, 1.57], [1.0, 1.37, 0.44]])
    scores = Scores(totals, np.ones((4, 3)), (1, 2, 3))
    every = np.array([np.bincount(rows, minlength=4) for rows in itertools.product(range(4), repeat=4)], dtype=float)
    lengths = lengths_of(every, scores, Rule())
    by_items = [by_hand(totals[list(rows)], np.ones((4, 3)), (1, 2, 3), Rule())
                for rows in itertools.product(range(4), repeat=4)]  # fmt: skip
    assert lengths.tolist() == by_items
    drawn = lengths_of(resamples(4, 0), scores, Rule())
    assert len(drawn) == REPLICATES
    for length in (0, 1, 2, 3):
        share = (lengths == length).mean()
        assert (drawn == length).mean() == pytest.approx(
            share, abs=5 * math.sqrt(share * (1 - share) / REPLICATES) + 1e-9
        )
    found = effective_length(scores, Rule())
    ordered = np.sort(drawn)
    assert (found.low, found.high) == (
        ordered[math.ceil(0.025 * REPLICATES) - 1],
        ordered[-math.ceil(0.025 * REPLICATES)],
    )
    assert found.method == "bootstrap-prompts-2000"
    assert math.isnan(effective_length(Scores(totals[:1], np.ones((1, 3)), (1, 2, 3)), Rule()).low)


def test_resamples_draw_as_many_as_there_are_and_depend_on_the_seed_alone():
    one, again, other = resamples(9, 4), resamples(9, 4), resamples(9, 5)
    assert (one.sum(1) == 9).all() and (one == again).all() and (one != other).any()
