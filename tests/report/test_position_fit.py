"""The power law through losses by context: known curves are recovered, and what is none is told."""

import math

import numpy as np
import pytest

from lpe_eval.measure.by_length import context_bucket_edges
from lpe_eval.report.folders.derived import fit_rows
from lpe_eval.report.folders.ppl import Run
from lpe_eval.report.numbers.position_fit import Fit, fit_power_law
from lpe_eval.report.tables.far_context import fit_table
from tests.support.figure_rows import positions_of, rows_of

FIRST = context_bucket_edges(8192)
SIZES = np.diff(np.append(FIRST, 8193))
CONTEXTS = np.sqrt(FIRST * (FIRST + SIZES - 1.0))


def curve(alpha: float, beta: float, gamma: float) -> np.ndarray:
    return (alpha / CONTEXTS) ** beta + gamma


def fitted(losses: np.ndarray, contexts: np.ndarray = CONTEXTS, weights: np.ndarray = SIZES) -> Fit:
    return fit_power_law(contexts, losses, weights.astype(float))


@pytest.mark.parametrize("alpha", [0.02, 1.0, 30.0])
@pytest.mark.parametrize("beta", [0.05, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_an_exact_curve_is_found_to_the_last_digits(alpha: float, beta: float, gamma: float):
    found = fitted(curve(alpha, beta, gamma))
    if found.why_not:
        # A curve that is level from the second token on, to the precision of its numbers.
        assert (alpha / 2) ** beta < 1e-3
        return
    assert found.alpha.value == pytest.approx(alpha, rel=1e-3)
    assert found.beta.value == pytest.approx(beta, rel=1e-4)
    assert found.gamma.value == pytest.approx(gamma, abs=1e-3 * max(1.0, (alpha / 100) ** beta))
    assert found.explained == pytest.approx(1.0)
    assert found(CONTEXTS) == pytest.approx(curve(alpha, beta, gamma), rel=1e-6)


@pytest.mark.parametrize("numbers", [(30.0, 0.5, 1.5), (2000.0, 0.3, 0.9), (5.0, 1.2, 2.0)])
def test_noisy_curves_are_recovered_within_their_errors(numbers: tuple[float, float, float]):
    """The distance from the truth in standard errors is spread as a normal number is."""
    draw = np.random.default_rng(0)
    off = []
    for _ in range(60):
        found = fitted(curve(*numbers) + draw.standard_normal(len(CONTEXTS)) / np.sqrt(10 * SIZES))
        assert not found.why_not
        alpha, beta, gamma = found.alpha, found.beta, found.gamma
        off.append(
            (
                math.log(alpha.value / numbers[0]) / (alpha.stderr / alpha.value),
                (beta.value - numbers[1]) / beta.stderr,
                (gamma.value - numbers[2]) / gamma.stderr,
            )
        )
    assert np.abs(np.mean(off, axis=0)).max() < 0.5
    assert np.std(off, axis=0).min() > 0.75 and np.std(off, axis=0).max() < 1.35


def test_the_fit_is_the_one_that_no_other_beats():
    """Brute force over the three numbers around the solution."""
    losses = curve(30.0, 0.5, 1.5) + np.random.default_rng(1).standard_normal(len(CONTEXTS)) / np.sqrt(SIZES)
    found = fitted(losses)

    def left(alpha: float, beta: float, gamma: float) -> float:
        return float((SIZES * (losses - curve(alpha, beta, gamma)) ** 2).sum())

    best = left(found.alpha.value, found.beta.value, found.gamma.value)
    for alpha in (0.9, 0.99, 1.01, 1.1):
        for beta in (0.9, 0.99, 1.0, 1.01, 1.1):
            for gamma in (-0.1, -0.01, 0.0, 0.01, 0.1):
                other = left(found.alpha.value * alpha, found.beta.value * beta, found.gamma.value + gamma)
                assert other >= best


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        (np.full(len(CONTEXTS), 2.5), "the same at every size of context"),
        (np.zeros(len(CONTEXTS)), "the same at every size of context"),
        (2.5 + np.random.default_rng(2).standard_normal(len(CONTEXTS)) / np.sqrt(SIZES), "no more than noise does"),
        (1.0 + 0.1 * np.log(CONTEXTS), "rises with context"),
        (np.where(CONTEXTS < 512, 1 + 1 / np.sqrt(CONTEXTS), 2 + np.log(CONTEXTS / 512)), "rises with context"),
        (5.0 - 0.3 * np.log(CONTEXTS), "like a logarithm"),
        (2.0 + np.sin(3 * np.log(CONTEXTS)) - 0.1 * np.log(CONTEXTS), "no power law"),
        (np.where(CONTEXTS < 2, 9.0, 2.0), "the first few tokens"),
    ],
)
def test_what_is_no_law_is_told_with_a_reason(losses: np.ndarray, why: str):
    found = fitted(losses)
    assert why in found.why_not
    assert math.isnan(found.alpha.value) and math.isnan(found.gamma.stderr)


def test_too_few_sizes_and_too_narrow_a_range_are_told():
    assert "there are 2 sizes" in fitted(np.array([2.0, 1.0]), CONTEXTS[:2], SIZES[:2]).why_not
    assert "there are 0 sizes" in fitted(np.zeros(0), CONTEXTS[:0], SIZES[:0]).why_not
    narrow = slice(-8, None)
    assert "too narrow" in fitted(curve(30, 0.5, 1.5)[narrow], CONTEXTS[narrow], SIZES[narrow]).why_not
    # Losses that are not finite, and sizes without a target, are left out.
    losses, sizes = curve(30, 0.5, 1.5), SIZES.copy()
    losses[[3, 50]], sizes[70] = [np.inf, np.nan], 0
    assert fitted(losses, weights=sizes).beta.value == pytest.approx(0.5, rel=1e-6)


def test_the_rows_of_a_run_are_of_the_longest_length_and_of_anchored_all_lengths_together():
    models, protocols = ["alibi", "rope"], ("nonoverlap", "anchored-8", "last-8")
    rows = rows_of({name: [6.0, 5.0] for name in models}, protocols, (1024, 2048))
    positions = positions_of(models, (1024, 2048), protocols)
    run = Run(rows, rows, rows, positions, {}, {})
    found = fit_rows(run)
    assert [(row["model"], row["protocol"], row["length"]) for row in found] == [
        (name, protocol, 2048) for name in models for protocol in protocols
    ]
    assert [row["n_tokens"] for row in found[:3]] == [5000, 10000, 5000]
    assert [(row["status"], bool(row["note"])) for row in found[:3]] == [("n/a", True), ("ok", False), ("n/a", True)]
    (shown,) = fit_table(found)
    assert [row[:2] for row in shown.rows] == [["alibi", "anchored-8"], ["rope", "anchored-8"]]
    assert any("no fit of alibi (nonoverlap), alibi (last-8), rope (nonoverlap)" in line for line in shown.below)
    (none,) = fit_table(found[:1])
    assert not none.rows and "there are 5 sizes" in none.below[0]
    assert fit_rows(run._replace(by_position=positions_of([]))) == [] == fit_table([])
