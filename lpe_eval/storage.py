"""A folder of results in object storage: filled on this machine, and put there file by file, each whole or not at all.

`s3://bucket/sweep` and the like are addresses of fsspec. A run works in a folder of this machine's cache, which begins
with what is at the address, and every other second whatever is new or changed goes there as one object. So a run that
is killed has lost what it measured in the last seconds at most, on another machine; on this one nothing. Listing takes
the place of locks: shards at one address put files of different names, and their plan is compared when they begin.

Choices:
    * A connection that breaks is tried again, with the next files and at the end of the run. Where it stays broken
      everything lies in the cache, and the same command goes on from there.
    * What vanishes from the folder (parts that were merged) vanishes at the address.
    * fsspec is imported only for an address.
"""

import contextlib
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from lpe_eval.addresses import address_of, as_path, last_part, opened, told, why
from lpe_eval.errors import LpeEvalError, OutputError
from lpe_eval.fetched import cache

_EVERY = 2.0
_TRIES = (0.5, 2.0, 5.0)
"""Seconds before each further try at the end."""
_UNKNOWN = (-1, -1)
"""The stamp of no file."""


@contextmanager
def staged(place: Path | None) -> Iterator[Path | None]:
    """The folder on this machine for a place: itself, or what stands for an address while the context lasts.

    Args:
        place: a folder, an address, or None.

    Raises:
        MissingExtra: a package for the protocol is not installed.
        SpecError: there is no such protocol.
        OutputError: the address cannot be read, or not everything could be put there.
    """
    address = address_of(place)
    if address is None:
        yield place if place is None else as_path(place)
        return
    mirror = _Mirror(address)
    mirror.fetch()
    try:
        with mirror.kept_up():
            yield mirror.folder
    except LpeEvalError:
        # A run with failed cells is one, too.
        mirror.finish()
        raise
    mirror.finish()


@contextmanager
def sent(place: Path) -> Iterator[Path]:
    """Where to write on this machine what belongs at a place: there, or at an address when the context ends.

    Files of other names at the address stay. Where the context ends in an error, nothing is put there.

    Args:
        place: a file, a folder, or the address of one.

    Raises:
        MissingExtra, SpecError: see `addresses.opened`.
        OutputError: something could not be put there.
    """
    address = address_of(place)
    if address is None:
        yield as_path(place)
        return
    files, root = opened(address)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder) / last_part(address)
        yield here
        with told(address, OutputError, "written"):
            for path in sorted(each for each in (here, *here.rglob("*")) if each.is_file()):
                name = path.relative_to(here).as_posix()
                files.pipe_file(root if name == "." else f"{root}/{name}", path.read_bytes())


def typed_as(place: Path, here: Path, path: Path) -> str:
    """How people are told of a file: `place` as it was typed, in the place of what `sent` gave for it."""
    address = address_of(place)
    if address is None:
        return str(path)
    name = path.relative_to(here).as_posix()
    return address if name == "." else f"{address}/{name}"


class _Mirror:
    """A folder and an address that is made like it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._files, self._root = opened(address)
        self.folder = cache() / "stored" / hashlib.sha256(address.encode()).hexdigest()[:24]
        self._known: dict[str, tuple[int, int]] = {}

    def fetch(self) -> None:
        """Brings what is at the address and not in the folder; on this machine nothing is replaced."""
        with self._told("read"):
            found = self._files.find(self._root) if self._files.exists(self._root) else []
            for each in found:
                # Some file systems give paths from a root that others leave out.
                name = PurePosixPath(str(each).strip("/")).relative_to(self._root.strip("/"))
                path = self.folder / str(name)
                if ".." in name.parts:
                    continue
                if path.exists():
                    # Whether it is the same is not known; that it is there is, for when it vanishes here.
                    self._known[name.as_posix()] = _UNKNOWN
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
                partial.write_bytes(self._files.cat_file(each))
                partial.replace(path)
                self._known[name.as_posix()] = _stamp(path)

    @contextmanager
    def kept_up(self) -> Iterator[None]:
        """While the context lasts, the address follows the folder, from a thread."""
        over = threading.Event()

        def follow() -> None:
            while not over.wait(_EVERY):
                # Whatever cannot be put now is tried again; the end tells.
                with contextlib.suppress(OutputError):
                    self.put()

        following = threading.Thread(target=follow, name="storage", daemon=True)
        following.start()
        try:
            yield
        finally:
            over.set()
            following.join()
            with contextlib.suppress(OutputError):
                self.put()

    def finish(self) -> None:
        """Puts what is left, with several tries.

        Raises:
            OutputError: the address cannot be reached.
        """
        for pause in _TRIES:
            try:
                self.put()
                return
            except OutputError:
                time.sleep(pause)
        self.put()

    def put(self) -> None:
        """Puts what is new or changed, cells and parts before the tables that are made of them.

        Raises:
            OutputError: something could not be put.
        """
        here = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*") if path.is_file()}
        here = {name: path for name, path in here.items() if not path.name.startswith(".")}
        for name, path in sorted(here.items(), key=lambda pair: ("/" not in pair[0], pair[0])):
            try:
                stamp = _stamp(path)
                content = b"" if self._known.get(name) == stamp else path.read_bytes()
            except FileNotFoundError:
                continue
            if self._known.get(name) != stamp:
                with self._told("written"):
                    self._files.pipe_file(f"{self._root}/{name}", content)
                self._known[name] = stamp
        for name in [name for name in self._known if name not in here]:
            with self._told("written"):
                if self._files.exists(f"{self._root}/{name}"):
                    self._files.rm_file(f"{self._root}/{name}")
            del self._known[name]

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise OutputError(
                f"{self.address} cannot be {what}: {why(error)}; what was finished lies in {self.folder}, and the same "
                "command goes on from there"
            ) from error


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
