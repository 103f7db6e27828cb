"""A file of documents wherever it is: on this machine or at an address, packed or not."""

import gzip
import os
from pathlib import Path, PurePath
from typing import Any

from lpe_eval.addresses import StoredFile
from lpe_eval.errors import DataError
from lpe_eval.fetched import fetched_file

Source = Path | StoredFile
"""A file on this machine, or at an address."""


def size_of(path: Source) -> int:
    """The bytes of a file.

    Raises:
        OSError: it cannot be told.
    """
    return path.size if isinstance(path, StoredFile) else path.stat().st_size


def on_disk(path: Source) -> Path:
    """The file on this machine: itself, or a copy in the cache."""
    return fetched_file(str(path), DataError) if isinstance(path, StoredFile) else path


def packing(path: PurePath | StoredFile) -> str | None:
    """How a file of that name is packed; None where it is not."""
    return {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)


def opened(path: Source) -> Any:
    """The bytes of a file, unpacked."""
    match packing(path):
        case "gzip":
            return gzip.open(path.open("rb") if isinstance(path, StoredFile) else path, "rb")
        case "zstd":
            import pyarrow

            stored = isinstance(path, StoredFile)
            file = pyarrow.PythonFile(path.open("rb"), mode="r") if stored else pyarrow.OSFile(os.fspath(path))
            return pyarrow.input_stream(file, compression="zstd")
        case _:
            return path.open("rb")
