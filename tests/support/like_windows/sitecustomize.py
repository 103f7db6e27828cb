"""Makes this Python, and those that it starts, as poor as one on Windows, as far as files and locks go.

For tests: put this folder first on PYTHONPATH. POSIX modules and names are gone, `msvcrt.locking` is there (upon the
kernel's locks), folders cannot be opened, what is only read cannot be forced to disk, what is open can neither be
removed nor replaced, some characters fit into no name, and `rename` never replaces. What Windows does in C beyond that
(line ends of text files, paths with drives) stays untried.
"""

import builtins
import contextlib
import ctypes
import errno
import fcntl
import io
import os
import re
import shutil
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog", "readline")
_NAMES = (
    *("O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_SYNC", "O_DSYNC", "O_NOCTTY"),
    *("fork", "forkpty", "getuid", "geteuid", "getgid", "getegid", "setsid", "getpgid", "killpg", "mkfifo"),
    *("sched_getaffinity", "sched_setaffinity", "statvfs", "chown", "fchown", "fchmod", "sysconf", "getloadavg"),
    *("nice", "getpriority", "posix_fadvise", "posix_spawn"),
)
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')
_open, _io_open, _fsync, _mkdir = os.open, io.open, os.fsync, os.mkdir
_rename, _replace, _unlink, _rmdir = os.rename, os.replace, os.unlink, os.rmdir
_O_ACCMODE = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


def _refuse(number: int, path: Any = None) -> Any:
    raise OSError(number, os.strerror(number), path)


def _path(path: Any) -> Path:
    return Path(os.fsdecode(path))


def _named(path: Any) -> None:
    if not isinstance(path, int) and _FORBIDDEN.search(_path(path).name):
        _refuse(errno.EINVAL, path)


def _open_files() -> Iterator[str]:
    """The paths of all files that processes have open, as far as they can be seen."""
    for process in Path("/proc").glob("[0-9]*/fd"):
        # Processes end, and files are closed, while this goes on.
        with contextlib.suppress(OSError):
            for number in process.iterdir():
                with contextlib.suppress(OSError):
                    yield str(number.readlink())


def _in_use(path: Any) -> bool:
    place = str(_path(path).resolve())
    return any(each == place or each.startswith(f"{place}/") for each in _open_files())


def _opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    if dir_fd is None and _path(path).is_dir():
        _refuse(errno.EACCES, path)
    if flags & os.O_CREAT:
        _named(path)
    return _open(path, flags, mode, dir_fd=dir_fd)


def _file(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
    if not isinstance(file, int) and set(mode) & set("wax"):
        _named(file)
    if mode and "b" not in mode and len(more) < 2 and named.get("encoding") is None:
        named["encoding"] = io.text_encoding(None, 2)
    return _io_open(file, mode, *more, **named)


def _forced(opened: int) -> None:
    if fcntl.fcntl(opened, fcntl.F_GETFL) & _O_ACCMODE == os.O_RDONLY:
        _refuse(errno.EBADF)
    _fsync(opened)


def _made(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    _named(path)
    _mkdir(path, mode, dir_fd=dir_fd)


def _renamed(old: Any, new: Any, **named: Any) -> None:
    if os.path.lexists(new):
        _refuse(errno.EEXIST, new)
    if _in_use(old):
        _refuse(errno.EACCES, old)
    _named(new)
    _rename(old, new, **named)


def _replaced(old: Any, new: Any, **named: Any) -> None:
    if _path(new).is_dir() or _in_use(old) or _in_use(new):
        _refuse(errno.EACCES, new)
    _named(new)
    _replace(old, new, **named)


def _removed(path: Any, *, dir_fd: int | None = None) -> None:
    if dir_fd is None and os.path.lexists(path) and _in_use(path):
        _refuse(errno.EACCES, path)
    _unlink(path, dir_fd=dir_fd)


def _locking(opened: int, mode: int, n_bytes: int) -> None:
    assert n_bytes > 0
    try:
        fcntl.flock(opened, fcntl.LOCK_UN if mode == 0 else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _refuse(errno.EACCES)


class _Library(ctypes.CDLL):
    """Windows has no library without a name; torch may have one all the same."""

    def __init__(self, name: Any, *more: Any, **named: Any) -> None:
        if name is None and str(sys._getframe(1).f_globals.get("__name__")).startswith("lpe_eval"):
            raise TypeError("bad argument type for built-in operation")
        super().__init__(name, *more, **named)


def _as_poor() -> None:
    # subprocess takes a system with `msvcrt` for Windows, so it is imported before.
    assert subprocess.Popen
    msvcrt: Any = types.ModuleType("msvcrt")
    msvcrt.LK_UNLCK, msvcrt.LK_LOCK, msvcrt.LK_NBLCK, msvcrt.locking = 0, 1, 2, _locking
    for name in _MODULES:
        sys.modules[name] = None  # pyright: ignore[reportArgumentType]
    sys.modules["msvcrt"] = msvcrt
    for name in _NAMES:
        if hasattr(os, name):
            delattr(os, name)
    replaced: dict[str, Callable[..., Any]] = {
        "open": _opened, "fsync": _forced, "mkdir": _made, "rename": _renamed, "replace": _replaced,
        "unlink": _removed, "remove": _removed,
    }  # fmt: skip
    for name, function in replaced.items():
        setattr(os, name, function)
    io.open = builtins.open = _file
    ctypes.CDLL = _Library
    os.linesep = "\r\n"
    vars(shutil)["_use_fd_functions"] = False
    # A text file without an encoding would be in another one there.
    warnings.filterwarnings("error", category=EncodingWarning, module="lpe_eval")


_as_poor()
