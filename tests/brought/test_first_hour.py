"""What somebody meets in the first hour. What each case did before, and what it does.

Numbers are those of the faults F; those of other files of this folder are not repeated here.
"""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.report.folders.ppl import read_run
from tests.support.native_checkpoints import checkpoint

TEXT = "hello world, hello moon. " * 60


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    for step in (1, 2):
        checkpoint(tmp_path / "steps" / f"step{step}", "learned", seed=step, train_length=16)
    return tmp_path


def said(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


PPL = ("ppl", "--data", "text.txt", "--max-tokens", "400", "--protocol", "nonoverlap", "--out", "out")


def test_f15_a_pattern_in_quotes_is_every_checkpoint_that_it_matches(there: Path):
    """Before: taken for a model of the Hub."""
    said(*PPL, "-m", "steps/*", "--lengths", "16", "-q")
    assert list(dict.fromkeys(read_run(there / "out").rows.model)) == ["step1", "step2"]
    assert "-m steps/none*: no file or folder here matches" in said(*PPL, "-m", "steps/none*", code=2)


def test_f15_a_run_without_a_value_names_no_figure(there: Path):
    """Before: a figure of nothing was drawn and named."""
    assert "figure" not in said(*PPL, "-m", "steps/step1", "--lengths", "64")
    assert not (there / "out" / "figures").exists()


def test_f15_one_document_is_one(there: Path):
    """Before: "1 documents"."""
    assert "in 1 document for each value" in said(*PPL, "-m", "steps/step1", "--lengths", "16")


def test_f15_quiet_is_quiet(there: Path):
    """Before: notes were printed all the same."""
    assert "note" not in said(*PPL, "-m", "steps/step1", "--lengths", "16", "-q")
