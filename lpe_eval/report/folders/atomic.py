"""One file, written whole or not at all.

The text goes to a neighbour with the ending `.partial`, is forced to disk, and takes the name of
the file in one step. A process that dies at any moment leaves the old file or the new one.
"""

import contextlib
import os
from pathlib import Path

PARTIAL = ".partial"


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces the file at `path` by `content`, durably.

    Raises:
        OSError: the file cannot be written; the file that was there before is untouched.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
