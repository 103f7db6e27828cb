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
import importlib
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from lpe_eval.errors import LpeEvalError, MissingExtra, OutputError, SpecError, one_sentence

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}([^/].*)", re.DOTALL)
"""A protocol has two letters at least, so that no drive of Windows is one; a path may have lost the second slash."""
_EVERY = 2.0
_TRIES = (0.5, 2.0, 5.0)
"""Seconds before each further try at the end."""
_UNKNOWN = (-1, -1)
"""The stamp of no file."""


def address_of(place: Path | str | None) -> str | None:
    """The address in object storage that was typed; None where it is a path of a file system."""
    found = _ADDRESS.fullmatch("" if place is None else place.as_posix() if isinstance(place, Path) else place)
    return None if found is None else f"{found[1]}://{found[2].rstrip('/')}"


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
        yield place
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


class _Mirror:
    """A folder and an address that is made like it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._files, self._root = _opened(address)
        self.folder = _cache() / hashlib.sha256(address.encode()).hexdigest()[:24]
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
            # Each protocol has errors of its own.
            why = " ".join(one_sentence(error).split())[:200]
            raise OutputError(
                f"{self.address} cannot be {what}: {why}; what was finished lies in {self.folder}, and the same "
                "command goes on from there"
            ) from error


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the place in it."""
    protocol = address.partition("://")[0]
    try:
        core = importlib.import_module("fsspec.core")
        files, root = (
            core.url_to_fs(address, use_listings_cache=False) if protocol != "file" else core.url_to_fs(address)
        )
    except ImportError as error:
        raise MissingExtra(f"storage at {protocol}://", "gcs" if protocol in ("gs", "gcs") else "s3") from error
    except Exception as error:
        raise SpecError(f"{address} is no address of storage: {' '.join(one_sentence(error).split())[:200]}") from error
    return files, str(root).rstrip("/")


def _cache() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "lpe-eval" / "stored"
