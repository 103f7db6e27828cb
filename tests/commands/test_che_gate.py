"""`che --baseline` and `compare` on folders of algorithmic problems: real encoders, scored, harmed and scored again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.model.encoder_folder import read_encoder_config
from lpe_eval.report.gate.che_rows import judged_che_rows
from lpe_eval.report.gate.joining import Judged
from lpe_eval.report.gate.judge import Rules, Verdict, judge
from lpe_eval.spec.released import released_encoders
from lpe_eval.table import BlockSum

TASKS = "even_pairs,missing_duplicate_string"


def command(*flags: object):
    return CliRunner().invoke(app, [*map(str, flags)], env={"COLUMNS": "400"})


def scored(model: Path, out: Path, *flags: object):
    usual = ("--lengths", "10,20,30", "--samples", 64, "--tasks", TASKS, "--device", "cpu", "--quiet")
    return command("che", "-m", model, "--out", out, *usual, *flags)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a released encoder, under a name that does not depend on where it lies."""
    place = tmp_path_factory.mktemp("encoders") / "rope"
    shutil.copytree(released_encoders()["rope"], place)
    return place


@pytest.fixture(scope="module")
def baseline(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "baseline"
    assert scored(encoder, out).exit_code == 0
    return out


def harmed(encoder: Path, place: Path, task: str) -> Path:
    """The encoder with the classes of one task's head in the reverse order."""
    shutil.copytree(encoder, place)
    weights = load_file(place / f"{task}.safetensors")
    name = next(name for name in weights if "head" in name and weights[name].dim() == 2)
    weights[name] = weights[name].flip(0).contiguous()
    save_file(weights, place / f"{task}.safetensors")
    return place


def test_the_answers_to_strings_add_up_to_the_accuracies_of_the_table(baseline: Path):
    rows = pd.read_csv(baseline / "che.csv")
    strings = pd.read_parquet(baseline / "by_string.parquet")
    sums = strings.groupby(["model", "task", "run_index", "length"])[["n_correct", "n_tokens"]].sum()
    for row in rows[rows.metric == "accuracy"].itertuples():
        right, counted = sums.loc[(row.model, row.task, row.run_index, row.length)]
        assert (counted, right / counted) == (row.n_tokens, pytest.approx(row.value, abs=1e-12))
    assert len(strings) == 64 * 2 * 3
    assert set(strings.groupby(["task", "length"]).test_set.nunique()) == {1}


def test_the_same_encoder_passes_and_its_rows_are_the_same(encoder: Path, baseline: Path, tmp_path: Path):
    result = scored(encoder, tmp_path / "again", "--baseline", baseline)
    assert result.exit_code == 0, result.output
    assert "6 rows: 6 same" in result.output
    assert "change of the accuracy on the strings that both answered" in result.output


def test_an_encoder_that_forgot_a_problem_fails_and_problem_and_lengths_are_named(
    encoder: Path, baseline: Path, tmp_path: Path
):
    worse = harmed(encoder, tmp_path / "rope", "even_pairs")
    result = scored(worse, tmp_path / "run", "--baseline", baseline)
    assert result.exit_code == 3
    _, _, told = result.output.replace("\n", " ").rpartition("worse: ")
    assert told.startswith("rope, even_pairs, at length") and "missing_duplicate_string" not in told
    report = tmp_path / "report.json"
    junit = tmp_path / "report.xml"
    flags = ("--baseline", baseline, "--json", report, "--junit", junit)
    assert command("compare", tmp_path / "run", *flags).exit_code == 3
    rows = json.loads(report.read_text())["rows"]
    fell = [row for row in rows if row["verdict"] == "worse"]
    assert {row["task"] for row in fell} == {"even_pairs"}
    for row in fell:
        assert row["change"] == pytest.approx(row["value"] / row["baseline"] - 1) and row["change"] < 0
        assert (row["units"], row["method"]) == (64, "paired-bootstrap-strings-1000")
    assert 'classname="even_pairs.rope" name="even_pairs at 10"' in junit.read_text()


def test_other_strings_are_not_comparable(encoder: Path, baseline: Path, tmp_path: Path):
    refused = scored(encoder, tmp_path / "run", "--seed", 5, "--baseline", baseline)
    assert refused.exit_code == 2 and not (tmp_path / "run").exists()
    assert "none of the strings is one of the baseline's; give its --samples and --seed" in refused.output
    assert scored(encoder, tmp_path / "run", "--seed", 5).exit_code == 0
    result = command("compare", tmp_path / "run", "--baseline", baseline)
    assert result.exit_code == 2
    told = "only 0 % of the baseline's answers are to strings of the run; give its --samples and --seed"
    assert told in result.output.replace("\n", " ")


def test_a_problem_that_was_not_asked_is_missing_and_a_further_one_is_new(
    encoder: Path, baseline: Path, tmp_path: Path
):
    result = scored(encoder, tmp_path / "run", "--tasks", "even_pairs,parity_check", "--baseline", baseline)
    assert result.exit_code == 3
    assert "missing: rope, missing_duplicate_string, at length 10, 20, 30" in result.output.replace("\n", " ")
    assert "3 missing, 3 new, 3 same" in result.output


def test_a_folder_of_problems_becomes_a_baseline_by_name(
    encoder: Path, baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert command("compare", baseline, "--bless", "ours").exit_code == 0
    kept = {path.name for path in Path("results/baselines/ours").iterdir()}
    assert kept == {"che.csv", "by_string.parquet", "provenance.json", "spec.yaml", "run.json"}
    assert command("compare", baseline, "--baseline", "ours").exit_code == 0


def test_a_run_that_lacks_a_cell_becomes_no_baseline(baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(baseline, "part")
    rows = pd.read_csv("part/che.csv", dtype=str, keep_default_na=False)
    rows[rows.task == "even_pairs"].to_csv("part/che.csv", index=False)
    result = command("compare", "part", "--bless", "ours")
    assert result.exit_code == 2
    assert "part has 1 of 2 cells; run it to its end before it becomes a baseline" in result.output.replace("\n", " ")


@pytest.mark.parametrize("damage", ["by_string.parquet", "che.csv", "provenance.json"])
def test_a_damaged_folder_is_one_sentence(baseline: Path, tmp_path: Path, damage: str):
    shutil.copytree(baseline, tmp_path / "run")
    (tmp_path / "run" / damage).write_bytes(b"\x00 nothing")
    result = command("compare", tmp_path / "run", "--baseline", baseline)
    assert result.exit_code not in (0, 3)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert damage in result.output.replace("\n", "")


def test_a_released_encoder_is_known_by_its_name_wherever_the_program_lies(tmp_path: Path):
    assert scored(Path("rope"), tmp_path / "run", "--tasks", "even_pairs").exit_code == 0
    assert "models:\n- rope\n" in (tmp_path / "run" / "spec.yaml").read_text()


def test_perplexity_and_problems_have_nothing_to_compare(baseline: Path):
    result = command("compare", baseline, "--baseline", "released")
    assert result.exit_code == 2
    assert "has no row to compare with" in result.output


def test_every_released_encoder_stands_in_the_baseline_of_the_released_ones():
    held = {
        str(judged.row["model"]) for judged in judged_che_rows(Path("results/baselines/released-che"), "released-che")
    }
    assert held == {read_encoder_config(place).name for place in released_encoders().values()}


# Simulation: strings of one answer token, right or wrong.


def answered(right: np.ndarray) -> Judged:
    row = {
        "model": "rope", "task": "parity_check", "protocol": "quick", "length": 100, "stride": None,
        "metric": "accuracy", "status": "ok", "note": "",
    }  # fmt: skip
    blocks = [BlockSum(f"{at:03}", f"{at:03}", 0, float(each), 1, 0, 0) for at, each in enumerate(right)]
    settings = {"task": "", "protocol": "", "tokenizer": "", "dtype": "", "seed": ""}
    return Judged(row, blocks, settings, None, None, "baseline")


def simulated(both_ways: float, one_way: float, strings: int = 128) -> list[Verdict]:
    """200 pairs of models: one share of the strings is answered anew at random, another is wrong that was right."""
    found = []
    for seed in range(200):
        draw = np.random.default_rng([seed, 11])
        before = draw.random(strings) < 0.8
        again = np.where(draw.random(strings) < both_ways, draw.random(strings) < 0.8, before)
        after = again & ~(draw.random(strings) < one_way / again.mean())
        found += judge([answered(after)], [answered(before)], Rules())
    return found


@pytest.mark.parametrize("both_ways", [0.05, 0.2, 1.0])
def test_answers_that_change_at_random_raise_at_most_the_nominal_share_of_alarms(both_ways: float):
    found = simulated(both_ways, 0.0)
    assert sum(each.verdict == "worse" for each in found) <= 1
    assert {each.method for each in found} <= {"paired-bootstrap-strings-1000"}


def test_a_fall_of_what_a_row_says_it_can_see_is_seen():
    strings = 128
    found = simulated(0.0, 16 / strings)
    assert sum(each.verdict == "worse" for each in found) >= 0.95 * len(found)
    same = judge([answered(np.arange(strings) < 100)], [answered(np.arange(strings) < 100)], Rules())
    assert same[0].detectable * same[0].baseline == pytest.approx(16 / strings, rel=0.1)
