"""Results in object storage: the bytes of a local run, whole files, and a connection that breaks."""

from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import lpe_eval.measure.parts as cutting
from lpe_eval.addresses import address_of
from tests.support.runs_to_end import furnished, ppl
from tests.support.stored_runs import server_of_s3, told

PPL = ("rows.csv", "by_document.parquet", "by_position.parquet", "spec.yaml", "run.json")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(furnished(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cutting, "PART_WORK", 1500)
    return tmp_path


def small(out: str, *more: str) -> list[str]:
    return [*ppl(out, "alibi"), "--lengths", "32", *more]


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("s3://bucket/a b/c", "s3://bucket/a b/c"), ("s3:/bucket/c/", "s3://bucket/c"), ("memory://x", "memory://x"),
        ("results/runs/x", None), ("/tmp/x", None), ("C:/x", None), ("C:\\x", None), ("a:b", None), (None, None),
        ("./s3:/x", None), ("file:///tmp/x", None),
    ],
)  # fmt: skip
def test_an_address_is_told_from_a_path(typed: str | None, address: str | None):
    assert address_of(typed) == address
    if typed is not None and "\\" not in typed and not typed.startswith("."):
        assert address_of(Path(typed)) == address


def test_a_run_in_storage_has_the_bytes_of_a_local_one(place: Path, memory: MemoryFileSystem):
    told(small("whole"))
    told(small("memory://runs/one"))
    for name in PPL:
        assert memory.cat_file(f"/runs/one/{name}") == (place / "whole" / name).read_bytes(), name
    names = {str(each).removeprefix("/runs/one/") for each in memory.find("/runs/one")}
    assert names == {
        path.relative_to(place / "whole").as_posix() for path in (place / "whole").rglob("*") if path.is_file()
    }
    # Another machine finds what is there, and measures nothing again.
    for path in sorted((place / "cache").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    before = {name: memory.cat_file(f"/runs/one/{name}") for name in names if name.startswith("cells/")}
    assert "already holds 2 of 2 cells" in told([each for each in small("memory://runs/one") if each != "-q"])
    assert before == {name: memory.cat_file(f"/runs/one/{name}") for name in before}


def test_a_connection_that_breaks_is_one_sentence_and_the_same_command_goes_on(
    place: Path, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
):
    told(small("whole"))

    class Broken(MemoryFileSystem):
        protocol, left = "broken", 3

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **more: Any) -> None:
            if Broken.left == 0:
                raise ConnectionResetError(104, "Connection reset by peer")
            Broken.left -= 1
            return super().pipe_file(path, value, mode, **more)

    fsspec.register_implementation("broken", Broken, clobber=True)
    monkeypatch.setattr("lpe_eval.storage._TRIES", (0.01,))
    said = told(small("broken://runs/cut"), code=1)
    assert "Connection reset" in said and "goes on from there" in said and said.count("error:") == 1
    Broken.left = -1
    told(small("broken://runs/cut"))
    files, root = fsspec.url_to_fs("broken://runs/cut")
    for name in PPL:
        assert files.cat_file(f"{root}/{name}") == (place / "whole" / name).read_bytes(), name


def test_shards_meet_in_storage(place: Path, memory: MemoryFileSystem):
    told(small("whole"))
    for number in (1, 2):
        told(small("memory://runs/shards", "--shard", f"{number}/2"))
    assert memory.exists("/runs/shards/parts/plan.json") and not memory.exists("/runs/shards/rows.csv")
    told(["merge", "memory://runs/shards", "-q"])
    for name in PPL:
        assert memory.cat_file(f"/runs/shards/{name}") == (place / "whole" / name).read_bytes(), name
    assert not memory.exists("/runs/shards/parts/plan.json"), "what was merged is gone at the address, too"


def test_what_is_no_storage_is_refused(place: Path):
    assert "no address of storage" in told(small("nowhere://x/y"), code=2)


@pytest.mark.slow
def test_a_server_of_s3_holds_the_bytes_of_a_local_run(place: Path, monkeypatch: pytest.MonkeyPatch):
    with server_of_s3(monkeypatch) as (server, files):
        told(small("whole"))
        for number in (1, 2):
            told(small("s3://bucket/sweep", "--shard", f"{number}/2"))
        told(["merge", "s3://bucket/sweep", "-q"])
        for name in PPL:
            assert files.cat_file(f"bucket/sweep/{name}") == (place / "whole" / name).read_bytes(), name
        server.kill()
        server.wait()
        monkeypatch.setattr("lpe_eval.storage._TRIES", (0.01,))
        assert "s3://bucket/other cannot be read" in told(small("s3://bucket/other"), code=1)
