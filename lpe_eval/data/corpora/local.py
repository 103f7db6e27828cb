"""Files of one's own: .txt (a file is a document), .jsonl and .parquet (a row is a document), or a folder.

A file or a folder may be at an address of object storage, `s3://bucket/books`; its documents are those of the same
files here. Files are read there as they are reached, so a budget of tokens needs no more of a corpus than it takes.

A folder is read with everything below it, in the order of the paths; links to folders are not followed,
and files of other kinds are passed over, as are empty ones and what macOS leaves (`._name`, `__MACOSX`). So are the
other files of a folder that the library `datasets` saved; its `.arrow` files are read.

The split `all` is everything. Any other split `S` is what a folder holds under the name S (`splits.py`). A folder
without such a name is refused rather than read whole, lest a model be tested on what it was trained on. Where no split
is named, a folder that holds training text gives its test split, or its validation split; without either it is refused.

Text must be UTF-8. Carriage returns stay as they are. A JSON text with half a surrogate pair is refused,
since it has no UTF-8 form. A file's name that is not UTF-8 becomes a document's name with escapes.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from lpe_eval.addresses import Entry, Listing, StoredFile, last_part, listed, typed_address, without_protocol
from lpe_eval.data.corpus import Corpus, Document, Part
from lpe_eval.data.files import READABLE, reader_of
from lpe_eval.data.sources import Source, size_of
from lpe_eval.data.splits import choose, files_of, held
from lpe_eval.data.texts import reading
from lpe_eval.errors import DataError, SpecError
from lpe_eval.plain import first_line, printable
from lpe_eval.spec.corpus_spec import CorpusSpec

_DEBRIS_FOLDER, _DEBRIS_FILE = "__MACOSX", "._"
_CACHES = ("cache-", "tmp")
"""Beginnings of the names of files that `datasets` keeps beside its data."""


class Local(Corpus):
    """See the module's docstring."""

    default_split = "all"

    def __init__(self, spec: CorpusSpec) -> None:
        super().__init__(spec)
        if spec.path is None:
            raise SpecError("the corpus local needs a path to a file or a folder")
        self._stored: Listing | None = None
        if (address := typed_address(spec.path)) is not None:
            self._where, self._stored = address, listed(address, DataError)
            there, self._is_file = bool(self._stored.entries), self._stored.is_file
        else:
            try:
                self._root = Path(without_protocol(spec.path)).expanduser()
                there, self._is_file = self._root.exists(), self._root.is_file()
            except (OSError, RuntimeError, ValueError) as error:
                why = first_line(error)
                raise DataError(f"the path {spec.path[:200]} of the corpus cannot be read: {why}") from error
            self._where = str(self._root)
        if not there:
            raise DataError(f"there is no file or folder {self._where}; check the path of the corpus")
        if self._is_file and reader_of(PurePosixPath(self._where)) is None:
            raise DataError(
                f"{self._where} is of no kind that can be read; the corpus local reads {READABLE} and folders"
            )

    @property
    def split(self) -> str:
        return self.spec.split or self._chosen

    @cached_property
    def _chosen(self) -> str:
        if self._is_file:
            return "all"
        chosen = choose(self._below)
        if chosen is None:
            others = len(self._below) - len(files_of(self._below, "train"))
            beside = f" beside {others} other files" if others else " and nothing else"
            raise DataError(
                f"{self._where} holds training text (a split train){beside}, so a model could be tested on what it "
                "learned; name what to measure: --split train, or --split all for everything"
            )
        return chosen

    def remarks(self) -> list[str]:
        if self.spec.split is not None or self._chosen == "all":
            return []
        return [
            f"{self.label} holds the splits {', '.join(held(self._below))}; {self._chosen} is measured. "
            "Name another with --split, or everything with --split all"
        ]

    def documents(self, split: str) -> Iterator[Document]:
        found = False
        for part in self.parts(split):
            for number in range(len(part)):
                document = part.read(number)
                if document is not None:
                    found = True
                    yield document
        if not found:
            raise self._nothing(split)

    def parts(self, split: str) -> Sequence[Part]:
        found: list[Part] = []
        with reading(self._where):
            for name in self._files(split):
                source, reader = self._source(name), reader_of(PurePosixPath(name))
                if reader is not None and (self._is_file or size_of(source) > 0):
                    found.append(reader(source, printable(name), self.spec.text_column))
        if not found:
            raise self._nothing(split)
        return found

    def describe(self) -> dict[str, str]:
        path = self._where if self._stored is not None else str(self._root.resolve())
        return {"path": path, "text_column": self.spec.text_column}

    def _nothing(self, split: str) -> DataError:
        return DataError(f"{self._where} (split {split}) holds no document; it needs non-empty {READABLE} files")

    def _files(self, split: str) -> list[str]:
        """The files of a split, by their paths below the root."""
        if self._is_file:
            if split == "all":
                return [last_part(self._where) if self._stored is not None else self._root.name]
            raise DataError(f"{self._where} is one file and has no split {split!r}; use the split all, or another file")
        found = self._below
        if split != "all":
            found = files_of(found, split)
            if not found:
                known = ", ".join(held(self._below))
                only = f", only {known}" if known else ""
                raise DataError(
                    f"{self._where} has no split {split!r}{only}; put it in a subfolder or a file of that name, "
                    "or use the split all"
                )
        return found

    def _source(self, name: str) -> Source:
        """A file of a split, by its path below the root."""
        if self._stored is None:
            return self._root if self._is_file else self._root / name
        address = self._where if self._is_file else f"{self._where}/{name}"
        return StoredFile(address, self._stored.files, self._entries[name])

    @cached_property
    def _entries(self) -> Mapping[str, Entry]:
        return {} if self._stored is None else {each.name: each for each in self._stored.entries}

    @cached_property
    def _below(self) -> list[str]:
        """Every file of the folder that can be read, in the order of the paths."""
        found = self._walked() if self._stored is None else self._entries
        return sorted(filter(_is_text, found), key=lambda path: path.split("/"))

    def _walked(self) -> Iterator[str]:
        for folder, inside, names in os.walk(self._root):
            inside[:] = [each for each in inside if each != _DEBRIS_FOLDER]
            above = Path(folder).relative_to(self._root).as_posix()
            before = "" if above == "." else f"{above}/"
            yield from (before + name for name in names if _is_text(before + name) and Path(folder, name).is_file())


def _is_text(name: str) -> bool:
    """Whether a file below a folder is of a kind that can be read, and nothing that a program left there."""
    *above, file = name.split("/")
    if _DEBRIS_FOLDER in above or file.startswith(_DEBRIS_FILE) or reader_of(PurePosixPath(file)) is None:
        return False
    return not (file.endswith(".arrow") and file.startswith(_CACHES))
