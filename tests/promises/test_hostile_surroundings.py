"""Full disks, closed terminals, no network and no home: each ends in one sentence, or does not matter."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lpe_eval.report.folders.ppl import read_run
from tests.support.hostile_inputs.row import corpus, furnished, table, train
from tests.support.small_ppl import TEXT, ppl
from tests.support.warm import Warm, warm

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def lpe_eval(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with warm(tmp_path_factory.mktemp("warm")) as helper:
        yield helper


@pytest.fixture
def there(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def aloud(argv: list[str]) -> list[str]:
    return [each for each in argv if each != "-q"]


def test_a_full_disk_ends_in_one_sentence_and_the_same_command_goes_on(there: Path, lpe_eval: Warm):
    # A figure has some 40 kilobytes and a cell a few, so the cells fit and the figures do not.
    full = lpe_eval.run(ppl(), there, largest_file=16384)
    assert full.code == 1
    (sentence,) = full.stderr.splitlines()
    assert sentence.startswith("error: cannot write ") and "File too large" in sentence
    assert len(list((there / "out" / "cells").iterdir())) == 2
    assert not list((there / "out").rglob("*.partial"))
    rest = lpe_eval.run(aloud(ppl()), there)
    assert rest.code == 0
    assert "out already holds 2 of 2 cells; they are not measured again" in rest.stderr
    assert (there / "out" / "rows.csv").read_bytes() == (there / "finished" / "rows.csv").read_bytes()


def test_a_training_on_a_full_disk_ends_in_one_sentence(there: Path, lpe_eval: Warm):
    corpus()
    full = lpe_eval.run(train(), there, largest_file=8192)
    assert full.code == 1
    (sentence,) = full.stderr.splitlines()
    assert sentence.startswith("error: cannot write a checkpoint to new: ")
    assert not list((there / "new").rglob("*.partial"))
    assert lpe_eval.run(train(), there).code == 0
    assert (there / "new" / "model.safetensors").exists()


def test_a_full_place_behind_the_terminal_is_one_sentence(there: Path, lpe_eval: Warm):
    done = lpe_eval.run(["list", "encodings"], there, stdout="/dev/full")
    assert done.code == 1
    assert done.stderr == "error: cannot write to the terminal or to where it is sent: No space left on device\n"


def test_a_terminal_that_knows_only_ascii_shows_escapes(there: Path, lpe_eval: Warm):
    done = lpe_eval.run(ppl(m="🐍=tiny"), there, encoding="ascii")
    assert done.code == 0, done.stderr
    assert "\\U0001f40d" in done.stdout
    assert read_run(there / "out").rows.model[0] == "🐍"


def test_a_closed_terminal_is_no_obstacle(there: Path, lpe_eval: Warm):
    assert lpe_eval.run(aloud(ppl()), there, closed=True).code == 0
    assert len(read_run(there / "out").rows) == 6


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (ppl(data="hub:some/text"), "error: hub:some/text (split test) cannot be loaded"),
        (ppl(m="hf:some/model"), "error: hf:some/model is neither a local folder, nor in the cache"),
        (ppl("--tokenizer", "hf:some/model"), "error: the tokenizer hf:some/model cannot be loaded"),
    ],
)
def test_a_name_on_the_hub_without_a_network_is_one_sentence(
    there: Path, lpe_eval: Warm, argv: list[str], sentence: str
):
    done = lpe_eval.run(argv, there)
    assert done.code == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(sentence)


def test_no_place_for_caches_and_temporary_files_is_no_obstacle(there: Path):
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "HF_HOME", "MPLCONFIGDIR"), "/proc/nowhere")
    table("a.parquet", {"text": [TEXT]})
    code = f"import sys; from lpe_eval.cli import main; sys.argv[1:] = {ppl(data='a.parquet')!r}; main()"
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "PYTHONPATH": root, **nowhere},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
