"""What tests of addresses begin with: an empty place with a cache of its own, and stores in this process."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.support.stored_runs import Counted


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    """fsspec's store in the memory of this process, empty."""
    found = MemoryFileSystem()
    yield found
    for each in found.find("/"):
        found.rm_file(each)


@pytest.fixture
def counted(memory: MemoryFileSystem) -> type[Counted]:
    fsspec.register_implementation("counted", Counted, clobber=True)
    Counted.fetched, Counted.failures = [], []
    return Counted
