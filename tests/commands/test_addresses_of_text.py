"""Text at an address is the text of the same files on this machine, and no more of it is read than is taken."""

from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lpe_eval.errors import DataError
from tests.support.native_checkpoints import checkpoint
from tests.support.small_ppl import TEXT
from tests.support.stored_runs import SAME, Counted, put, small, told
from tests.support.stored_texts import chosen, write_texts


def test_text_of_every_kind_is_the_same_at_an_address(place: Path, memory: MemoryFileSystem):
    write_texts(place / "books")
    put(place / "books", "memory://bucket/books")
    for fields in ({}, {"split": "all"}, {"split": "train"}):
        assert chosen("memory://bucket/books", **fields) == chosen("books", **fields)
    names = [path.name for path in sorted((place / "books" / "test").iterdir())]
    for name in (each for each in names if each not in ("._a.txt", "empty.txt")):
        assert chosen(f"memory://bucket/books/test/{name}") == chosen(f"books/test/{name}"), name
    for path in ("bucket/books", "books"):
        with pytest.raises(DataError, match="has no split 'else', only train, test"):
            chosen(f"memory://{path}" if path == "bucket/books" else path, split="else")


def test_of_a_corpus_no_more_is_read_than_a_budget_takes(place: Path, counted: type[Counted]):
    for number in range(100):
        Counted().pipe_file(f"counted://bucket/books/{number}.txt", f"{number} {TEXT}".encode())
    found, _ = chosen("counted://bucket/books")
    assert len(found) <= len(counted.fetched) < 50
    assert not (place / "cache").exists(), "nothing of it is stored here"


def test_ids_at_an_address_are_those_of_the_file_with_what_lies_beside_it(place: Path, memory: MemoryFileSystem):
    put(checkpoint(place / "a"), "memory://bucket/a")
    (place / "ids.bin").write_bytes(bytes(number % 251 + number % 3 for number in range(900)))
    (place / "ids.bin.json").write_text('{"dtype": "uint8"}')
    for name in ("ids.bin", "ids.bin.json"):
        memory.pipe_file(f"/bucket/{name}", (place / name).read_bytes())
    told(small("whole", "a", "ids.bin"))
    told(small("stored", "a", "memory://bucket/ids.bin"))
    for name in SAME:
        assert (place / "stored" / name).read_bytes() == (place / "whole" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("memory://bucket/none", "there is no file or folder memory://bucket/none"),
        ("memory://bucket/none.bin", "there is no file memory://bucket/none.bin"),
        ("memory://bucket/x.pdf", "memory://bucket/x.pdf is of no kind that can be read"),
        ("https://host/x.txt", "download it and name the file"),
    ],
)
def test_what_is_no_text_is_one_sentence(place: Path, memory: MemoryFileSystem, data: str, said: str):
    checkpoint(place / "a")
    memory.pipe_file("/bucket/x.pdf", b"x")
    assert said in told(small("out", "a", data), code=2)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), RuntimeError("odd")])
def test_a_connection_that_breaks_while_text_is_read_is_one_sentence(
    place: Path, counted: type[Counted], error: Exception
):
    checkpoint(place / "a")
    Counted().pipe_file("counted://bucket/x.txt", TEXT.encode())
    counted.failures = [error]
    said = told(small("out", "a", "counted://bucket/x.txt"), code=2)
    assert "counted://bucket/x.txt cannot be read" in said and said.count("error:") == 1
