"""Addresses told from paths, and checkpoints there: what is fetched, when, and what is said where it cannot be."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lpe_eval import fetched as fetching
from lpe_eval.addresses import place_in_bucket, typed_address, without_protocol
from lpe_eval.cli.models import language_models
from lpe_eval.errors import CheckpointError, MissingExtra, SpecError
from lpe_eval.model.at_address import copy_of_checkpoint
from lpe_eval.model.checkpoint import LoadOptions, locate
from tests.support.native_checkpoints import checkpoint
from tests.support.stored_runs import Counted, put, told


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("s3://bucket/runs/a", "s3://bucket/runs/a"), ("hf://datasets/org/x/", "hf://datasets/org/x"),
        ("hf:/abs/folder", None), ("hf:org/name", None), ("C:/x", None), ("file:///x", None), ("x", None),
    ],
)  # fmt: skip
def test_what_was_typed_with_both_slashes_is_an_address(typed: str, address: str | None):
    assert typed_address(typed) == address


def test_places_in_buckets_and_behind_file():
    assert [place_in_bucket(f"s3://{each}") for each in ("b", "b/x", "b/x/y.txt")] == ["b", "x", "x/y.txt"]
    assert without_protocol("file:///a/b") == without_protocol("file:/a/b") == "/a/b"
    assert without_protocol("file:///C:/x") == "C:/x" and without_protocol("a/b") == "a/b"


def test_only_what_is_needed_is_fetched_and_again_only_what_changed(place: Path, counted: type[Counted]):
    folder = checkpoint(place / "step-10")
    for name in ("optimizer.pt", "events.out.tfevents.1", "logs/a.txt", "step-5/model.safetensors", ".hidden"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"of no use")
    put(folder, "counted://bucket/runs/step-10")
    counted.fetched = []
    copy = copy_of_checkpoint("counted://bucket/runs/step-10")
    assert copy.name == "step-10"
    assert sorted(path.name for path in copy.iterdir()) == ["config.yaml", "model.safetensors"]
    assert len(counted.fetched) == 2 and copy_of_checkpoint("counted://bucket/runs/step-10") == copy
    assert len(counted.fetched) == 2, "nothing changed"
    before = (copy / "model.safetensors").read_bytes()
    shutil.rmtree(folder)
    checkpoint(folder, seed=1)
    Counted().pipe_file("counted://bucket/runs/step-10/model.safetensors", (folder / "model.safetensors").read_bytes())
    newer = copy_of_checkpoint("counted://bucket/runs/step-10")
    assert counted.fetched[2:] == ["counted://bucket/runs/step-10/model.safetensors"]
    assert (newer / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes() != before
    assert (newer / "config.yaml").read_bytes() == (copy / "config.yaml").read_bytes()
    assert (copy / "model.safetensors").read_bytes() == before, "whoever reads the first copy has it as it was"


def test_a_fetch_that_was_cut_short_goes_on_and_no_file_is_half_there(
    place: Path, counted: type[Counted], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fetching, "_TRIES", (0.01,))
    put(checkpoint(place / "a"), "counted://bucket/a")
    counted.failures = [ConnectionResetError(104, "Connection reset by peer")]
    assert copy_of_checkpoint("counted://bucket/a").is_dir(), "tried again"
    shutil.rmtree(place / "cache")
    counted.fetched = []

    def second(self: Counted, rpath: str, lpath: str, **more: Any) -> None:
        if rpath.endswith("model.safetensors"):
            Path(lpath).write_bytes(b"half")
            raise ConnectionResetError(104, "Connection reset by peer")
        MemoryFileSystem.get_file(self, rpath, lpath, **more)

    with monkeypatch.context() as broken:
        broken.setattr(Counted, "get_file", second)
        with pytest.raises(CheckpointError, match=r"counted://bucket/a cannot be read: .*Connection reset"):
            copy_of_checkpoint("counted://bucket/a")
    left = [path.name for path in (place / "cache").rglob("*") if path.is_file()]
    assert left == ["config.yaml"]
    copy_of_checkpoint("counted://bucket/a")
    assert counted.fetched == ["counted://bucket/a/model.safetensors"]


def test_processes_that_want_one_copy_fetch_it_once(place: Path, counted: type[Counted]):
    put(checkpoint(place / "a"), "counted://bucket/a")
    with ThreadPoolExecutor(4) as several:
        copies = list(several.map(copy_of_checkpoint, ["counted://bucket/a"] * 4))
    wanted = ["counted://bucket/a/config.yaml", "counted://bucket/a/model.safetensors"]
    assert len(set(copies)) == 1 and sorted(counted.fetched) == wanted


def test_of_steps_the_one_that_is_meant_is_fetched(place: Path, memory: MemoryFileSystem):
    for step in (10, 20):
        for name in ("layer_00-model_00-model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"):
            memory.pipe_file(f"/bucket/neox/global_step{step}/{name}", b"x")
    for name, content in (("latest", b"global_step20\n"), ("configs/a.yml", b"x"), ("vocab.json", b"{}")):
        memory.pipe_file(f"/bucket/neox/{name}", content)

    def names(copy: Path) -> list[str]:
        return sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())

    beside = ["configs/a.yml", "latest", "vocab.json"]
    newest = copy_of_checkpoint("memory://bucket/neox")
    assert names(newest) == sorted([*beside, "global_step20/layer_00-model_00-model_states.pt"])
    named = copy_of_checkpoint("memory://bucket/neox/global_step10")
    assert named.name == "global_step10" and named.parent.name == "neox"
    assert names(named.parent) == sorted([*beside, "global_step10/layer_00-model_00-model_states.pt"])
    for name in ("model.pt", "dict.txt", "other.pt"):
        memory.pipe_file(f"/bucket/fairseq/{name}", b"x")
    file = copy_of_checkpoint("memory://bucket/fairseq/model.pt")
    assert file.name == "model.pt" and names(file.parent) == ["dict.txt", "model.pt"]


def test_references_with_prefixes_settings_and_patterns(place: Path, memory: MemoryFileSystem):
    for step in (9, 10, 200):
        put(checkpoint(place / f"step-{step}", "rope"), f"memory://bucket/runs/step-{step}")
    memory.pipe_file("/bucket/runs/step-log.txt", b"x")
    folder = "memory://bucket/runs/step-9"
    plain = locate("./step-9").peek(LoadOptions())
    assert locate(folder).peek(LoadOptions()) == locate(f"native:{folder}").peek(LoadOptions()) == plain
    scaled = locate(f"{folder}?rope_theta=500").peek(LoadOptions())
    assert scaled == locate("./step-9?rope_theta=500").peek(LoadOptions())
    assert language_models(["memory://bucket/runs/step-*"]) == [
        f"memory://bucket/runs/step-{step}" for step in (10, 200, 9)
    ]
    with pytest.raises(SpecError, match="matches this pattern"):
        language_models(["memory://bucket/runs/none-*"])
    with pytest.raises(SpecError, match="behind the last slash"):
        language_models(["memory://bucket/*/step-9"])
    with pytest.raises(CheckpointError, match="code is not run from an address"):
        locate("py:memory://bucket/model.py:make")


@pytest.mark.parametrize(
    ("reference", "error", "said"),
    [
        ("memory://bucket/none", CheckpointError, "there is nothing at memory://bucket/none"),
        ("memory://bucket/notes", CheckpointError, "no checkpoint at memory://bucket/notes"),
        ("memory://bucket/odd", CheckpointError, "memory://bucket/odd is not a checkpoint of any known format"),
        ("nowhere://bucket/x", SpecError, "no address of storage"),
        ("https://huggingface.co/org/name", SpecError, "hf:org/name"),
    ],
)
def test_what_is_no_checkpoint_is_one_sentence(
    place: Path, memory: MemoryFileSystem, reference: str, error: type[Exception], said: str
):
    memory.pipe_file("/bucket/notes/a.txt", b"x")
    memory.pipe_file("/bucket/odd/model.safetensors", b"x")
    with pytest.raises(error, match=said):
        locate(reference)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    import fsspec.core

    def fails(*given: Any, **more: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fails)
    for address, extra in (("s3://b/x", "s3"), ("gs://b/x", "gcs")):
        with pytest.raises(MissingExtra, match=rf"pip install 'lpe-eval\[{extra}\]'"):
            locate(address)
    with pytest.raises(SpecError, match="Install s3fs"):
        locate("abfs://b/x")


def test_who_may_not_read_is_told_what_to_check(place: Path, counted: type[Counted]):
    put(checkpoint(place / "a"), "counted://bucket/a")
    counted.failures = [PermissionError("Access Denied")]
    said = told(["inspect", "counted://bucket/a"], code=2)
    assert "counted://bucket/a cannot be read" in said and "check the credentials" in said
