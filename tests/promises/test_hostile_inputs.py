"""A table of hostile and careless inputs: each ends in one sentence and its exit code, or simply works."""

import shutil
import time
import tracemalloc
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.report.folders.ppl import read_run
from tests.support.hostile_inputs import of_checkpoints, of_results, of_text, of_training
from tests.support.hostile_inputs.row import BOMB, Row, furnished, put
from tests.support.small_ppl import ppl

ROWS = [*of_text.ROWS, *of_results.ROWS, *of_checkpoints.ROWS, *of_training.ROWS]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("place"))


def said(output: str) -> str:
    return " ".join(output.replace("│", " ").replace("─", " ").split())


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_hostile_or_careless_input(row: Row, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    row.before()
    began = time.monotonic()
    result = CliRunner().invoke(app, row.argv)
    assert result.exit_code == row.code, result.output + repr(result.exception)
    assert row.sentence in said(result.output)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert time.monotonic() - began < 60
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) <= 1
    if errors:
        assert result.stderr.rstrip().splitlines()[-1] == errors[0], "the sentence is one line, and the last"


def test_the_table_has_no_two_rows_alike_and_is_long_enough():
    assert len({row.name for row in ROWS}) == len(ROWS) >= 60


def test_models_that_can_be_opened_are_measured_beside_one_that_cannot(place: Path, tmp_path: Path, monkeypatch):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    shutil.copytree("tiny", "broken")
    put("broken/model.safetensors", b"")
    result = CliRunner().invoke(app, ppl("-m", "other=broken", "-m", "last=tiny"))
    assert result.exit_code == 4, result.output
    rows = read_run(tmp_path / "out").rows
    assert {name: set(found.status) for name, found in rows.groupby("model")} == {
        "tiny": {"ok"}, "other": {"failed"}, "last": {"ok"},
    }  # fmt: skip
    again = CliRunner().invoke(app, ppl("-m", "other=broken", "-m", "last=tiny"))
    assert "already holds 4 of 6 cells" not in again.output, "quiet means quiet"
    assert again.exit_code == 4
    shutil.copy("tiny/model.safetensors", "broken/model.safetensors")
    mended = CliRunner().invoke(app, ppl("-m", "other=broken", "-m", "last=tiny", out="mended"))
    assert mended.exit_code == 0, mended.output


def test_a_yaml_bomb_costs_neither_time_nor_memory(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    put("a.yaml", BOMB)
    tracemalloc.start()
    began = time.monotonic()
    assert CliRunner().invoke(app, ["run", "a.yaml"]).exit_code == 2
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - began < 10
    assert peak < 2**27
