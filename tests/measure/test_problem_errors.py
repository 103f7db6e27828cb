"""Errors, official means and chances of scores on algorithmic problems, by hand and by simulation."""

import math

import numpy as np
import pytest
import torch

from lpe_eval import table
from lpe_eval.data.problem import Problem, Sample, open_problem
from lpe_eval.measure.score_problem import (
    ProblemScore,
    best_ceiling,
    metric_values,
    score_of,
)
from lpe_eval.records import CheRow
from tests.support.answerers import MASKED, constant, guessing, scored


def score_from(right: np.ndarray, counted: np.ndarray) -> ProblemScore:
    mask = torch.arange(int(counted.max()))[None] < torch.from_numpy(counted)[:, None]
    blank = torch.zeros(mask.shape, dtype=torch.long)
    return score_of(torch.from_numpy(right), Sample(blank, blank, mask))


def test_the_error_of_a_ratio_is_the_textbook_one():
    found = score_from(np.array([3, 1, 4, 0]), np.array([4, 2, 4, 6]))
    ratio = 8 / 16
    residuals = [3 - ratio * 4, 1 - ratio * 2, 4 - ratio * 4, 0 - ratio * 6]
    by_hand = math.sqrt(sum(each**2 for each in residuals) / 3 / 4) / (16 / 4)
    assert found.accuracy == ratio
    assert found.accuracy_stderr == pytest.approx(by_hand, rel=1e-12)
    assert found.exact_match == 0.25
    assert found.exact_match_stderr == pytest.approx(math.sqrt(0.25 * 0.75 / 3), rel=1e-12)


def test_the_standard_error_is_the_spread_over_test_sets():
    """Answers right or wrong as wholes, of unequal length: token errors are not independent."""
    source = np.random.default_rng(4)
    values, errors = [], []
    for _ in range(400):
        counted = source.integers(1, 30, 200)
        right = np.where(source.random(200) < 0.3 + 0.01 * counted, counted, source.binomial(counted, 0.5))
        found = score_from(right, counted)
        values.append(found.accuracy)
        errors.append(found.accuracy_stderr)
    # The spread of 400 values is known to 1 / sqrt(800), 3.5 %; three times that.
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.11)
    naive = math.sqrt(np.mean(values) * (1 - np.mean(values)) / (200 * 15))
    assert np.mean(errors) > 2 * naive


def test_one_string_has_no_standard_error():
    found = scored(constant(open_problem("reverse_string"), 0), open_problem("reverse_string"), samples=1)
    assert math.isnan(found.accuracy_stderr)
    assert math.isnan(found.exact_match_stderr)


def test_the_official_mean_over_sub_batches_is_the_same_number_where_all_answers_are_equally_long():
    problem = open_problem("reverse_string")
    found = scored(guessing(problem), problem, 20, samples=512, sub_batch=128)
    assert found.official_accuracy() == pytest.approx(found.accuracy, abs=1e-12)


@pytest.mark.parametrize("problem", MASKED, ids=lambda problem: problem.__name__)
def test_where_answers_differ_in_length_the_official_mean_is_that_of_the_sub_batches(problem: type[Problem]):
    found = scored(guessing(problem), problem, 20, samples=512, sub_batch=128)
    parts = [slice(start, start + 64) for start in range(0, 512, 64)]
    by_hand = sum(found.n_correct[part].sum() / found.n_scored[part].sum() for part in parts) / 8
    assert found.official_accuracy() == pytest.approx(by_hand, abs=1e-12)
    assert found.official_accuracy() != found.accuracy
    # They are estimates of the same number: apart by less than the error of either.
    assert abs(found.official_accuracy() - found.accuracy) < found.accuracy_stderr


def test_metrics_come_with_what_they_are_compared_with():
    sort, parity = open_problem("bucket_sort"), open_problem("parity_check")
    of_sort = metric_values(scored(constant(sort, 0), sort, 6), sort, 6)
    assert list(of_sort) == list(table.CHE_METRICS)
    assert (of_sort["accuracy"].chance, of_sort["accuracy"].ceiling) == (0.2, best_ceiling(sort, 6))
    assert of_sort["exact_match"].chance == pytest.approx(5.0**-6)
    assert of_sort["exact_match"].ceiling is None
    of_parity = metric_values(scored(constant(parity, 0), parity, 6), parity, 6)
    assert of_parity["exact_match"] == of_parity["accuracy"]


def test_the_chance_of_a_whole_answer_is_that_of_guessing():
    problem = open_problem("binary_addition")
    found = scored(guessing(problem), problem, 4, samples=20_000, sub_batch=5000)
    exact = metric_values(found, problem, 4)["exact_match"]
    assert found.n_scored.min() < found.n_scored.max()
    assert 3.0 ** -found.n_scored.max() < exact.chance < 3.0 ** -found.n_scored.min()
    assert abs(exact.value - exact.chance) < 4 * exact.stderr


def test_the_fields_of_a_row_are_the_columns_of_the_table():
    assert CheRow._fields == tuple(column.name for column in table.CHE)
    kinds = {column.name: column.kind for column in table.CHE}
    assert set(kinds.values()) == {"string", "Int64", "float64"}
    assert len({column.name for column in table.CHE}) == len(table.CHE)
