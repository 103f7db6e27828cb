"""Addresses of object storage: told from paths, opened, listed and read through fsspec.

`s3://bucket/place`, `gs://bucket/place`, `hf://datasets/org/name/place` and whatever else fsspec knows.
`file:///place` is the path behind it. What a system of files raises becomes one sentence, in the error of whoever asks.

Choices:
    * `https://` is refused: a server of pages cannot list a folder, need not give a part of a file, and may give
      another file tomorrow without a word.
    * fsspec is imported only for an address.
    * Listings are not remembered, since others write to the same address.
"""

import contextlib
import errno
import hashlib
import importlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from lpe_eval.errors import LpeEvalError, MissingExtra, SpecError, one_sentence

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}([^/].*)", re.DOTALL)
"""A protocol has two letters at least, so that no drive of Windows is one; a path may have lost the second slash."""
_FILE = re.compile(r"file:/+(.*)", re.DOTALL)
_DRIVE = re.compile(r"[A-Za-z]:(/|$)")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_TELLING = (
    *("ETag", "etag", "md5Hash", "content_md5", "checksum", "generation", "VersionId", "blob_id", "lfs"),
    *("LastModified", "last_modified", "updated", "modified", "mtime", "created"),
)
"""What file systems call what changes with a file."""
_BLOCK = 1 << 20
"""Bytes that are read beyond what was asked for, for whoever reads on."""


class Entry(NamedTuple):
    """A file at an address.

    Attributes:
        name: below the address, with slashes; of an address that is a file itself, its last part.
        path: what the file system calls it.
        size: in bytes.
        stamp: changes with the file.
    """

    name: str
    path: str
    size: int
    stamp: str


class Listing(NamedTuple):
    """What is at an address.

    Attributes:
        address: as typed.
        files: the file system.
        entries: its files, by name; empty where there is nothing.
        is_file: whether the address is a file itself.
        deepest: levels of folders that were looked into; None for all.
    """

    address: str
    files: Any
    entries: list[Entry]
    is_file: bool
    deepest: int | None


def address_of(place: Path | str | None) -> str | None:
    """The address in object storage that was typed; None where it is a path of a file system."""
    text = "" if place is None else place.as_posix() if isinstance(place, Path) else place
    found = None if _FILE.fullmatch(text) else _ADDRESS.fullmatch(text)
    return None if found is None else f"{found[1]}://{found[2].rstrip('/')}"


def typed_address(text: str) -> str | None:
    """The same of what was never a path, so that both slashes are there; `hf:/folder` is no address."""
    return address_of(text) if "://" in text else None


def without_protocol(place: str) -> str:
    """The path behind `file://`; anything else as it is."""
    found = _FILE.fullmatch(place)
    if found is None:
        return place
    return found[1] if _DRIVE.match(found[1]) else f"/{found[1]}"


def as_path(place: Path) -> Path:
    """A path that was typed, with `file://` taken off."""
    return Path(without_protocol(place.as_posix())) if _FILE.fullmatch(place.as_posix()) else place


def last_part(address: str) -> str:
    """What a folder or a file at an address is called."""
    return address.rpartition("/")[2]


def place_in_bucket(address: str) -> str:
    """The place without protocol and bucket: a copy of the bucket in the current directory has it there."""
    _, _, place = address.partition("://")
    return place.partition("/")[2] or place


def opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the place in it.

    Raises:
        MissingExtra: a package for the protocol is not installed.
        SpecError: there is no such protocol, or it is refused.
    """
    protocol = address.partition("://")[0]
    if protocol in ("http", "https"):
        hub = "; a model of the Hub is hf:org/name, a data set hub:org/name" if "huggingface.co/" in address else ""
        raise SpecError(f"{address}: nothing is read from web pages; download it and name the file{hub}")
    try:
        core = importlib.import_module("fsspec.core")
        files, root = core.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        if protocol not in _EXTRAS:
            raise SpecError(f"{address}: {' '.join(one_sentence(error).split())[:200]}") from error
        raise MissingExtra(f"storage at {protocol}://", _EXTRAS[protocol]) from error
    except Exception as error:
        raise SpecError(f"{address} is no address of storage: {' '.join(one_sentence(error).split())[:200]}") from error
    return files, str(root).rstrip("/")


def listed(address: str, unread: type[LpeEvalError], deepest: int | None = None) -> Listing:
    """What is at an address: the file itself, or all files below it.

    Args:
        address: of a file or a folder.
        unread: raised where it cannot be read.
        deepest: levels of folders that are looked into; None for all.

    Raises:
        MissingExtra, SpecError: see `opened`.
    """
    files, root = opened(address)
    entries: list[Entry] = []
    is_file = False
    with told(address, unread):
        try:
            found = files.find(root, detail=True) if deepest is None else _walked(files, root, deepest)
        except FileNotFoundError:
            found = {}
        for path, facts in found.items():
            if facts.get("type") == "directory" or str(path).endswith("/"):
                continue
            # Some file systems give paths from a root that others leave out.
            name = PurePosixPath(str(path).strip("/")).relative_to(root.strip("/")).as_posix()
            if name == ".":
                name, is_file = last_part(address), True
            if ".." in name.split("/"):
                continue
            entries.append(Entry(name, str(path), int(facts.get("size") or 0), _stamp(facts)))
    return Listing(address, files, sorted(entries), is_file, deepest)


def names_below(address: str, unread: type[LpeEvalError]) -> tuple[list[str], list[str]]:
    """The folders and the files right below an address; empty where there is nothing.

    Raises:
        MissingExtra, SpecError: see `opened`.
    """
    files, root = opened(address)
    with told(address, unread):
        try:
            found: list[dict[str, Any]] = files.ls(root, detail=True)
        except FileNotFoundError:
            found = []
    named = [(last_part(str(each["name"]).rstrip("/")), each.get("type") == "directory") for each in found]
    return sorted(name for name, folder in named if folder), sorted(name for name, folder in named if not folder)


def _walked(files: Any, folder: str, deepest: int) -> dict[str, dict[str, Any]]:
    """The files at so many levels below a folder; fsspec's own walk is silent about what it may not look into."""
    found: dict[str, dict[str, Any]] = {}
    for facts in files.ls(folder, detail=True):
        path = str(facts["name"])
        if facts.get("type") != "directory":
            found[path] = facts
        elif deepest > 1 and path.strip("/") != folder.strip("/"):
            found |= _walked(files, path, deepest - 1)
    return found


@contextmanager
def told(address: str, unread: type[LpeEvalError], what: str = "read") -> Iterator[None]:
    """One sentence for whatever a file system raises: each protocol has errors of its own."""
    try:
        yield
    except LpeEvalError:
        raise
    except Exception as error:
        # A system of files failed, whatever it raises: nobody's code did.
        cause = error if isinstance(error, OSError) else OSError(errno.EIO, why(error))
        raise unread(f"{address} cannot be {what}: {why(error)}") from cause


def why(error: BaseException) -> str:
    """What a file system says went wrong, and what to do where that is known."""
    said = " ".join(one_sentence(error).split())[:200]
    refused = isinstance(error, PermissionError) or "credential" in said.lower()
    return f"{said}; check the credentials of this machine and what they allow" if refused else said


class StoredFile:
    """A file at an address, with as much of a `Path` as readers of text use.

    Args:
        address: of the file.
        files: the file system.
        entry: the file in it.
    """

    def __init__(self, address: str, files: Any, entry: Entry) -> None:
        self._address, self._files, self._entry = address, files, entry
        self.size = entry.size
        name = PurePosixPath(last_part(address))
        self.name, self.suffix, self.stem = name.name, name.suffix, name.stem

    def open(self, mode: str = "rb") -> io.RawIOBase:
        """Its bytes, from the beginning, of which no more is fetched than is read."""
        with _as_of_a_disk():
            return _Stream(self._files.open(self._entry.path, mode, block_size=_BLOCK))

    def read_bytes(self) -> bytes:
        """All of them."""
        with _as_of_a_disk():
            return self._files.cat_file(self._entry.path)

    def piece(self, start: int, stop: int) -> bytes:
        """Some of them."""
        with _as_of_a_disk():
            return b"" if stop <= start else self._files.cat_file(self._entry.path, start=start, end=stop)

    def __str__(self) -> str:
        return self._address


class _Stream(io.RawIOBase):
    """A file of fsspec whose errors are those of a disk."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        with _as_of_a_disk():
            found = self._file.read(len(into))
        into[: len(found)] = found
        return len(found)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(Exception):
                self._file.close()
        super().close()


@contextmanager
def _as_of_a_disk() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
        raise OSError(number, why(error)) from error


def _stamp(facts: dict[str, Any]) -> str:
    known = {name: str(facts[name]) for name in ("size", *_TELLING) if facts.get(name) is not None}
    return hashlib.sha256(repr(sorted(known.items())).encode()).hexdigest()[:24]
