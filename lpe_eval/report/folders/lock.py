"""One process a folder: a lock of the kernel, which goes with the process whatever ends it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lpe_eval.errors import OutputError

LOCK = ".lock"


def hold(directory: Path) -> int:
    """Takes the lock of a folder, and gives the descriptor that holds it until it is closed.

    Raises:
        OutputError: another process has it, or the place cannot be written to or locked.
    """
    while True:
        try:
            lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise OutputError(f"cannot write to {directory}: {error.strerror}; choose another --out") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
    with contextlib.suppress(OSError):
        (directory / LOCK).unlink()
    os.close(lock)


@contextmanager
def waited_for(path: Path) -> Iterator[None]:
    """Holds a lock of its own file, once whoever has it is done; the file is gone afterwards.

    Raises:
        OSError: the place cannot be written to or locked.
    """
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if is_still_there(lock, path):
                break
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(lock)


def is_still_there(lock: int, path: Path) -> bool:
    """Whether an open file or folder has that path: whoever held it before may have removed it."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False
