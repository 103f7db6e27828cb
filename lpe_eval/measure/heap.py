"""Memory that is freed and needed again a moment later, kept instead of given back.

Each step of a training on a CPU, and each window that is scored, allocates the same hundreds of megabytes and frees
them. The GNU C library gives large blocks back to the kernel at once, and the next step gets them page by page,
zeroed: in training six small encoders that was a quarter of all time. Other C libraries, and CUDA, are left alone.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of `mallopt`, from malloc.h."""
_LARGEST_KEPT = (1 << 30, 1 << 25)
"""Bytes of the largest block that is kept, the first that is accepted: glibc before 2.35 allows no more than 32 MiB."""
_OTHERS = ((_TRIM_THRESHOLD, (1 << 31) - 1), (_TOP_PAD, 1 << 26))

_SHARED: ContextVar[bool] = ContextVar("shared", default=False)


@contextmanager
def shared_process() -> Iterator[None]:
    """Inside, `keep_freed_memory` does nothing, since the process is a program's that goes on afterwards."""
    token = _SHARED.set(True)
    try:
        yield
    finally:
        _SHARED.reset(token)


def keep_freed_memory() -> bool:
    """From now on this process keeps what it frees, to its end; tells whether that could be arranged."""
    if _SHARED.get() or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # a process without a C library to ask
        return False
    largest = any(mallopt(_MMAP_THRESHOLD, value) == 1 for value in _LARGEST_KEPT)
    return largest and all(mallopt(parameter, value) == 1 for parameter, value in _OTHERS)
