"""The folder of a run: what is kept, what is read back, and what is refused."""

import math
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from lpe_eval import table
from lpe_eval.errors import OutputError
from lpe_eval.report.folders.ppl import open_run, read_run
from lpe_eval.report.frames import read_csv
from lpe_eval.report.numbers.statistics import summarise
from lpe_eval.table import CellKey
from tests.support.store_runs import KEYS, SPEC, fill, measurement_of, save


def _child(directory: Path, call: str = "fill") -> subprocess.Popen:
    program = (
        f"from pathlib import Path; from tests.support.store_runs import {call}; "
        f"{call}(Path({str(directory)!r}), 'run-1')"
    )
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    fill(directory, "run-1")
    return directory


@pytest.mark.slow
def test_a_run_killed_at_random_moments_and_resumed_has_the_rows_of_one_that_was_not(undisturbed, tmp_path):
    moments = random.Random(0)
    kills, directories, seen = 0, 0, set()
    while kills < 12:
        directory = tmp_path / str(directories)
        directories += 1
        killed_here = 0
        while killed_here < 12:
            with _child(directory) as child:
                assert child.stdout is not None
                assert select.select([child.stdout], [], [], 60)[0]
                time.sleep(moments.uniform(0, 0.5))
                child.send_signal(signal.SIGKILL)
            if child.returncode != -signal.SIGKILL:
                break
            kills, killed_here = kills + 1, killed_here + 1
            cells = list((directory / "cells").glob("*.json"))
            seen.add(len(cells))
            if (directory / "rows.csv").exists():
                rows = read_csv(directory / "rows.csv", table.ROWS)
                assert len(rows) in (3 * len(cells), 3 * len(cells) - 3)
        fill(directory, "run-1")
        for name in ("rows.csv", "by_document.parquet", "by_position.parquet", "spec.yaml", "run.json"):
            assert (directory / name).read_bytes() == (undisturbed / name).read_bytes(), name
        assert not list(directory.rglob("*.partial"))
    assert len(seen) > 3


def test_a_second_process_is_refused_until_the_first_is_gone_whatever_ended_it(tmp_path):
    with open_run(tmp_path / "run", SPEC, "run-1"):
        child = _child(tmp_path / "run")
        _, stderr = child.communicate(timeout=60)
        assert child.returncode == 1
        assert b"another process is writing to" in stderr
    child = _child(tmp_path / "run", "hold")
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(OutputError, match="another process is writing"):
        open_run(tmp_path / "run", SPEC, "run-1")
    child.kill()
    child.communicate()
    open_run(tmp_path / "run", SPEC, "run-1").close()


def test_what_is_read_back_has_the_declared_types_and_full_precision(undisturbed):
    run = read_run(undisturbed)
    for frame, columns in zip(run[:4], (table.ROWS, table.COST, table.BY_DOCUMENT, table.BY_POSITION), strict=True):
        assert {name: str(kind) for name, kind in frame.dtypes.items()} == {c.name: c.kind for c in columns}
    assert run.spec == {"models": ["ours"], "lengths": [128, 256]}
    assert run.provenance == {"commit": "abc", "when": "now"}
    expected = [row for key in KEYS for row in summarise(measurement_of(key), "run-1", 1, replicates=50)]
    assert run.rows["value"].tolist() == [row["value"] for row in expected]
    assert run.rows["ci_low"].tolist() == [row["ci_low"] for row in expected]
    assert run.rows["model"].tolist() == [row["model"] for row in expected]
    assert run.rows["train_length"].isna().all()
    assert len(run.by_document) == 9 * len(KEYS)
    assert run.by_document["document"][0] == 'book "0", part'
    assert run.by_position["nll_nats"][1] == 1 / 3
    assert run.cost["tokens_per_second"][0] == pytest.approx(128000 / run.cost["seconds"][0])


def test_the_order_of_measuring_does_not_show_in_the_tables(undisturbed, tmp_path):
    with open_run(tmp_path / "run", SPEC, "run-1") as store:
        for key in random.Random(1).sample(KEYS, len(KEYS)):
            save(store, key)
        store.collect(KEYS)
    assert (tmp_path / "run" / "rows.csv").read_bytes() == (undisturbed / "rows.csv").read_bytes()


def test_missing_infinite_and_textual_values_keep_their_meaning(tmp_path):
    key = CellKey("NaN", "anchored", 128, None)
    measurement = measurement_of(key)
    rows = summarise(measurement, "run-1", 1, replicates=50)
    rows[1].update(value=math.inf, stderr=math.nan, ci_high=1e300)
    with open_run(tmp_path / "run", SPEC, "run-1") as store:
        store.save(measurement, rows)
        save(store, KEYS[0], "n/a", 'a comma, a "quote" and\na line')
        store.collect([key, KEYS[0]])
        store.write_provenance({})
    text = (tmp_path / "run" / "rows.csv").read_bytes()
    assert b"\r" not in text
    assert b",inf,," in text
    found = read_run(tmp_path / "run").rows
    assert found["value"][1] == math.inf
    assert math.isnan(found["stderr"][1])
    assert found["ci_high"][1] == 1e300
    assert pd.isna(found["stride"][0])
    assert found["model"][0] == "NaN"
    assert found["status"][3] == "n/a"
    assert found["note"][3] == 'a comma, a "quote" and\na line'
    assert found["note"][0] == ""


def test_failed_cells_are_measured_again_and_cells_without_a_value_are_not(tmp_path):
    with open_run(tmp_path / "run", SPEC, "run-1") as store:
        for key, status in zip(KEYS, ("ok", "n/a", "failed"), strict=False):
            save(store, key, status, "why")
        store.collect(KEYS)
    assert read_csv(tmp_path / "run" / "rows.csv", table.ROWS)["status"].tolist().count("failed") == 3
    with open_run(tmp_path / "run", SPEC, "run-1") as store:
        assert store.finished() == {KEYS[0], KEYS[1]}
        save(store, KEYS[2])
        store.collect(KEYS)
        assert KEYS[2] in store.finished()
    assert set(read_csv(tmp_path / "run" / "rows.csv", table.ROWS)["status"]) == {"ok", "n/a"}


@pytest.mark.parametrize("damage", ["half", "empty", "other", "null"])
def test_a_damaged_cell_counts_as_not_measured(tmp_path, damage):
    with open_run(tmp_path / "run", SPEC, "run-1") as store:
        save(store, KEYS[0])
        save(store, KEYS[1])
    victim = next(path for path in (tmp_path / "run" / "cells").iterdir() if "-256-" in path.name)
    whole = victim.read_text()
    victim.write_text({"half": whole[: len(whole) // 2], "empty": "", "other": '{"schema": 1}', "null": "[]"}[damage])
    with open_run(tmp_path / "run", SPEC, "run-1") as store:
        assert store.finished() == {KEYS[0]}


def test_keys_that_look_alike_have_files_of_their_own(tmp_path):
    long = "an/absolute/path/" * 40
    keys = [CellKey(name, "anchored", 128, None) for name in ("a/b", "a-b", "a b", long + "x", long + "y", "é")]
    with open_run(tmp_path / "run", SPEC, "run-1") as store:
        for key in keys:
            save(store, key)
    with open_run(tmp_path / "run", SPEC, "run-1") as store:
        assert store.finished() == set(keys)


def test_a_folder_with_another_run_is_refused_and_discarded_only_when_asked(tmp_path):
    with open_run(tmp_path / "run", SPEC, "run-1") as store:
        save(store, KEYS[0])
        store.collect(KEYS)
    (tmp_path / "run" / "my notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"another run \(run-1, not run-2\).*--out.*--overwrite"):
        open_run(tmp_path / "run", SPEC, "run-2")
    assert (tmp_path / "run" / "rows.csv").exists()
    with open_run(tmp_path / "run", "other: spec\n", "run-2", overwrite=True) as store:
        assert store.finished() == set()
    assert not (tmp_path / "run" / "rows.csv").exists()
    assert (tmp_path / "run" / "my notes.txt").read_text() == "mine"
    assert (tmp_path / "run" / "spec.yaml").read_text() == "other: spec\n"


def test_overwriting_the_same_run_measures_it_anew(tmp_path):
    with open_run(tmp_path / "run", SPEC, "run-1") as store:
        save(store, KEYS[0])
    with open_run(tmp_path / "run", SPEC, "run-1", overwrite=True) as store:
        assert store.finished() == set()


def test_a_folder_with_other_files_is_never_written_to(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"files that are no run \(thesis\.tex\)"):
            open_run(tmp_path, SPEC, "run-1", overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("place", ["file/run", "file"])
def test_a_place_that_cannot_be_a_folder_is_refused_at_once(tmp_path, place):
    (tmp_path / "file").write_text("a regular file")
    with pytest.raises(OutputError, match=r"cannot write to .*; choose another --out"):
        open_run(tmp_path / place, SPEC, "run-1")


def test_a_read_only_place_is_refused_at_once():
    with pytest.raises(OutputError, match=r"cannot write to /proc/.*; choose another --out"):
        open_run(Path("/proc/self/run"), SPEC, "run-1")


def test_a_folder_that_can_be_locked_and_not_filled_is_refused_at_once(tmp_path):
    (tmp_path / ".probe.partial").symlink_to("/dev/full")
    (tmp_path / "..probe.partial").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left on device"):
        open_run(tmp_path, SPEC, "run-1")


@pytest.mark.parametrize("name", ["cell", "rows.csv", "provenance.json"])
def test_a_full_disk_ends_in_one_sentence_and_what_was_saved_is_kept(tmp_path, name):
    directory = tmp_path / "run"
    with open_run(directory, SPEC, "run-1") as store:
        save(store, KEYS[1])
        saved = next((directory / "cells").iterdir())
        save(store, KEYS[0])
        store.collect(KEYS)
        before = (directory / "rows.csv").read_bytes()
        target = next(path for path in (directory / "cells").iterdir() if path != saved)
        full = target.with_name(f".{target.name}.partial") if name == "cell" else directory / f".{name}.partial"
        full.symlink_to("/dev/full")
        with pytest.raises(OutputError, match=r"No space left on device; the 2 cells saved before are kept") as caught:
            save(store, KEYS[0])
            store.collect(KEYS)
            store.write_provenance({})
        assert "\n" not in str(caught.value)
        assert str(directory) in str(caught.value)
    assert (directory / "rows.csv").read_bytes() == before
    with open_run(directory, SPEC, "run-1") as store:
        assert store.finished() == {KEYS[0], KEYS[1]}


def test_a_folder_that_is_no_run_is_not_read(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(OutputError, match="holds no run"):
            read_run(place)


@pytest.mark.parametrize(
    "name", ["rows.csv", "cost.csv", "by_document.parquet", "by_position.parquet", "provenance.json"]
)
def test_a_run_that_lacks_a_file_or_has_a_damaged_one_says_which(undisturbed, tmp_path, name):
    for path in undisturbed.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2 + 1])
    with pytest.raises(OutputError, match=rf"{name}"):
        read_run(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(OutputError, match=rf"{name} is missing"):
        read_run(tmp_path)


def test_a_run_of_another_version_is_refused(undisturbed, tmp_path):
    (tmp_path / "run.json").write_text('{"run": "x", "schema": 999}')
    with pytest.raises(OutputError, match="a newer lpe-eval"):
        read_run(tmp_path)
    with pytest.raises(OutputError, match="a newer lpe-eval"):
        open_run(tmp_path, SPEC, "x")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(OutputError, match="damaged"):
        read_run(tmp_path)


def test_a_store_without_cells_writes_tables_with_headers_alone(tmp_path):
    with open_run(tmp_path / "run", SPEC, "run-1") as store:
        store.collect(KEYS)
        store.write_provenance({"folder": tmp_path})
    run = read_run(tmp_path / "run")
    assert [len(frame) for frame in run[:4]] == [0, 0, 0, 0]
    assert run.provenance == {"folder": str(tmp_path)}
    assert not list((tmp_path / "run" / "cells").iterdir())
