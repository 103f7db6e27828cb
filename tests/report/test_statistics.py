import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lpe_eval import table
from lpe_eval.report.numbers.statistics import MIN_DOCUMENTS, paired_difference, summarise
from lpe_eval.table import BlockSum, CellKey, Facts, Measurement

FACTS = Facts("alibi", 512, "custom", 1, "novels", "test", 7, "float32", "cpu")
KEY = CellKey("ours", "anchored", 2048, None)


def _measured(blocks: list[BlockSum], **changes) -> Measurement:
    plain = Measurement(KEY, FACTS, "dense", tuple(blocks), (), None)
    return dataclasses.replace(plain, **changes)


def _block(document: int, nll: float, tokens: int, n_bytes: int = 400, block: int = 0, nonfinite: int = 0) -> BlockSum:
    return BlockSum(f"book-{document}", f"digest-{document}", block, nll, tokens, n_bytes, nonfinite)


def _rows(measurement: Measurement, seed: int = 1, replicates: int = 1000) -> dict[str, dict]:
    return {row["metric"]: row for row in summarise(measurement, "run", seed, replicates)}


def _documents(rng: np.random.Generator, documents: int, blocks: int, between: float, within: float):
    """Clustered losses around 3 nats: what a document's targets share, and what they do not."""
    found = []
    for document in range(documents):
        level = 3.0 + between * rng.standard_normal()
        for block in range(blocks):
            tokens = int(rng.integers(200, 1025))
            mean = level + within * rng.standard_normal()
            found.append(_block(document, mean * tokens, tokens, 4 * tokens, block))
    return found


def test_the_values_are_ratios_of_totals():
    rows = _rows(_measured([_block(0, 4096 * 2.0, 4096, 16000), _block(1, 904 * 2.6, 904, 4000)]))
    mean = (4096 * 2.0 + 904 * 2.6) / 5000
    assert rows["nll_nats"]["value"] == pytest.approx(mean, rel=1e-15)
    assert rows["perplexity"]["value"] == pytest.approx(math.exp(mean), rel=1e-15)
    assert rows["bits_per_byte"]["value"] == pytest.approx(5000 * mean / math.log(2) / 20000, rel=1e-15)
    assert rows["perplexity"]["value"] == pytest.approx(8.236, abs=1e-3)
    mean_of_window_means = math.exp((2.0 + 2.6) / 2)
    mean_of_perplexities = (math.exp(2.0) + math.exp(2.6)) / 2
    assert abs(rows["perplexity"]["value"] - mean_of_window_means) > 1.5
    assert abs(rows["perplexity"]["value"] - mean_of_perplexities) > 1.5


def test_every_row_has_every_column_in_order_and_says_what_was_measured():
    rows = summarise(_measured([_block(0, 10.0, 5)]), "abc", 1)
    assert [list(row) for row in rows] == [[column.name for column in table.ROWS]] * 3
    assert [row["metric"] for row in rows] == list(table.METRICS)
    first = rows[0]
    assert (first["run"], first["model"], first["protocol"], first["length"]) == ("abc", "ours", "anchored", 2048)
    assert (first["encoding"], first["train_length"], first["stride"], first["seed"]) == ("alibi", 512, None, 7)
    assert (first["n_tokens"], first["n_documents"], first["status"], first["schema"]) == (5, 1, "ok", table.SCHEMA)


def test_the_sum_is_exact_where_plain_addition_loses_digits():
    blocks = [_block(0, 1e16, 1), *(_block(number, 1.0, 1) for number in range(1, 11))]
    assert _rows(_measured(blocks))["nll_nats"]["value"] == (10**16 + 10) / 11


def test_the_standard_error_of_equal_independent_blocks_is_s_over_root_n():
    rng = np.random.default_rng(3)
    means = 3 + 0.2 * rng.standard_normal(40)
    found = _rows(_measured([_block(i, 1000 * x, 1000, 4000) for i, x in enumerate(means)]), replicates=4000)
    analytic = means.std(ddof=1) / math.sqrt(40)
    assert found["nll_nats"]["stderr"] == pytest.approx(analytic, rel=0.05)
    assert found["perplexity"]["stderr"] == pytest.approx(math.exp(means.mean()) * analytic, rel=0.06)
    assert found["bits_per_byte"]["stderr"] == pytest.approx(analytic / math.log(2) / 4, rel=0.05)
    assert found["nll_nats"]["ci_method"] == "bootstrap-documents-4000"


def test_the_standard_error_of_two_blocks_is_that_of_two_numbers():
    found = _rows(_measured([_block(0, 2000.0, 1000), _block(0, 3000.0, 1000, block=1)]), replicates=20000)["nll_nats"]
    # Of two units 2 and 3 the standard deviation is sqrt(1/2), and the mean's error is 1/2.
    assert found["stderr"] == pytest.approx(0.5, rel=0.02)
    assert (found["ci_low"], found["ci_high"]) == (2.0, 3.0)


@pytest.mark.parametrize("documents", [MIN_DOCUMENTS, 40])
def test_the_interval_of_clustered_losses_covers_the_truth_as_often_as_it_says(documents):
    rng = np.random.default_rng(documents)
    covered = 0
    for _ in range(400):
        row = _rows(_measured(_documents(rng, documents, 5, 0.3, 0.05)), replicates=400)["nll_nats"]
        covered += row["ci_low"] <= 3.0 <= row["ci_high"]
    assert 0.90 <= covered / 400 <= 0.99


def test_the_standard_error_of_clustered_losses_is_their_spread_over_repeated_samples():
    rng = np.random.default_rng(11)
    found = [_rows(_measured(_documents(rng, 20, 10, 0.3, 0.1)), replicates=400)["nll_nats"] for _ in range(300)]
    spread = np.std([row["value"] for row in found], ddof=1)
    assert np.mean([row["stderr"] for row in found]) == pytest.approx(spread, rel=0.12)


def test_the_interval_of_the_perplexity_is_exp_of_the_interval_of_the_loss():
    rows = _rows(_measured(_documents(np.random.default_rng(0), 12, 3, 0.3, 0.1)))
    for end in ("value", "ci_low", "ci_high"):
        assert rows["perplexity"][end] == pytest.approx(math.exp(rows["nll_nats"][end]), rel=1e-14)
    assert rows["perplexity"]["stderr"] != pytest.approx(math.exp(rows["nll_nats"]["stderr"]))


def test_the_same_inputs_give_the_same_rows_whatever_was_computed_before_and_in_whatever_order():
    blocks = _documents(np.random.default_rng(0), 12, 3, 0.3, 0.1)
    first = summarise(_measured(blocks), "run", 1)
    summarise(_measured(blocks, key=KEY._replace(length=64)), "run", 1)
    assert summarise(_measured(blocks[::-1]), "run", 1) == first
    assert summarise(_measured(blocks), "run", 2)[0]["stderr"] != first[0]["stderr"]
    assert summarise(_measured(blocks, key=KEY._replace(length=64)), "run", 1)[0]["stderr"] != first[0]["stderr"]


def test_the_seed_does_not_depend_on_the_process():
    program = """
from tests.report.test_statistics import _block, _measured, summarise
print(summarise(_measured([_block(number, 1000.0 + number**2, 500) for number in range(10)]), "run", 1))
"""
    root = Path(__file__).parents[2]
    found = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]
    assert b"bootstrap-documents-1000" in found[0]


def test_with_few_documents_the_blocks_are_resampled_and_the_method_says_so():
    few = _documents(np.random.default_rng(0), MIN_DOCUMENTS - 1, 3, 0.3, 0.1)
    assert {row["ci_method"] for row in summarise(_measured(few), "run", 1)} == {"bootstrap-blocks-1000"}
    enough = _documents(np.random.default_rng(0), MIN_DOCUMENTS, 3, 0.3, 0.1)
    assert {row["ci_method"] for row in summarise(_measured(enough), "run", 1)} == {"bootstrap-documents-1000"}


def test_one_unit_has_a_value_and_no_uncertainty():
    for row in summarise(_measured([_block(0, 10.0, 5), _block(1, 0.0, 0)]), "run", 1):
        assert row["ci_method"] == "none"
        assert row["value"] > 0
        assert all(math.isnan(row[name]) for name in ("stderr", "ci_low", "ci_high"))
        assert row["n_documents"] == 1


def test_a_perplexity_beyond_the_largest_float_is_infinite_and_its_loss_is_kept():
    rows = _rows(_measured([_block(number, 800.0 * 10, 10) for number in range(10)]))
    assert rows["perplexity"]["value"] == rows["perplexity"]["ci_high"] == math.inf
    assert rows["perplexity"]["stderr"] == math.inf
    assert (rows["nll_nats"]["value"], rows["nll_nats"]["stderr"]) == (800.0, 0.0)
    assert rows["perplexity"]["status"] == "ok"


def test_text_without_bytes_has_no_bits_per_byte():
    rows = _rows(_measured([_block(number, 10.0 + number, 5, 0) for number in range(10)]))
    assert math.isnan(rows["bits_per_byte"]["value"])
    assert rows["bits_per_byte"]["ci_method"] == "none"
    assert rows["nll_nats"]["stderr"] > 0


@pytest.mark.parametrize(
    ("bad", "expected"),
    [([math.inf], math.inf), ([math.nan], math.nan), ([math.nan, math.inf], math.inf), ([5.0], math.nan)],
)
def test_targets_that_are_not_finite_are_counted_and_never_dropped(bad, expected):
    blocks = [_block(number, 10.0, 5) for number in range(10)]
    blocks += [_block(90 + number, nll, 5, nonfinite=1) for number, nll in enumerate(bad)]
    for row in summarise(_measured(blocks), "run", 1):
        assert row["value"] == pytest.approx(expected, nan_ok=True)
        assert (row["status"], row["n_nonfinite"], row["n_tokens"]) == ("error", len(bad), 50 + 5 * len(bad))
        assert "not finite" in row["note"]
        assert math.isnan(row["stderr"])


@pytest.mark.parametrize("status", ["n/a", "failed"])
def test_a_cell_without_a_value_has_rows_with_its_status_and_reason(status):
    rows = summarise(_measured([], status=status, note="the table ends at 512"), "run", 1)
    assert len(rows) == 3
    for row in rows:
        assert math.isnan(row["value"])
        assert (row["status"], row["note"], row["n_tokens"]) == (status, "the table ends at 512", 0)


def test_a_cell_that_scored_nothing_has_failed():
    assert {row["status"] for row in summarise(_measured([]), "run", 1)} == {"failed"}


def test_a_constant_paired_difference_is_found_exactly_although_documents_differ_widely():
    a = _documents(np.random.default_rng(0), 12, 3, 0.8, 0.3)
    b = [block._replace(nll_nats=block.nll_nats - 0.01 * block.n_tokens) for block in a]
    found = paired_difference(a, b)
    assert found.difference == pytest.approx(0.01, rel=1e-9)
    assert found.stderr == pytest.approx(0.0, abs=1e-12)
    assert found.share == 1.0
    assert found.ci_method == "bootstrap-documents-1000"
    assert _rows(_measured(a))["nll_nats"]["stderr"] > 0.1


def test_the_paired_error_is_that_of_the_differences():
    rng = np.random.default_rng(5)
    level, change = 3 + rng.standard_normal(50), 0.02 + 0.01 * rng.standard_normal(50)
    a = [_block(number, 100 * (x + d), 100) for number, (x, d) in enumerate(zip(level, change, strict=True))]
    b = [_block(number, 100 * x, 100) for number, x in enumerate(level)]
    found = paired_difference(a, b, replicates=4000)
    assert found.difference == pytest.approx(change.mean(), rel=1e-9)
    assert found.stderr == pytest.approx(change.std(ddof=1) / math.sqrt(50), rel=0.05)
    assert found.ci_low < found.difference < found.ci_high
    back = paired_difference(b, a, replicates=4000)
    assert (back.difference, back.stderr) == (pytest.approx(-found.difference), pytest.approx(found.stderr, rel=1e-9))


def test_only_text_that_both_scored_is_compared_and_the_share_says_how_much():
    a = [_block(number, 30.0, 10) for number in range(4)]
    b = [_block(number, 20.0, 10) for number in range(1, 9)]
    found = paired_difference(a, b)
    assert found.difference == pytest.approx(1.0)
    assert found.share == pytest.approx(30 / 80)
    renamed = [block._replace(document="another name") for block in b]
    assert paired_difference(a, renamed) == found


def test_nothing_in_common_is_no_difference_rather_than_zero():
    found = paired_difference([_block(0, 30.0, 10)], [_block(1, 30.0, 10)])
    assert math.isnan(found.difference)
    assert found.share == 0.0
    assert paired_difference([], []).share == 0.0


def test_a_difference_to_an_infinite_loss_is_infinite():
    found = paired_difference([_block(0, math.inf, 10, nonfinite=1)], [_block(0, 30.0, 10)])
    assert found.difference == math.inf
    assert math.isnan(found.stderr)
