"""Files of one's own: .txt (a file is a document), .jsonl and .parquet (a row is a document), or a folder.

A folder is read with everything below it, in the order of the paths; links to folders are not followed,
and files of other kinds are passed over, as are empty ones. The split `all` is everything, and the default.
Any other split `S` is what a folder holds under the name S: a subfolder S, or files called S.*. A folder
without such a name is refused rather than read whole, lest a model be tested on what it was trained on.

Text must be UTF-8. Carriage returns stay as they are. A JSON text with half a surrogate pair is refused,
since it has no UTF-8 form. Parquet is read a batch of rows at a time. A file's name that is not UTF-8 becomes
a document's name with escapes.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from lpe_eval.data.corpus import Corpus, Document, text_of
from lpe_eval.errors import DataError, SpecError
from lpe_eval.plain import Unreadable, first_line, json_of, printable
from lpe_eval.spec.corpus_spec import CorpusSpec


class Local(Corpus):
    """See the module's docstring."""

    default_split = "all"

    def __init__(self, spec: CorpusSpec) -> None:
        super().__init__(spec)
        if spec.path is None:
            raise SpecError("the corpus local needs a path to a file or a folder")
        try:
            self._root = Path(spec.path).expanduser()
            there = self._root.exists()
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(f"the path {spec.path[:200]} of the corpus cannot be read: {first_line(error)}") from error
        if not there:
            raise DataError(f"there is no file or folder {self._root}; check the path of the corpus")
        if self._root.is_file() and self._root.suffix not in _READERS:
            raise DataError(
                f"{self._root} is of no kind that can be read; the corpus local reads {', '.join(_READERS)} and folders"
            )

    def documents(self, split: str) -> Iterator[Document]:
        found = False
        for path in self._files(split):
            name = path.name if self._root.is_file() else path.relative_to(self._root).as_posix()
            try:
                if path.stat().st_size == 0 and self._root.is_dir():
                    continue
                for document in _READERS[path.suffix](path, printable(name), self.spec.text_column):
                    found = True
                    yield document
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror or first_line(error)}") from error
        if not found:
            readable = ", ".join(_READERS)
            raise DataError(f"{self._root} (split {split}) holds no document; it needs non-empty {readable} files")

    def describe(self) -> dict[str, str]:
        return {"path": str(self._root.resolve()), "text_column": self.spec.text_column}

    def _files(self, split: str) -> list[Path]:
        if self._root.is_file():
            if split == "all":
                return [self._root]
            raise DataError(f"{self._root} is one file and has no split {split!r}; use the split all, or another file")
        roots = [self._root]
        if split != "all":
            roots = [each for each in self._root.iterdir() if split in (each.name, each.stem)]
            if not roots:
                raise DataError(
                    f"{self._root} has no split {split!r}; put it in a subfolder or a file of that name, "
                    "or use the split all"
                )
        files = [file for root in roots for file in ([root] if root.is_file() else _below(root))]
        return sorted(file for file in files if file.suffix in _READERS and file.is_file())


def _below(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        yield from (Path(folder, name) for name in names)


def _text(path: Path, name: str, column: str) -> Iterator[Document]:
    content = path.read_bytes()
    if not content:
        raise DataError(f"{path} is empty; give a file with text")
    if b"\0" in content:
        raise DataError(f"{path} looks like binary data, not text; token ids belong in a .bin file")
    yield Document(name, _decode(content, str(path)))


def _json_lines(path: Path, name: str, column: str) -> Iterator[Document]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number},"
            try:
                row = json_of(_decode(line, where))
            except Unreadable as error:
                raise DataError(f"{where} {error}; a .jsonl file has one object on each line") from error
            if not isinstance(row, dict):
                raise DataError(f"{where} holds no JSON object; write {{{column!r}: ...}} on each line")
            text = text_of(row, column, where.rstrip(","))
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise DataError(f"{where} holds half a surrogate pair, which is no character; remove it")
            yield Document(f"{name}#{number}", text)


def _parquet(path: Path, name: str, column: str) -> Iterator[Document]:
    # Loaded where it is needed, as pandas does, so that text files need not wait for it.
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        # An open file, because a path with :: or * in it would be taken for a pattern or an address.
        with path.open("rb") as file, parquet.ParquetFile(file) as table:
            if column not in table.schema_arrow.names:
                text_of(dict.fromkeys(table.schema_arrow.names), column, str(path))
            for batch in table.iter_batches(batch_size=_ROWS, columns=[column]):
                for row in batch.to_pylist():
                    yield Document(f"{name}#{number}", text_of(row, column, str(path)))
                    number += 1
    except (ValueError, LookupError, TypeError, OverflowError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} is no readable Parquet file: {first_line(error)}") from error


def _decode(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 (byte {error.start}); convert it to UTF-8") from error


_ROWS = 256
"""Rows of a table held at once: a row may be a book."""

_READERS: dict[str, Callable[[Path, str, str], Iterator[Document]]] = {
    ".txt": _text,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
