"""Rows that their own sums contradict: refused in one sentence that names the row, on either side."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from lpe_eval.commands.compare import compare, open_baselines
from lpe_eval.errors import OutputError
from lpe_eval.report.gate.damage import refuse_damaged, refuse_damaged_run
from lpe_eval.report.gate.joining import Judged, judged_rows
from lpe_eval.report.gate.rules import Rules
from lpe_eval.table import BlockSum
from tests.support.gate_runs import KEY, run_of, text

RELEASED = Path(__file__).parents[2] / "results" / "baselines"


def edited(run, metric: str = "nll_nats", **values: object):
    """The run with other values in the rows of a metric."""
    rows = run.rows.copy()
    for name, value in values.items():
        rows.loc[rows.metric == metric, name] = value
    return run._replace(rows=rows)


def refused(run) -> str:
    with pytest.raises(OutputError) as raised:
        refuse_damaged_run(run, judged_rows(run, "mine"), "mine")
    told = str(raised.value)
    assert told.startswith("the run mine is damaged: alibi, nonoverlap at 512: ") and told.endswith("; measure anew")
    return told


@pytest.mark.parametrize("status", ["ok", "n/a", "failed", "error"])
def test_what_a_run_writes_is_never_refused(status):
    blocks = text()
    if status == "error":
        blocks[3] = blocks[3]._replace(nll_nats=float("inf"), n_nonfinite=2)
    run = run_of({KEY: blocks, KEY._replace(model="rope"): text(3)}, {KEY: status})
    refuse_damaged_run(run, judged_rows(run, "mine"), "mine")


@pytest.mark.parametrize("name", ["released", "released-che"])
def test_the_baselines_that_ship_are_whole(name):
    folder = RELEASED / name
    assert open_baselines([str(folder)])[str(folder)]


@pytest.mark.parametrize(
    ("metric", "values", "told"),
    [
        ("nll_nats", {"value": 99.0}, "nll_nats is 99 in the table, 1."),
        ("nll_nats", {"value": 1.0}, "nll_nats is 1 in the table, 1."),
        ("nll_nats", {"value": float("nan")}, "the status is ok, and a loss is not finite"),
        ("nll_nats", {"value": float("inf")}, "the status is ok, and a loss is not finite"),
        ("nll_nats", {"n_nonfinite": 3}, "n_nonfinite is 3 in the table, 0 in the sums of its documents"),
        ("nll_nats", {"n_tokens": 5}, "n_tokens is 5 in the table, 36864 in the sums of its documents"),
        ("nll_nats", {"status": "n/a"}, "the status is n/a, and it has a value"),
        ("nll_nats", {"status": "failed"}, "the status is failed, and it has a value"),
        ("nll_nats", {"status": "error"}, "the status is error, and every loss is finite"),
        ("perplexity", {"value": 1.5}, "perplexity is 1.5 in the table"),
        ("bits_per_byte", {"value": 0.1}, "bits_per_byte is 0.1 in the table"),
    ],
    ids=str,
)
def test_an_edited_row_is_refused(metric, values, told):
    assert told in refused(edited(run_of({KEY: text()}), metric, **values))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"nll_nats": float("nan")}, "the status is ok, and a loss is not finite"),
        ({"n_nonfinite": 1}, "n_nonfinite is 0 in the table, 1 in the sums of its documents"),
        ({"nll_nats": 99.0}, "nll_nats is 1."),
        ({"n_tokens": -1024}, "over a number of tokens that cannot be"),
    ],
    ids=str,
)
def test_edited_sums_are_refused(values, told):
    run = run_of({KEY: text()})
    sums = run.by_document.copy()
    for name, value in values.items():
        sums.loc[0, name] = value
    assert told in refused(run._replace(by_document=sums))


def test_non_finite_targets_cannot_be_counted_and_the_status_be_ok():
    run = run_of({KEY: text()})
    sums = run.by_document.copy()
    sums.loc[0, "n_nonfinite"] = 1
    told = refused(edited(run, n_nonfinite=1)._replace(by_document=sums))
    assert "the status is ok, and a loss is not finite" in told


def test_sums_without_a_row_and_a_row_without_sums_are_refused():
    run = run_of({KEY: text(), KEY._replace(length=8192): text()})
    assert "there are sums of its documents and no row" in refused(run._replace(rows=run.rows[run.rows.length == 8192]))
    gone = run._replace(by_document=run.by_document[run.by_document.length == 8192])
    assert "n_tokens is 36864 in the table, 0" in refused(gone)


def answers(value: float, right: list[int], counted: list[int], **row: object) -> Judged:
    plain = {
        "model": "rope", "task": "parity_check", "protocol": "quick", "length": 100, "stride": None,
        "metric": "accuracy", "status": "ok", "note": "", "value": value, "n_tokens": sum(counted), **row,
    }  # fmt: skip
    pairs = enumerate(zip(right, counted, strict=True))
    blocks = [BlockSum(f"{at}", f"{at}", 0, float(hit), tokens, 0, 0) for at, (hit, tokens) in pairs]
    return Judged(plain, blocks, {}, None, None, "mine")


@pytest.mark.parametrize(
    ("judged", "told"),
    [
        (answers(0.99, [1, 0, 1, 1], [1, 1, 1, 1]), "accuracy is 0.99 in the table, 0.75 by the sums of its strings"),
        (answers(float("nan"), [1, 0], [1, 1]), "the status is ok, and there is no value"),
        (answers(1.5, [3], [2]), "a string has more right answer tokens than it has answer tokens"),
        (answers(0.5, [1, 0], [1, 1], n_tokens=9), "9 answer tokens in the table, 2 in the sums of its strings"),
        (answers(0.5, [1, 0], [1, 1], status="n/a"), "the status is n/a, and it has a value"),
    ],
    ids=["value", "nan", "more than all", "tokens", "status"],
)
def test_an_edited_row_of_answers_is_refused(judged, told):
    with pytest.raises(OutputError, match="the run mine is damaged: rope, parity_check at 100: ") as raised:
        refuse_damaged([judged], "mine")
    assert told in str(raised.value)


def test_the_mean_over_sub_batches_of_the_released_code_is_no_damage():
    # 2 of 3 and 1 of 4 tokens, in sub-batches of two strings: (2/3 + 1/4) / 2, where all together are 3/7.
    refuse_damaged([answers((2 / 3 + 1 / 4) / 2, [1, 1, 0, 1], [1, 2, 2, 2])], "mine")
    refuse_damaged([answers(3 / 7, [1, 1, 0, 1], [1, 2, 2, 2])], "mine")


@pytest.mark.parametrize("side", ["run", "baseline"])
def test_a_damaged_folder_is_refused_on_either_side(tmp_path, side):
    for name in ("run", "baseline"):
        shutil.copytree(RELEASED / "released", tmp_path / name)
    path = tmp_path / side / "rows.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    at = rows.index[(rows.model == "alibi") & (rows.metric == "nll_nats") & (rows.length == "2048")]
    rows.loc[at, "value"] = "99.0"
    rows.to_csv(path, index=False)
    with pytest.raises(OutputError, match=r"is damaged: alibi, nonoverlap at 2048: nll_nats is 99 in the table"):
        compare(tmp_path / "run", open_baselines([str(tmp_path / "baseline")]), Rules())
