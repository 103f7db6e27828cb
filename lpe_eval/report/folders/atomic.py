"""A file or a folder, written whole or not at all.

A file goes to a neighbour with the ending `.partial`, is forced to disk, and takes its name in one step. A process that
dies at any moment leaves the old file or the new one.

A folder is filled under a name that no other process has, `.NAME.PID-RANDOM.partial` beside it, and forced to disk.
Then, under the lock `.NAME.lock`, it takes its name:

    nothing there     one rename; of several processes exactly one wins
    a folder there    the two change places in one step (renameat2 with RENAME_EXCHANGE), and the old one is removed
    no such step      (another kernel or file system) the old one goes to `.NAME.aside` and the new one takes its
                      place; where a process died between the two, the next to write or to look for it puts it back

Choices:
    * Whoever fills a folder holds it by a lock of the kernel, which goes with the process. A folder under a private
      name that nobody holds is what a killed process left: the next to write that name removes it.
    * A file system that cannot lock folders keeps such leftovers, and so does Windows; they harm nothing.
    * Windows opens no folders, forces only what is open for writing, and replaces no file that somebody is reading: it
      is tried again for a moment. Its folders are replaced as where there is no such step.
"""

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lpe_eval.lock import is_still_there, take, waited_for

PARTIAL = ".partial"
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_OPENS_FOLDERS = getattr(os, "O_DIRECTORY", None) is not None
_PAUSES = () if _OPENS_FOLDERS else (0.01, 0.03, 0.1, 0.3, 1.0)
"""Seconds until a file that is being read may be replaced, one for each further try."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_SUCH_STEP = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)
"""What renameat2 says where kernel, file system or sandbox lack it."""


def write_atomically(path: Path, content: bytes, private: bool = False) -> None:
    """Replaces the file at `path` by `content`, durably.

    Args:
        path: the file.
        content: of it.
        private: whether other processes may write the same file meanwhile; the last one wins.

    Raises:
        OSError: the file cannot be written; the file that was there before is untouched.
    """
    with opened_atomically(path, private) as file:
        file.write(content)


@contextmanager
def opened_atomically(path: Path, private: bool = False) -> Iterator[BinaryIO]:
    """A file to write to, which replaces the one at `path`, durably, once all is written.

    Raises:
        OSError: the file cannot be written; the file that was there before is untouched.
    """
    partial = path.with_name(_name_of_its_own(path) if private else f".{path.name}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    _force_names(path.parent)


def write_once(path: Path, content: bytes) -> bool:
    """Makes the file at `path` of `content`, durably, unless there is one; of several processes exactly one does.

    Returns:
        Whether this process made it.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(_name_of_its_own(path))
    try:
        partial.write_bytes(content)
        _force(partial)
        try:
            # A second name: unlike a rename it never replaces a file, on shared file systems too.
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError:
            # No second names here. Whoever reads meanwhile may see the file before all of it is there.
            try:
                with path.open("xb") as file:
                    file.write(content)
            except FileExistsError:
                return False
        _force_names(path.parent)
        return True
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _name_of_its_own(path: Path) -> str:
    return f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}"


def write_folder(target: Path, fill: Callable[[Path], object], overwrite: bool) -> None:
    """Makes the folder `target` of what `fill` writes into the empty folder that it is given.

    Args:
        target: no symbolic link; its parents are made.
        fill: writes regular files, and no folders.
        overwrite: replace the folder that is there, with all that is in it.

    Raises:
        FileExistsError: there is a folder at `target` that is not empty, and `overwrite` is not set.
        OSError: the folder cannot be written; what was there before is untouched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    with _private(target) as partial:
        fill(partial)
        for file in partial.iterdir():
            _force(file)
        _force_names(partial)
        with waited_for(_lock(target)):
            _put_back(target)
            _take_name(partial, target, overwrite)
        _force_names(target.parent)


def put_back(target: Path) -> None:
    """Undoes a replacement that was cut short; nothing where there was none.

    Raises:
        OSError: it cannot be undone.
    """
    if _aside(target).exists():
        with waited_for(_lock(target)):
            _put_back(target)


def _take_name(partial: Path, target: Path, overwrite: bool) -> None:
    try:
        partial.replace(target)
        return
    except OSError as error:
        # Windows says that it may not.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES) or not target.is_dir():
            raise
        if not overwrite and any(target.iterdir()):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
    try:
        exchange(partial, target)
        return
    except OSError as error:
        if error.errno not in _NO_SUCH_STEP:
            raise
    target.rename(_aside(target))
    try:
        partial.rename(target)
    except BaseException:
        _aside(target).rename(target)
        raise
    shutil.rmtree(_aside(target), ignore_errors=True)


def exchange(one: Path, other: Path) -> None:
    """Two folders of one file system change places in one step.

    Raises:
        OSError: they do not; `errno` is ENOSYS where the C library has no such function.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # another C library, or Windows, which has no library without a name
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))


@contextmanager
def _private(target: Path) -> Iterator[Path]:
    """An empty folder that no other process touches; it is gone afterwards, whatever stands in it then."""
    while True:
        partial = target.with_name(_name_of_its_own(target))
        partial.mkdir()
        held = _held(partial)
        if held is not None or not _OPENS_FOLDERS:
            break
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if held is not None:
            os.close(held)


def _held(folder: Path) -> int | None:
    """A descriptor that holds a folder until it is closed; None where somebody else holds or removes it."""
    if not _OPENS_FOLDERS:
        return None
    try:
        opened = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return None
    try:
        take(opened)
        mine = is_still_there(opened, folder)
    except OSError as error:
        mine = not isinstance(error, BlockingIOError)
    if mine:
        return opened
    os.close(opened)
    return None


def _remove_leftovers(target: Path) -> None:
    if not _OPENS_FOLDERS:
        return
    name = re.compile(rf"\.{re.escape(target.name)}\.\d+-[0-9a-f]{{8}}{re.escape(PARTIAL)}")
    for found in [each for each in target.parent.iterdir() if name.fullmatch(each.name)]:
        with contextlib.suppress(OSError):
            opened = os.open(found, _FOLDER)
            try:
                take(opened)
                shutil.rmtree(found, ignore_errors=True)
            finally:
                os.close(opened)


def _put_back(target: Path) -> None:
    """The caller has the lock, so an aside that is there is nobody's."""
    aside = _aside(target)
    if not aside.exists():
        return
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.rename(target)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.aside")


def _lock(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _replace(partial: Path, path: Path) -> None:
    for pause in _PAUSES:
        try:
            partial.replace(path)
            return
        except PermissionError:
            if path.is_dir():
                raise
            time.sleep(pause)
    partial.replace(path)


def _force(file: Path) -> None:
    """Forces what stands in a file to disk.

    Raises:
        OSError: it cannot be opened for writing, or the disk fails.
    """
    opened = os.open(file, os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _force_names(folder: Path) -> None:
    """Forces the names in a folder to disk, where the system can be asked to."""
    if not _OPENS_FOLDERS:
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
