"""One process a folder: a lock of the kernel, which goes with the process whatever ends it.

POSIX locks the open file (flock). Windows locks its first byte (LockFileEx, as `msvcrt.locking`), and does not remove a
file that is open, so there a lock's file is removed after it is let go. A system with neither has no locks.
"""

import contextlib
import errno
import importlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lpe_eval.errors import OutputError

LOCK = ".lock"
_SECONDS_BETWEEN_TRIES = 0.05


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_fcntl, _msvcrt = _module("fcntl"), _module("msvcrt")


def take(opened: int) -> None:
    """Locks an open file, or on POSIX an open folder, until it is closed.

    Raises:
        BlockingIOError: somebody else has locked it.
        OSError: it cannot be locked.
    """
    if _fcntl is not None:
        _fcntl.flock(opened, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    elif _msvcrt is not None:
        os.lseek(opened, 0, os.SEEK_SET)
        try:
            _msvcrt.locking(opened, _msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
            raise


def hold(directory: Path) -> int:
    """Takes the lock of a folder, and gives the descriptor that holds it until it is closed.

    Raises:
        OutputError: another process has it, or the place cannot be written to or locked.
    """
    while True:
        try:
            lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(f"cannot write to {directory}: {error.strerror}; choose another --out") from error
        try:
            take(lock)
            if is_still_there(lock, directory / LOCK):
                return lock
        except BlockingIOError as error:
            os.close(lock)
            raise OutputError(
                f"another process is writing to {directory}; wait until it ends or choose another --out"
            ) from error
        except OSError as error:
            os.close(lock)
            raise OutputError(f"cannot lock {directory}: {error.strerror}; choose an --out on a local disk") from error
        os.close(lock)


def release(lock: int, directory: Path) -> None:
    """Lets another process take the lock, and removes its file."""
    _let_go(lock, directory / LOCK)


@contextmanager
def waited_for(path: Path) -> Iterator[None]:
    """Holds a lock of its own file, once whoever has it is done; the file is gone afterwards.

    Raises:
        OSError: the place cannot be written to or locked.
    """
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _wait(lock)
            if is_still_there(lock, path):
                break
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
    try:
        yield
    finally:
        _let_go(lock, path)


def is_still_there(lock: int, path: Path) -> bool:
    """Whether an open file or folder has that path: whoever held it before may have removed it."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False


def _wait(lock: int) -> None:
    if _fcntl is not None:
        _fcntl.flock(lock, _fcntl.LOCK_EX)
        return
    while True:
        with contextlib.suppress(BlockingIOError):
            take(lock)
            return
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _let_go(lock: int, path: Path) -> None:
    """Removes the file first: once another process could lock it, it would hold a file without a name."""
    with contextlib.suppress(OSError):
        path.unlink()
    os.close(lock)
    if _fcntl is None:
        # Only now does Windows remove it, and only if nobody else has it open.
        with contextlib.suppress(OSError):
            path.unlink()
