"""Ranks that torchrun started: each does its shard, the first one tells of all of them and waits for the others.

They share a folder and nothing else: no rank ever waits inside a collective operation, so none can hang there. Each
says in `parts/rank-I-of-N.json` that it works, and touches that file every other second. The first rank waits until
each other one has ended, or is gone: its process is not there any more, or, where that is another machine's, its file
was not touched for three minutes.

Choices:
    * torchrun ends all ranks when one of them fails. So a rank whose cells have no value ends with 0, and the first,
      which puts the run together, says it. A rank that is killed ends the others too, unless torchrun was given
      `--max-restarts`; every finished cell and part is on disk then, and the same command goes on from there.
    * What an earlier start left in these files counts as nothing: only what changes is heard.
"""

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lpe_eval.measure.progress import Advance, Progress
from lpe_eval.plain import Unreadable, json_of, read_plain
from lpe_eval.report.folders.atomic import write_atomically
from lpe_eval.report.folders.shared import PARTS
from lpe_eval.shard import Shard

_BEAT, _LOOK = 2.0, 0.5
_SILENT, _UNSEEN = 180.0, 60.0
"""Seconds after which a rank that says nothing, or never said anything, counts as gone."""

WORKING, DONE, FAILED = "working", "done", "failed"


class Others(NamedTuple):
    """What the other ranks are expected to write.

    Attributes:
        files: each with its amount of work, in the unit of the progress bar.
    """

    files: Sequence[tuple[Path, int]] = ()


@contextmanager
def together(
    progress: Progress, shard: Shard | None, directory: Path, total: int, unit: str, others: Others
) -> Iterator[Advance]:
    """The progress of this process; of the first rank that of all ranks, and at the end it waits for the others.

    Args:
        progress: opens a progress bar.
        shard: which process this is; None where it is alone.
        directory: of the run.
        total: what this process has to do.
        unit: of what.
        others: what the other ranks do.
    """
    if shard is None or not shard.is_rank:
        with progress(total, unit) as advance:
            yield advance
        return
    before = {number: _touched(_file(directory, number, shard.total)) for number in range(1, shard.total + 1)}
    with _beating(directory, shard):
        if not shard.leads:
            with progress(0, unit) as advance:
                yield advance
            return
        missing = [(path, amount) for path, amount in others.files if not path.exists()]
        with progress(total + sum(amount for _, amount in missing), unit) as advance:
            over = threading.Event()
            watching = threading.Thread(target=_watch, args=(missing, advance, over), name="others", daemon=True)
            watching.start()
            try:
                yield advance
                _wait(directory, shard, before, [path for path, _ in missing])
            finally:
                over.set()
                watching.join()


def _watch(missing: Sequence[tuple[Path, int]], advance: Advance, over: threading.Event) -> None:
    """Tells of files as they appear."""
    left = list(missing)
    while left:
        ended = over.wait(_BEAT)
        names = {folder: _names(folder) for folder in {path.parent for path, _ in left}}
        for path, amount in left:
            if path.name in names[path.parent]:
                advance(amount)
        left = [(path, amount) for path, amount in left if path.name not in names[path.parent]]
        if ended:
            return


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()


def _wait(directory: Path, shard: Shard, before: dict[int, int], files: Sequence[Path]) -> None:
    began, heard = time.monotonic(), {}
    left = set(range(1, shard.total + 1)) - {shard.number}
    while True:
        for number in sorted(left):
            path = _file(directory, number, shard.total)
            touched, said = _touched(path), _said(path)
            if touched != heard.get(number, (None, 0.0))[0]:
                heard[number] = (touched, time.monotonic())
            if said is None or said.get("launch") != shard.launch or touched == before[number]:
                ended = time.monotonic() - began > _UNSEEN or all(each.exists() for each in files)
            elif said.get("state") != WORKING:
                ended = True
            else:
                ended = _is_gone(said) or time.monotonic() - heard[number][1] > _SILENT
            if ended:
                left.discard(number)
        if not left:
            return
        time.sleep(_LOOK)


def _is_gone(said: dict[str, Any]) -> bool:
    # On Windows a signal 0 is Ctrl-C.
    if said.get("host") != platform.node() or os.name == "nt":
        return False
    try:
        os.kill(int(said["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, LookupError, TypeError, ValueError):
        return False
    return False


@contextmanager
def _beating(directory: Path, shard: Shard) -> Iterator[None]:
    """Says that this rank works, again and again, and in the end how it ended."""
    path, over = _file(directory, shard.number, shard.total), threading.Event()

    def say(state: str) -> None:
        content = {"state": state, "pid": os.getpid(), "host": platform.node(), "launch": shard.launch}
        with contextlib.suppress(OSError):
            write_atomically(path, json.dumps(content).encode(), private=True)

    def beat() -> None:
        while not over.wait(_BEAT):
            with contextlib.suppress(OSError):
                os.utime(path)

    say(WORKING)
    beating = threading.Thread(target=beat, name="heartbeat", daemon=True)
    beating.start()
    state = FAILED
    try:
        yield
        state = DONE
    finally:
        over.set()
        beating.join()
        say(state)


def _file(directory: Path, number: int, total: int) -> Path:
    return directory / PARTS / f"rank-{number}-of-{total}.json"


def _touched(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _said(path: Path) -> dict[str, Any] | None:
    try:
        found = json_of(read_plain(path))
    except Unreadable:
        return None
    return found if isinstance(found, dict) else None
