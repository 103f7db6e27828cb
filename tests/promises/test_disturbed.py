"""Runs that are interrupted, shared, or robbed of files: what was finished is kept, or a sentence says why not."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lpe_eval.report.folders.ppl import read_run
from tests.support.runs_to_end import furnished, ppl, run_undisturbed, train
from tests.support.warm import Warm, warm

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lpe_eval(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with warm(tmp_path_factory.mktemp("warm")) as helper:
        yield helper


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def undisturbed(lpe_eval: Warm, place: Path) -> float:
    return run_undisturbed(lpe_eval, place)


def until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.005)


def has_cells(folder: Path, count: int = 2) -> Callable[[], bool]:
    return lambda: len(list(folder.glob("cells/*.json"))) >= count


def test_ctrl_c_keeps_what_is_done_and_exits_with_130(lpe_eval: Warm, place: Path, undisturbed: float):
    for argv, out, done in (
        (ppl, "interrupted", has_cells(place / "interrupted")),
        (train, "stopped", (place / "stopped" / "training_state.pt").exists),
    ):
        started = lpe_eval.start(argv(out), place)
        until(done)
        os.kill(started.pid, signal.SIGINT)
        ended = lpe_eval.wait(started)
        assert ended.code == 130, ended.stderr
        assert ended.stderr == (
            "error: interrupted; what was finished is kept, and the same command goes on from there\n"
        )
        assert done()
        assert lpe_eval.run(argv(out), place).code == 0
    assert (place / "interrupted" / "rows.csv").read_bytes() == (place / "run" / "rows.csv").read_bytes()
    weights = "model.safetensors"
    assert (place / "stopped" / weights).read_bytes() == (place / "trained" / weights).read_bytes()


def test_a_second_process_on_the_same_folder_is_refused_and_the_first_goes_on(
    lpe_eval: Warm, place: Path, undisturbed: float
):
    for argv, out, done in (
        (ppl, "shared", has_cells(place / "shared")),
        (train, "shared training", (place / "shared training" / "training_state.pt").exists),
    ):
        first = lpe_eval.start(argv(out), place)
        until(done)
        os.kill(first.pid, signal.SIGSTOP)
        second = lpe_eval.run(argv(out), place)
        over = lpe_eval.run([*argv(out), "--overwrite"], place)
        os.kill(first.pid, signal.SIGCONT)
        assert lpe_eval.wait(first).code == 0
        for refused in (second, over):
            assert refused.code == 1
            assert refused.stderr == (
                f"error: another process is writing to {out}; wait until it ends or choose another --out\n"
            )
    assert (place / "shared" / "rows.csv").read_bytes() == (place / "run" / "rows.csv").read_bytes()
    weights = "model.safetensors"
    assert (place / "shared training" / weights).read_bytes() == (place / "trained" / weights).read_bytes()


def test_a_checkpoint_deleted_while_another_is_measured_has_failed_cells_and_the_others_values(
    lpe_eval: Warm, place: Path, undisturbed: float
):
    shutil.copytree(place / "rope", place / "doomed")
    argv = ppl("bereft", "alibi", "doomed=doomed", "kerple_log")
    started = lpe_eval.start(argv, place)
    until(has_cells(place / "bereft", 1))
    os.kill(started.pid, signal.SIGSTOP)
    shutil.rmtree(place / "doomed")
    os.kill(started.pid, signal.SIGCONT)
    ended = lpe_eval.wait(started)
    assert ended.code == 4
    assert "doomed is not a native checkpoint: config.yaml is missing" in " ".join(ended.stdout.split())
    assert ended.stderr.splitlines()[-1].startswith("error: 6 of the cells have no value")
    rows = read_run(place / "bereft").rows
    assert {name: set(found.status) for name, found in rows.groupby("model")} == {
        "alibi": {"ok"}, "doomed": {"failed"}, "kerple_log": {"ok"},
    }  # fmt: skip
    shutil.copytree(place / "rope", place / "doomed")
    assert lpe_eval.run(argv, place).code == 0, "cells that failed are measured again"
    assert set(read_run(place / "bereft").rows.status) == {"ok"}


def test_results_deleted_while_they_are_made_end_in_one_sentence(lpe_eval: Warm, place: Path, undisturbed: float):
    for argv, out, done in (
        (ppl, "gone", has_cells(place / "gone")),
        (train, "gone training", (place / "gone training" / "training_state.pt").exists),
    ):
        started = lpe_eval.start(argv(out), place)
        until(done)
        os.kill(started.pid, signal.SIGSTOP)
        shutil.rmtree(place / out)
        os.kill(started.pid, signal.SIGCONT)
        ended = lpe_eval.wait(started)
        assert ended.code == 1
        (sentence,) = ended.stderr.splitlines()
        assert sentence.startswith(f"error: cannot write {out}/")
        assert "No such file or directory" in sentence
