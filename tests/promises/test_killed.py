"""Whatever ends a process, and whenever: what was finished is kept, and the same command goes on from there."""

import csv
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lpe_eval import table
from lpe_eval.report.folders.ppl import read_run
from lpe_eval.report.frames import read_csv
from lpe_eval.spec.fingerprint import spec_text
from tests.support.che_runs import tiny
from tests.support.native_checkpoints import checkpoint
from tests.support.warm import Warm, warm

KILLS = 20
KEPT = ("rows.csv", "by_document.parquet", "by_position.parquet", "spec.yaml", "run.json")
"""What is the same after any number of interruptions; cost and provenance tell of them."""


@pytest.fixture(scope="module")
def lpe_eval(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with warm(tmp_path_factory.mktemp("warm")) as helper:
        yield helper


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    for encoding in ("alibi", "rope", "kerple_log"):
        checkpoint(folder / encoding, encoding)
    for name in ("train", "valid", "test"):
        (folder / "text" / name).mkdir(parents=True)
        for number in range(6):
            words = " ".join(f"word{(number * 7 + each * each) % 91}" for each in range(60))
            (folder / "text" / name / f"{number}.txt").write_text(words)
    recipe = {
        "kind": "train", "name": "small", "corpus": "text", "steps": 60, "batch_tokens": 64, "warmup_steps": 5,
        "validate_every": 4, "validation_tokens": 64,
        "model": {"encoding": "alibi", "width": 16, "layers": 1, "heads": 2, "mlp_width": 32, "train_length": 16},
    }  # fmt: skip
    (folder / "train.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "tiny.yaml").write_text(spec_text(tiny(name="tiny", steps=40, check_every=4)))
    return folder


def ppl(out: str, *models: str) -> list[str]:
    chosen = [part for name in models or ("alibi", "rope") for part in ("-m", name)]
    text = ["--data", "text", "--split", "test", "--lengths", "16,32,64", "--max-tokens", "1500"]
    return ["ppl", *chosen, *text, "-q", "--out", out]


def train(out: str) -> list[str]:
    return ["run", "train.yaml", "-q", "--out", out]


def che(out: str) -> list[str]:
    what = ["--encoding", "rope,alibi", "--tasks", "even_pairs,parity_check,bucket_sort", "--protocol", "tiny.yaml"]
    return ["che", "--train", *what, "--device", "cpu", "-q", "--out", out]


@pytest.fixture(scope="module")
def undisturbed(lpe_eval: Warm, place: Path) -> float:
    """Seconds of a run that nothing disturbs; one lies in `run`, and such a training in `trained`."""
    assert lpe_eval.run(ppl("run"), place).code == 0
    assert lpe_eval.run(train("trained"), place).code == 0
    return seconds_of(lpe_eval, ppl("timed run"), place)


def seconds_of(lpe_eval: Warm, argv: list[str], place: Path) -> float:
    began = time.monotonic()
    assert lpe_eval.run(argv, place).code == 0
    return time.monotonic() - began


def killed_until_it_ends(
    lpe_eval: Warm,
    place: Path,
    argv: Callable[[str], list[str]],
    seconds: float,
    done: Callable[[Path], int],
    check: Callable[[Path], None],
    enough: int = KILLS,
) -> list[Path]:
    """Folders of which each was killed a few times; together at least `enough` times.

    Every second moment is drawn from the whole time that a run takes, of which starting and drawing are a
    large part, and every other one soon after a drawn number of further pieces is on disk.
    """
    moments = random.Random(20)
    kills, folders = 0, []
    while kills < enough:
        folder = place / f"killed {argv('x')[0]} {len(folders)}"
        folders.append(folder)
        for _ in range(8):
            started = lpe_eval.start(argv(folder.name), place)
            after = moments.uniform(0, seconds)
            if kills % 2:
                wanted, end = done(folder) + moments.randint(1, 4), time.monotonic() + seconds
                while done(folder) < wanted and time.monotonic() < end:
                    time.sleep(0.001)
                after = moments.uniform(0, 0.03)
            ended = lpe_eval.wait(started, after)
            assert ended.code in (0, -signal.SIGKILL), ended.stderr
            if ended.code == 0:
                break
            kills += 1
            check(folder)
        ended = lpe_eval.run(argv(folder.name), place)
        assert ended.code == 0, ended.stderr
        assert not list(folder.rglob("*.partial"))
    return folders


def test_a_run_killed_at_twenty_random_moments_ends_with_the_same_bytes(
    lpe_eval: Warm, place: Path, undisturbed: float
):
    whole = (place / "run" / "rows.csv").read_text().splitlines()
    seen: set[int] = set()

    def check(folder: Path) -> None:
        cells = list((folder / "cells").glob("*.json")) if folder.exists() else []
        seen.add(len(cells))
        for cell in cells:
            json.loads(cell.read_text())
        if (folder / "rows.csv").exists():
            rows = (folder / "rows.csv").read_text().splitlines()
            assert set(rows) <= set(whole)
            assert 3 * len(cells) - 3 <= len(read_csv(folder / "rows.csv", table.ROWS)) <= 3 * len(cells)
        if (folder / "provenance.json").exists():
            json.loads((folder / "provenance.json").read_text())

    def done(folder: Path) -> int:
        return len(list(folder.glob("cells/*.json")))

    for folder in killed_until_it_ends(lpe_eval, place, ppl, undisturbed, done, check):
        for name in KEPT:
            assert (folder / name).read_bytes() == (place / "run" / name).read_bytes(), name
        assert read_run(folder).provenance["run"] == read_run(place / "run").provenance["run"]
    assert len(seen) > 3, "the moments are spread over the run"


def test_a_training_killed_at_twenty_random_moments_ends_with_the_same_weights(
    lpe_eval: Warm, place: Path, undisturbed: float
):
    seconds = seconds_of(lpe_eval, train("timed training"), place)
    snapshots: set[bool] = set()

    def check(folder: Path) -> None:
        snapshots.add((folder / "training_state.pt").exists())
        if (folder / "config.yaml").exists():
            assert (folder / "model.safetensors").exists(), "a folder with a config has its weights"

    def without_seconds(folder: Path) -> list[list[str]]:
        return [row[:-1] for row in csv.reader((folder / "training.csv").read_text().splitlines())]

    def done(folder: Path) -> int:
        return len((folder / "training.csv").read_text().splitlines()) if (folder / "training.csv").exists() else 0

    for folder in killed_until_it_ends(lpe_eval, place, train, seconds, done, check):
        for name in ("model.safetensors", "config.yaml", "spec.yaml"):
            assert (folder / name).read_bytes() == (place / "trained" / name).read_bytes(), name
        assert without_seconds(folder) == without_seconds(place / "trained")
        assert {each.name for each in folder.iterdir()} == {
            "config.yaml", "model.safetensors", "spec.yaml", "training.csv", "provenance.json", "run.json",
        }  # fmt: skip
    # Whether a kill falls before the first snapshot is luck; that some fall after it is not.
    assert True in snapshots


def test_encoders_whose_training_is_killed_end_with_the_same_tables_and_weights(lpe_eval: Warm, place: Path):
    seconds = seconds_of(lpe_eval, che("problems"), place)
    whole = (place / "problems" / "che.csv").read_text().splitlines()
    cells: set[int] = set()

    def check(folder: Path) -> None:
        cells.add(done(folder))
        if (folder / "che.csv").exists():
            assert set((folder / "che.csv").read_text().splitlines()) <= set(whole)
        for config in folder.glob("checkpoints/*/config.yaml"):
            for task in yaml.safe_load(config.read_text())["tasks"]:
                assert (config.parent / f"{task}.safetensors").exists(), "what a config names is there"

    def done(folder: Path) -> int:
        return len(list(folder.glob("cells/*.json")))

    for folder in killed_until_it_ends(lpe_eval, place, che, seconds, done, check, enough=8):
        names = ["che.csv", "summary.csv", "training.csv", "by_string.parquet", "spec.yaml", "run.json"]
        names += [str(path.relative_to(place / "problems")) for path in (place / "problems").glob("checkpoints/*/*")]
        assert len(names) == 6 + 2 * (3 + 1)
        for name in names:
            assert (folder / name).read_bytes() == (place / "problems" / name).read_bytes(), name
    assert len(cells) > 1, "the moments are spread over the run"


def test_a_training_that_has_ended_is_not_run_again(lpe_eval: Warm, place: Path, undisturbed: float):
    before = (place / "trained" / "provenance.json").stat().st_mtime_ns
    ended = lpe_eval.run(train("trained"), place)
    assert ended.code == 0
    assert "checkpoint: trained" in ended.stderr
    assert (place / "trained" / "provenance.json").stat().st_mtime_ns == before


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
