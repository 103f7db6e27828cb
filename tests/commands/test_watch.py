"""Checkpoints that appear while somebody watches: each measured once, when it is whole."""

import csv
import shutil
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.commands.watch import checkpoints, stamp_of, step_of
from tests.support.native_checkpoints import checkpoint
from tests.support.small_ppl import TEXT

FLAGS = ["--data", "text.txt", "--lengths", "16,32", "--max-tokens", "300", "--protocol", "nonoverlap", "-q"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "runs").mkdir()
    return tmp_path


def watched(*more: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["watch", "runs", *FLAGS, "--out", "out", "--every", "0.05", *more])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def lines(place: Path) -> list[dict[str, str]]:
    with (place / "out" / "steps.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("name", "step"),
    [("step-2000", 2000), ("checkpoint-500", 500), ("00010000", 10000), ("v2-step7", 7), ("final", None)],
)
def test_the_step_is_the_last_number_of_a_name(name: str, step: int | None):
    assert step_of(name) == step


def test_checkpoints_stand_in_the_order_of_their_steps_and_what_is_none_is_passed_over(place: Path):
    for step in (1000, 20, 300):
        checkpoint(place / "runs" / f"step-{step}")
    (place / "runs" / "logs").mkdir()
    (place / "runs" / "step-4000").mkdir()
    assert [path.name for path in checkpoints(place / "runs")] == ["step-20", "step-300", "step-1000"]
    assert stamp_of(place / "runs" / "step-20") is not None
    (place / "runs" / "step-20" / "model.safetensors.tmp").write_bytes(b"")
    assert stamp_of(place / "runs" / "step-20") is None, "somebody writes to it"


def test_each_checkpoint_is_measured_once_and_rows_carry_its_step(place: Path):
    for step, seed in ((20, 0), (3, 1)):
        checkpoint(place / "runs" / f"step-{step}", seed=seed)
    watched("--once")
    found = lines(place)
    assert [int(row["step"]) for row in found] == [3] * 6 + [20] * 6
    with (place / "out" / "step-20" / "rows.csv").open(newline="") as file:
        assert [{"step": "20", **row} for row in csv.DictReader(file)] == found[6:]
    assert (place / "out" / "figures" / "steps.png").exists()
    # What was measured is not opened again, even where it is gone or another one by now.
    before = {path: path.stat().st_mtime_ns for path in (place / "out").glob("step-*/**/*")}
    shutil.copy(place / "runs" / "step-3" / "model.safetensors", place / "runs" / "step-20" / "model.safetensors")
    watched("--once")
    assert before == {path: path.stat().st_mtime_ns for path in (place / "out").glob("step-*/**/*")}


def test_a_checkpoint_that_is_being_written_waits_until_it_is_whole(place: Path):
    whole = checkpoint(place / "elsewhere")
    target = place / "runs" / "step-8"

    def write_slowly() -> None:
        target.mkdir()
        (target / "config.yaml").write_bytes((whole / "config.yaml").read_bytes())
        content = (whole / "model.safetensors").read_bytes()
        with (target / "model.safetensors").open("wb") as file:
            for at in range(0, len(content), len(content) // 12):
                file.write(content[at : at + len(content) // 12])
                file.flush()
                time.sleep(0.02)

    writing = threading.Thread(target=write_slowly)
    writing.start()
    watched("--last-step", "8")
    writing.join()
    assert {row["status"] for row in lines(place)} == {"ok"}


def test_flags_that_watching_gives_itself_are_refused(place: Path):
    assert "-m is not given" in watched("-m", "alibi", "--once", code=2)
    assert "no folder" in CliRunner().invoke(app, ["watch", "nowhere", "--once"]).output
