"""Copies of what is at an address, in this machine's cache, whole and only as long as they are what is there.

    ~/.cache/lpe-eval/fetched/ADDRESS/address          the address
    ~/.cache/lpe-eval/fetched/ADDRESS/STATE/files.json its files when they were fetched, with their stamps
    ~/.cache/lpe-eval/fetched/ADDRESS/STATE/NAME       a folder or a file, called as at the address

ADDRESS and STATE are hashes: of the address, and of the names and stamps of the files that are wanted. So a copy never
changes. Where a file changed at the address there is a second copy, of which only that file was fetched, and whoever
still reads the first one has it as it was. Each file takes its name when it is whole; processes that want the same copy
wait for the one that fetches it.

Choices:
    * What changes while it is fetched is fetched again; after three times that is an error.
    * A file system that breaks off is asked again, on top of what it does itself.
    * Nothing is removed: the folder may be deleted whenever nothing runs.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lpe_eval.addresses import Entry, Listing, address_of, as_path, last_part, listed, told
from lpe_eval.errors import LpeEvalError, OutputError, SpecError
from lpe_eval.lock import waited_for

Wanted = Callable[[Iterable[str]], Iterable[str]]
"""wanted(names): those files that are needed."""

_TRIES = (0.5, 2.0)
"""Seconds before each further try to fetch a file."""
_STATES = 3
_FILES, _ADDRESS = "files.json", "address"
_HASH = r"[0-9a-f]{16}"
_NOT_OF_A_READER = re.compile(r"(?:.*/)?(?:cells|parts|figures)/.*|.*\.(?:safetensors|partial)")
"""Files of a run that are told by its tables."""


def cache() -> Path:
    """Where this program keeps what it can get again."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "lpe-eval"


def here(place: Path) -> Path:
    """The folder of a run on this machine: itself, or a copy of what is at an address.

    Raises:
        MissingExtra: a package for the protocol is not installed.
        SpecError: there is nothing there, or no such protocol.
        OutputError: the address cannot be read.
    """
    address = address_of(place)
    if address is None:
        return as_path(place)
    found = listed(address, OutputError)
    if not found.entries:
        raise SpecError(f"there is nothing at {address}; give the folder that a run was written to")
    return fetched(found, OutputError, lambda names: [name for name in names if not _NOT_OF_A_READER.fullmatch(name)])


def fetched(found: Listing, unread: type[LpeEvalError], wanted: Wanted = lambda names: names) -> Path:
    """A copy of what is at an address, called as it is there.

    Args:
        found: the address, with at least one file.
        unread: raised where something cannot be fetched.
        wanted: the files that are needed.
    """
    for _ in range(_STATES):
        names = set(wanted([each.name for each in found.entries]))
        entries = [each for each in found.entries if each.name in names]
        copy = _place(found.address, entries)
        if _complete(copy, found, entries):
            return copy
        with told(found.address, unread):
            copy.parent.mkdir(parents=True, exist_ok=True)
            with waited_for(copy.parent.with_suffix(".lock")):
                if not _complete(copy, found, entries):
                    _bring(copy, found, entries)
        again = listed(found.address, unread, found.deepest)
        if {each.name: each.stamp for each in again.entries if each.name in names} == _stamps(entries):
            with told(found.address, unread):
                _write(copy.parent.parent / _ADDRESS, found.address.encode())
                _write(copy.parent / _FILES, json.dumps(_stamps(entries)).encode())
            return copy
        found = again
    raise unread(f"{found.address} changes while it is fetched; wait until nobody writes to it")


def fetched_file(address: str, unread: type[LpeEvalError], beside: Iterable[str] = ()) -> Path:
    """A copy of one file.

    Args:
        address: of the file.
        unread: raised where it is not there, or cannot be fetched.
        beside: names of files next to it that are wanted, too, where they are there.
    """
    above, _, last = address.rpartition("/")
    found = listed(above, unread, 1)
    if last not in (each.name for each in found.entries):
        raise unread(f"there is no file {address}; check the bucket and the place in it")
    wanted = {last, *beside}
    return fetched(found, unread, lambda names: [each for each in names if each in wanted]) / last


def as_addressed(text: str) -> str:
    """A text for users, in which copies are called by what they are copies of."""
    root = str(cache() / "fetched") + os.sep
    if root not in text:
        return text

    def spelled(match: re.Match[str]) -> str:
        try:
            address = (Path(root) / match[1] / _ADDRESS).read_text(encoding="utf-8")
        except OSError:
            return match[0]
        return address.removesuffix(last_part(address))

    sep = re.escape(os.sep)
    return re.sub(f"{re.escape(root)}({_HASH}){sep}{_HASH}{sep}", spelled, text)


def _place(address: str, entries: Iterable[Entry]) -> Path:
    state = repr([(each.name, each.stamp) for each in entries])
    # A folder of such a name would be another one.
    name = "_" if last_part(address) in (".", "..") else last_part(address)
    return cache() / "fetched" / _hash(address) / _hash(state) / name


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _stamps(entries: Iterable[Entry]) -> dict[str, str]:
    return {each.name: each.stamp for each in entries}


def _file(copy: Path, found: Listing, entry: Entry) -> Path:
    return copy if found.is_file else copy / entry.name


def _complete(copy: Path, found: Listing, entries: Iterable[Entry]) -> bool:
    """Whether a copy was finished, and still has all its files."""
    if not (copy.parent / _FILES).is_file():
        return False
    return all(_has(_file(copy, found, each), each) for each in entries)


def _has(path: Path, entry: Entry) -> bool:
    try:
        return path.stat().st_size == entry.size
    except OSError:
        return False


def _bring(copy: Path, found: Listing, entries: Iterable[Entry]) -> None:
    """Fetches what is not there yet, and what an unfinished copy has of an earlier state."""
    earlier = _earlier(copy.parent.parent)
    for each in entries:
        path = _file(copy, found, each)
        if _has(path, each):
            # Of a process that ended before it had all. That it is this state is seen when all is there.
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
        try:
            known = earlier.get((each.name, each.stamp))
            if known is None or not _linked(known / each.name if not found.is_file else known, partial):
                _get(found.files, each, partial)
            partial.replace(path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()


def _earlier(of_address: Path) -> dict[tuple[str, str], Path]:
    """The finished copies of an address, by the names and stamps of their files."""
    held: dict[tuple[str, str], Path] = {}
    for state in of_address.glob(f"*/{_FILES}"):
        copies = [each for each in state.parent.iterdir() if each.name != _FILES and not each.name.startswith(".")]
        stamps: Any = json.loads(state.read_bytes())
        held |= dict.fromkeys(stamps.items(), copies[0]) if len(copies) == 1 else {}
    return held


def _linked(known: Path, partial: Path) -> bool:
    try:
        os.link(known, partial)
    except OSError:
        return False
    return True


def _get(files: Any, entry: Entry, partial: Path) -> None:
    for pause in (*_TRIES, None):
        try:
            files.get_file(entry.path, str(partial))
            if partial.stat().st_size != entry.size:
                raise OSError(f"{entry.name} has {partial.stat().st_size} bytes, and {entry.size} were listed")
            return
        except (FileNotFoundError, PermissionError):
            raise
        except Exception:
            if pause is None:
                raise
            time.sleep(pause)


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    partial.write_bytes(content)
    partial.replace(path)
