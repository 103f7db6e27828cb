"""Baselines are found by name alone, and appear whole or not at all: in races, after kills, with and without the one
step in which two folders change places."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.report.folders import atomic
from lpe_eval.report.folders.atomic import exchange, put_back, write_folder
from tests.support.native_checkpoints import checkpoint
from tests.support.warm import Warm, warm

pytestmark = pytest.mark.slow

RUNS = ("first", "second", "third")
BASELINES = Path("results/baselines")


def command(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "400"})
    assert result.exit_code == code, result.output + repr(result.exception)
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with three runs of different weights on the same text."""
    root = tmp_path_factory.mktemp("measured")
    (root / "text").mkdir()
    for number in range(12):
        words = " ".join(f"word{(number * 7 + each * each) % 91}" for each in range(60))
        (root / "text" / f"{number:02}.txt").write_text(words)
    for seed, run in enumerate(RUNS):
        model = checkpoint(root / "models" / str(seed) / "tiny", seed=seed)
        flags = ("--data", root / "text", "--lengths", "16,32", "--protocol", "nonoverlap", "--max-tokens", 900)
        command("ppl", "-m", model, *flags, "--out", root / run, "-q")
    return root


@pytest.fixture
def here(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current directory."""
    shutil.copytree(measured, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def lpe_eval(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with warm(tmp_path_factory.mktemp("warm")) as helper:
        yield helper


# A name is a baseline, a path is a folder


def test_a_folder_never_stands_in_for_the_baseline_of_its_name(here: Path):
    command("compare", "first", "--bless", "mine")
    shutil.copytree("second", "mine")
    assert "2 same" in command("compare", "first", "--baseline", "mine")
    assert "2 same" in command("compare", "second", "--baseline", "./mine")
    # The folder holds other weights, so that what was compared with can be told.
    assert "0.00 ± 0.00" in command("compare", "first", "--baseline", "mine")
    assert "0.00 ± 0.00" not in CliRunner().invoke(app, ["compare", "first", "--baseline", "./mine"]).output


def test_ppl_and_che_take_no_folder_for_a_baseline_either(here: Path):
    told = "there is no baseline named 'second'; for the folder of that name write ./second"
    for argv in (("compare", "first"), ("ppl", "-m", "alibi", "--out", "new"), ("che", "--out", "new")):
        assert told in command(*argv, "--baseline", "second", code=2)
    assert not (here / "new").exists(), "told before anything is measured"


def test_a_folder_without_a_run_is_not_offered(here: Path):
    (here / "model").mkdir()
    told = "there is no baseline named 'model'; make one with lpe-eval compare RUN --bless model"
    assert told in command("compare", "first", "--baseline", "model", code=2)


def test_a_path_has_a_slash_or_is_a_dot_or_begins_at_home(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(here))
    (here / "below").mkdir()
    for path in ("./first", "~/first", str(here / "first"), "below/../first", "first/"):
        assert "2 same" in command("compare", "first", "--baseline", path)
    monkeypatch.chdir(here / "first")
    assert "2 same" in command("compare", here / "first", "--baseline", ".")
    monkeypatch.chdir(here / "below")
    assert "2 same" in command("compare", here / "first", "--baseline", "../first")
    assert ".. holds no run" in command("compare", here / "first", "--baseline", "..", code=1)
    assert "there is no folder nowhere/mine" in command("compare", "../first", "--baseline", "nowhere/mine", code=2)


# Races


def content(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def blessed(here: Path, run: str) -> dict[str, bytes]:
    """What a baseline of the run holds."""
    command("compare", run, "--bless", "reference", "--overwrite")
    found = content(here / BASELINES / "reference")
    shutil.rmtree(here / BASELINES)
    return found


def race(lpe_eval: Warm, here: Path, rounds: int) -> None:
    whole = {run: blessed(here, run) for run in RUNS}
    assert len({each["rows.csv"] for each in whole.values()}) == len(RUNS)
    for number in range(rounds):
        name = f"mine-{number}"
        for more in ([], ["--overwrite"]):
            started = [lpe_eval.start(["compare", run, "--bless", name, *more], here) for run in RUNS]
            ended = dict(zip(RUNS, [lpe_eval.wait(each) for each in started], strict=True))
            found = content(here / BASELINES / name)
            if more:
                assert {each.code for each in ended.values()} == {0}, ended
                assert found in whole.values()
            else:
                winners = [run for run, each in ended.items() if each.code == 0]
                assert len(winners) == 1 and found == whole[winners[0]], ended
                for run in set(RUNS) - set(winners):
                    assert ended[run].code == 2
                    assert f"there is a baseline {BASELINES / name}" in " ".join(ended[run].stderr.split())
    assert sorted(each.name for each in (here / BASELINES).iterdir()) == sorted(f"mine-{n}" for n in range(rounds))


def test_of_processes_that_bless_one_name_one_wins_and_the_baseline_is_whole(lpe_eval: Warm, here: Path):
    race(lpe_eval, here, 4)


@pytest.mark.slow
def test_twenty_five_rounds_of_three_processes_that_bless_one_name(lpe_eval: Warm, here: Path):
    race(lpe_eval, here, 25)


# Kills


def killed(lpe_eval: Warm, here: Path, kills: int) -> None:
    whole = {run: blessed(here, run) for run in RUNS[:2]}
    command("compare", "first", "--bless", "mine")
    began = time.monotonic()
    assert lpe_eval.run(["compare", "second", "--bless", "mine", "--overwrite"], here).code == 0
    seconds, moments, done, number = time.monotonic() - began, random.Random(16), 0, 0
    while done < kills:
        run, number = RUNS[number % 2], number + 1
        started = lpe_eval.start(["compare", run, "--bless", "mine", "--overwrite"], here)
        ended = lpe_eval.wait(started, moments.uniform(0.3, 1.1) * seconds)
        assert ended.code in (0, -signal.SIGKILL), ended.stderr
        done += ended.code != 0
        assert content(here / BASELINES / "mine") in whole.values()
        assert ended.code or content(here / BASELINES / "mine") == whole[run]
    command("compare", "first", "--bless", "mine", "--overwrite")
    assert content(here / BASELINES / "mine") == whole["first"]
    assert [each.name for each in (here / BASELINES).iterdir()] == ["mine"], "leftovers are removed"


def test_a_baseline_whose_replacement_is_killed_is_the_old_or_the_new_one(lpe_eval: Warm, here: Path):
    killed(lpe_eval, here, 5)


@pytest.mark.slow
def test_twenty_kills_of_replacements_leave_a_whole_baseline(lpe_eval: Warm, here: Path):
    killed(lpe_eval, here, 20)


WRITER = """
    import errno, itertools, sys
    from pathlib import Path
    from lpe_eval.report.folders import atomic

    if sys.argv[2] == "without the step":
        def refuse(one, other):
            raise OSError(errno.EINVAL, "no such step")
        atomic.exchange = refuse

    def fill(letter):
        def write(folder):
            for name in "abcdef":
                (folder / name).write_text(letter * 20000)
        return write

    for number in itertools.count():
        atomic.write_folder(Path(sys.argv[1]), fill("xy"[number % 2]), True)
        print(number, flush=True)
"""


@pytest.mark.parametrize("how", ["with the step", "without the step"])
def test_a_folder_that_is_replaced_without_pause_survives_every_kill_whole(tmp_path: Path, how: str):
    target, moments = tmp_path / "target", random.Random(7)
    asides = 0
    for _ in range(8):
        argv = [sys.executable, "-c", textwrap.dedent(WRITER), str(target), how]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "0\n", "a killed writer does not stop the next one"
            time.sleep(moments.uniform(0, 0.05))
            writer.kill()
        asides += not target.exists()
        put_back(target)
        texts = {each.name: each.read_text() for each in target.iterdir()}
        assert sorted(texts) == list("abcdef") and len(set(texts.values())) == 1
        assert len(texts["a"]) == 20000
    write_folder(target, lambda folder: (folder / "last").touch(), True)
    assert [each.name for each in tmp_path.iterdir()] == ["target"]
    assert how == "without the step" or asides == 0


def test_what_a_kill_between_the_two_renames_leaves_is_put_back_by_whoever_looks(here: Path):
    command("compare", "first", "--bless", "mine")
    aside = here / BASELINES / ".mine.aside"
    (here / BASELINES / "mine").rename(aside)
    assert "2 same" in command("compare", "first", "--baseline", "mine")
    assert [each.name for each in (here / BASELINES).iterdir()] == ["mine"]
    (here / BASELINES / "mine").rename(aside)
    assert "there is a baseline" in command("compare", "second", "--bless", "mine", code=2)
    (here / BASELINES / "mine").rename(aside)
    command("compare", "second", "--bless", "mine", "--overwrite")
    assert [each.name for each in (here / BASELINES).iterdir()] == ["mine"]
    # Killed after both renames: the new one stands, and the old one goes with the next bless.
    shutil.copytree(here / BASELINES / "mine", aside)
    command("compare", "first", "--bless", "mine", "--overwrite")
    assert [each.name for each in (here / BASELINES).iterdir()] == ["mine"]


def test_leftovers_are_removed_once_nobody_holds_them(tmp_path: Path):
    left, other = tmp_path / ".mine.1-0123abcd.partial", tmp_path / ".mine.b.1-0123abcd.partial"
    for folder in (left, other):
        folder.mkdir()
        (folder / "file").touch()
    held = atomic._held(left)
    assert held is not None
    write_folder(tmp_path / "mine", lambda folder: (folder / "a").touch(), False)
    assert left.exists(), "somebody is at work there"
    os.close(held)
    write_folder(tmp_path / "mine", lambda folder: (folder / "b").touch(), True)
    assert sorted(each.name for each in tmp_path.iterdir()) == [".mine.b.1-0123abcd.partial", "mine"]
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["b"]


def test_a_folder_that_cannot_be_filled_or_placed_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = tmp_path / "mine"
    write_folder(target, lambda folder: (folder / "a").write_text("old"), False)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_folder(target, full, True)
    with pytest.raises(FileExistsError):
        write_folder(target, lambda folder: (folder / "a").write_text("new"), False)
    monkeypatch.setattr(atomic, "exchange", full)
    with pytest.raises(OSError, match="No space"):
        write_folder(target, lambda folder: (folder / "a").write_text("new"), True)
    assert [each.name for each in tmp_path.iterdir()] == ["mine"] and (target / "a").read_text() == "old"


def test_two_folders_change_places_in_one_step_on_this_kernel(tmp_path: Path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "other").exists() and (tmp_path / "other" / "one").exists()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "one", tmp_path / "nowhere")
