"""Files of documents, each read no further than is wanted: .txt is one document; a row of .jsonl, .parquet, .arrow is.

Where rows begin is found without understanding them: line breaks are counted, and Parquet and Arrow say how many
rows they have. So the order of documents, which hashes names, costs no reading, and then only those that are visited
are read.

A file may be at an address of object storage. Then what is read is fetched: of text and lines the bytes that are
wanted, once all of them to count lines or for the digest of a long text; of Parquet the groups of rows that are
wanted. Nothing of it is stored on this machine, but an Arrow file, which is copied into the cache.

Choices:
    * `.gz` and `.zst` are unpacked as they are read; of packed lines a temporary file holds what was unpacked, since
      their beginnings cannot be found in the packed ones.
    * A row whose text is null is a document without text, which a selection passes over and counts.
    * Arrow files are those of the library `datasets` (streams), or of Feather.
"""

import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import PurePath
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lpe_eval.addresses import StoredFile
from lpe_eval.data.corpus import Document, Part, text_of
from lpe_eval.data.sources import Source, on_disk, opened, packing, size_of
from lpe_eval.data.texts import FileText, decoded, reading
from lpe_eval.errors import DataError
from lpe_eval.plain import Unreadable, first_line, json_of

_LARGE = 1 << 22
"""Bytes of a text that is not held whole."""
_PIECE = 1 << 24
_HELD_BYTES = 1 << 29
"""Bytes of rows that a Parquet file may keep decoded: documents are visited in a mixed order."""


class TextFile(Part):
    """One text.

    Args:
        path: the file.
        name: of the document.
        column: not used.
    """

    def __init__(self, path: Source, name: str, column: str) -> None:
        self._path, self._name = path, name

    def __len__(self) -> int:
        return 1

    def name(self, number: int) -> str:
        return self._name

    def read(self, number: int) -> Document | None:
        where = str(self._path)
        with reading(where):
            size = size_of(self._path)
            packed = packing(self._path) is not None
            if packed or size > _LARGE:
                return Document(self._name, FileText(partial(opened, self._path), where, None if packed else size))
            content = self._path.read_bytes()
        if not content:
            raise DataError(f"{where} is empty; give a file with text")
        return Document(self._name, decoded(content, where))


class JsonLines(Part):
    """A JSON object on each line.

    Args:
        path: the file.
        name: of the file; a document's has the number of its line.
        column: the key of the text.
    """

    def __init__(self, path: Source, name: str, column: str) -> None:
        self._path, self._name, self._column = path, name, column
        self._unpacked: Any = None
        self._found: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self._bounds()) - 1

    def name(self, number: int) -> str:
        return f"{self._name}#{number + 1}"

    def read(self, number: int) -> Document | None:
        start, stop = self._bounds()[number : number + 2].tolist()
        with reading(str(self._path)):
            line = self._piece(start, stop)
        where = f"{self._path}, line {number + 1},"
        try:
            written = decoded(line, where)
            if not written.strip():
                return None
            row = json_of(written)
        except Unreadable as error:
            raise DataError(f"{where} {error}; a .jsonl file has one object on each line") from error
        if not isinstance(row, dict):
            raise DataError(f"{where} holds no JSON object; write {{{self._column!r}: ...}} on each line")
        text = text_of(row, self._column, where.rstrip(","))
        if text is not None and any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f"{where} holds half a surrogate pair, which is no character; remove it")
        return Document(self.name(number), text)

    def _piece(self, start: int, stop: int) -> bytes:
        if isinstance(self._path, StoredFile) and packing(self._path) is None:
            return self._path.piece(start, stop)
        with self._unpacked_file() as file:
            file.seek(start)
            return file.read(stop - start)

    @contextmanager
    def _unpacked_file(self) -> Iterator[Any]:
        if packing(self._path) is None:
            with self._path.open("rb") as file:
                yield file
            return
        if self._unpacked is None:
            # Open as long as the part is used, and gone with it.
            self._unpacked = tempfile.TemporaryFile()  # noqa: SIM115
            weakref.finalize(self, self._unpacked.close)
            with opened(self._path) as packed:
                shutil.copyfileobj(packed, self._unpacked, _PIECE)
        yield self._unpacked

    def _bounds(self) -> NDArray[np.int64]:
        """Where each line begins, and where the last one ends."""
        if self._found is None:
            with reading(str(self._path)), self._unpacked_file() as file:
                file.seek(0)
                breaks: list[NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]
                read = 0
                while piece := file.read(_PIECE):
                    breaks.append(np.flatnonzero(np.frombuffer(piece, dtype=np.uint8) == ord("\n")) + (read + 1))
                    read += len(piece)
            bounds = np.concatenate(breaks)
            self._found = bounds if bounds[-1] == read else np.append(bounds, read)
        return self._found


class Parquet(Part):
    """A row of a Parquet table is a document.

    Args:
        path: the file.
        name: of the file; a document's has the number of its row.
        column: the column of the text.
    """

    def __init__(self, path: Source, name: str, column: str) -> None:
        self._path, self._name, self._column = path, name, column
        self._ends: NDArray[np.int64] | None = None
        self._held: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        return int(self._groups()[-1])

    def name(self, number: int) -> str:
        return f"{self._name}#{number}"

    def read(self, number: int) -> Document | None:
        ends = self._groups()
        group = int(np.searchsorted(ends, number, side="right")) - 1
        value = self._group(group)[number - int(ends[group])].as_py()
        return Document(self.name(number), text_of({self._column: value}, self._column, str(self._path)))

    def _group(self, number: int) -> Any:
        if number not in self._held:
            rows = self._opened(lambda table: table.read_row_group(number, columns=[self._column]).column(0))
            self._held[number] = rows
            while len(self._held) > 1 and sum(each.nbytes for each in self._held.values()) > _HELD_BYTES:
                self._held.popitem(last=False)
        self._held.move_to_end(number)
        return self._held[number]

    def _groups(self) -> NDArray[np.int64]:
        """How many rows lie before each group, and in all."""
        found = self._ends
        if found is None:
            found = self._ends = cast("NDArray[np.int64]", self._opened(self._counted))
        return found

    def _counted(self, table: Any) -> NDArray[np.int64]:
        if self._column not in table.schema_arrow.names:
            text_of(dict.fromkeys(table.schema_arrow.names), self._column, str(self._path))
        counts = [table.metadata.row_group(group).num_rows for group in range(table.metadata.num_row_groups)]
        return np.cumsum([0, *counts])

    def _opened(self, work: Callable[[Any], Any]) -> Any:
        # Loaded where it is needed, as pandas does, so that text files need not wait for it.
        import pyarrow
        from pyarrow import parquet

        try:
            # An open file, because a path with :: or * in it would be taken for a pattern or an address.
            with self._path.open("rb") as file, parquet.ParquetFile(file) as table:
                return work(table)
        except OSError as error:
            if error.errno is not None:
                raise DataError(f"{self._path} cannot be read: {error.strerror or first_line(error)}") from error
            raise DataError(f"{self._path} is no readable Parquet file: {first_line(error)}") from error
        except (ValueError, LookupError, TypeError, OverflowError, pyarrow.ArrowException) as error:
            raise DataError(f"{self._path} is no readable Parquet file: {first_line(error)}") from error


class Arrow(Part):
    """A row of an Arrow table is a document, as `datasets` saves them.

    Args:
        path: the file; it stays on the disk, and the system reads the pages that are wanted.
        name: of the file; a document's has the number of its row.
        column: the column of the text.
    """

    def __init__(self, path: Source, name: str, column: str) -> None:
        self._path, self._name, self._column = path, name, column
        self._rows: Any = None

    def __len__(self) -> int:
        return len(self._table())

    def name(self, number: int) -> str:
        return f"{self._name}#{number}"

    def read(self, number: int) -> Document | None:
        value = self._table()[number].as_py()
        return Document(self.name(number), text_of({self._column: value}, self._column, str(self._path)))

    def _table(self) -> Any:
        if self._rows is None:
            import pyarrow

            try:
                source = pyarrow.memory_map(str(on_disk(self._path)))
                try:
                    table = pyarrow.ipc.open_stream(source).read_all()
                except pyarrow.ArrowInvalid:
                    table = pyarrow.ipc.open_file(source).read_all()
            except (OSError, ValueError, LookupError, TypeError, pyarrow.ArrowException) as error:
                raise DataError(f"{self._path} is no readable Arrow file: {first_line(error)}") from error
            if self._column not in table.column_names:
                text_of(dict.fromkeys(table.column_names), self._column, str(self._path))
            self._rows = table.column(self._column)
        return self._rows


READERS: dict[str, Callable[[Source, str, str], Part]] = {
    ".txt": TextFile,
    ".jsonl": JsonLines,
    ".parquet": Parquet,
    ".arrow": Arrow,
}
_PACKED = {".txt": TextFile, ".jsonl": JsonLines, ".json": JsonLines}
READABLE = ", ".join((*READERS, ".txt.gz", ".jsonl.gz", ".txt.zst", ".jsonl.zst"))
"""For messages."""


def reader_of(path: PurePath) -> Callable[[Source, str, str], Part] | None:
    """What reads a file of that name; None where nothing does."""
    if packing(path) is None:
        return READERS.get(path.suffix)
    return _PACKED.get(PurePath(path.stem).suffix)
