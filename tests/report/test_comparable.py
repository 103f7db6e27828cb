"""A run that can never be compared with its baseline is refused before a weight is read."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.measure import problem_rows
from lpe_eval.model.checkpoint import Located
from lpe_eval.report.gate.comparable import item_row, refuse_incomparable
from lpe_eval.spec.released import released_encoders
from lpe_eval.table import Facts
from tests.support.native_checkpoints import checkpoint

PPL = {"--data": "text", "--lengths": "16,32", "--max-tokens": "900", "--protocol": "nonoverlap", "--dtype": "float32"}
CHE = {"--tasks": "even_pairs,parity_check", "--lengths": "10,20", "--samples": "8", "--device": "cpu"}


def command(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "400"})
    assert result.exit_code == code, result.output + repr(result.exception)
    return " ".join(result.output.split())


def flags(usual: dict[str, str], changes: dict[str, str]) -> list[str]:
    return [part for name, value in {**usual, **changes}.items() if value for part in (name, value)]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two models, two texts, and the baselines `mine` and `rope`."""
    root = tmp_path_factory.mktemp("measured")
    for name in ("tiny", "strange"):
        checkpoint(root / name)
    for folder, word in (("text", "word"), ("elsewhere", "other")):
        (root / folder).mkdir()
        for number in range(6):
            words = " ".join(f"{word}{(number * 7 + each * each) % 91}" for each in range(60))
            (root / folder / f"{number}.txt").write_text(words)
    shutil.copytree(released_encoders()["rope"], root / "rope")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        command("ppl", "-m", "tiny", *flags(PPL, {}), "-q", "--out", "run")
        command("compare", "run", "--bless", "mine")
        command("che", "-m", "./rope", *flags(CHE, {}), "-q", "--out", "scored")
        command("compare", "scored", "--bless", "rope")
    return root


@pytest.fixture
def unread(measured: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the current directory; whoever loads weights there fails the test."""

    def loaded(*_: object, **__: object) -> None:
        pytest.fail("weights were loaded")

    monkeypatch.setattr(Located, "load", loaded)
    monkeypatch.setattr(problem_rows, "load_encoder", loaded)
    monkeypatch.chdir(measured)
    return measured


@pytest.mark.parametrize(
    ("model", "changes", "told"),
    [
        ("tiny", {"--lengths": "8,64"}, "lengths: 8, 64; in the baseline 16, 32"),
        ("strange", {}, "models: strange; in the baseline tiny"),
        ("tiny", {"--protocol": "last"}, "in the baseline nonoverlap, bos"),
        ("tiny", {"--dtype": "bfloat16"}, "dtype is bfloat16, in the baseline float32"),
        ("tiny", {"--seed": "5"}, "seed is 5, in the baseline 0"),
        ("tiny", {"--data": "elsewhere"}, "none of the documents is one of the baseline's"),
        ("tiny", {"--data": "", "--task": "python-stdlib"}, "task is python-stdlib, version"),
    ],
    ids=str,
)
def test_text_that_can_never_be_compared_is_refused_at_once(unread: Path, model: str, changes: dict, told: str):
    found = command("ppl", "-m", model, *flags(PPL, changes), "-q", "--out", "new", "--baseline", "mine", code=2)
    assert "nothing was measured, since no row could be compared with mine: " in found and told in found
    assert not (unread / "new").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"--tasks": "cycle_navigation"}, "problems: cycle_navigation; in the baseline even_pairs, parity_check"),
        ({"--lengths": "30"}, "lengths: 30; in the baseline 10, 20"),
        ({"--seed": "7"}, "none of the strings is one of the baseline's; give its --samples and --seed"),
        ({"--samples": "9"}, "none of the strings is one of the baseline's; give its --samples and --seed"),
    ],
    ids=str,
)
def test_problems_that_can_never_be_compared_are_refused_at_once(unread: Path, changes: dict, told: str):
    found = command("che", "-m", "./rope", *flags(CHE, changes), "-q", "--out", "new", "--baseline", "rope", code=2)
    assert told in found
    assert not (unread / "new").exists()


def test_text_is_not_compared_with_problems(unread: Path):
    told = command("ppl", "-m", "tiny", *flags(PPL, {}), "-q", "--out", "new", "--baseline", "rope", code=2)
    assert "what is measured: nll_nats; in the baseline accuracy" in told


def test_a_run_of_which_some_rows_can_be_compared_is_measured(measured: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(measured)
    more = flags(PPL, {"--lengths": "16,64", "--protocol": "nonoverlap,last"})
    told = command("ppl", "-m", "tiny", "-m", "strange", *more, "-q", "--out", "more", "--baseline", "mine", code=3)
    assert "missing: tiny, nonoverlap, at length 32" in told
    command("ppl", "-m", "tiny", *flags(PPL, {}), "-q", "--out", "same", "--baseline", "mine")
    command("che", "-m", "./rope", *flags(CHE, {}), "-q", "--out", "same problems", "--baseline", "rope")


def test_a_kind_without_tables_of_its_own_is_told_by_its_settings():
    common = Facts("", None, "guesses", 1, "text", "", 0, "float32", "cpu")
    there = item_row("tiny", 16, "accuracy", common, {}).judged
    refuse_incomparable({"mine": [there]}, [item_row("tiny", 16, "accuracy", common, {})])
    refuse_incomparable({}, [item_row("tiny", 16, "accuracy", common, {})])
