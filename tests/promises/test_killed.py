"""Whatever moment a process is killed at: what was finished is kept, and the same command goes on from there."""

import csv
import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lpe_eval import table
from lpe_eval.report.folders.ppl import read_run
from lpe_eval.report.frames import read_csv
from tests.support.runs_to_end import che, furnished, ppl, recall, run_undisturbed, seconds_of, train
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
    return furnished(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def undisturbed(lpe_eval: Warm, place: Path) -> float:
    return run_undisturbed(lpe_eval, place)


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_recall_that_is_killed_ends_with_the_same_bytes(lpe_eval: Warm, place: Path):
    seconds = seconds_of(lpe_eval, recall("recalled"), place)
    whole = (place / "recalled" / "recall.csv").read_text().splitlines()
    seen: set[int] = set()

    def check(folder: Path) -> None:
        seen.add(done(folder))
        if (folder / "recall.csv").exists():
            assert set((folder / "recall.csv").read_text().splitlines()) <= set(whole)

    def done(folder: Path) -> int:
        return len(list(folder.glob("cells/*.json")))

    for folder in killed_until_it_ends(lpe_eval, place, recall, seconds, done, check, enough=8):
        for name in ("recall.csv", "effective_length.csv", "by_item.parquet", "spec.yaml", "run.json"):
            assert (folder / name).read_bytes() == (place / "recalled" / name).read_bytes(), name
    assert len(seen) > 1, "the moments are spread over the run"


@pytest.mark.slow
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


@pytest.mark.slow
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
    ended = lpe_eval.run([each for each in train("trained") if each not in ("-q", "--quiet")], place)
    assert ended.code == 0
    assert "checkpoint: trained" in ended.stderr
    assert (place / "trained" / "provenance.json").stat().st_mtime_ns == before
