"""A dataset of the Hugging Face Hub, or a folder that the library `datasets` can read; a row is a document.

Dataset scripts are refused, by `datasets` itself since version 4 and here before it: measuring should run
no code that comes with the data. With `streaming`, rows are taken in their own order and only as many as
are needed; without it a split is downloaded once and kept in the library's cache, from where rows are read as they
are wanted. A folder that `datasets` saved with `save_to_disk` is read as `local` reads it. The environment variables
of the library (`HF_HOME`, `HF_HUB_OFFLINE`, `HF_TOKEN`) work as usual. Name a `revision` to measure the same text
next year.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lpe_eval.data.corpora.local import Local
from lpe_eval.data.corpus import Corpus, Document, Part, text_of
from lpe_eval.errors import DataError, SpecError
from lpe_eval.plain import first_line
from lpe_eval.spec.corpus_spec import CorpusSpec

_SAVED = ("dataset_dict.json", "state.json")
"""Files of a folder that `save_to_disk` wrote."""
_LISTED = re.compile(r"\[([^\]]*)\]")


class Hub(Corpus):
    """See the module's docstring."""

    def __init__(self, spec: CorpusSpec) -> None:
        super().__init__(spec)
        if spec.path is None:
            raise SpecError("the corpus hub needs the id of a dataset; write hub:org/name")
        self._path = spec.path
        here = Path(spec.path)
        if spec.path.startswith("~"):
            here = here.expanduser()
            self._path = str(here)
        saved = here.is_dir() and any((here / name).is_file() for name in _SAVED)
        self._saved = Local(spec.model_copy(update={"name": "local", "path": str(here)})) if saved else None

    @property
    def split(self) -> str:
        return super().split if self._saved is None else self._saved.split

    @property
    def streams(self) -> bool:
        return self.spec.streaming and self._saved is None

    def documents(self, split: str) -> Iterator[Document]:
        if self._saved is not None:
            yield from self._saved.documents(split)
            return
        try:
            for number, row in enumerate(self._rows(split)):
                yield self._document(split, number, row)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._told(split, error) from error

    def parts(self, split: str) -> Sequence[Part] | None:
        if self._saved is not None:
            return self._saved.parts(split)
        return None if self.streams else [_Rows(self, split)]

    def remarks(self) -> list[str]:
        return [] if self._saved is None else self._saved.remarks()

    def describe(self) -> dict[str, str]:
        # The library loads the default branch where no revision is named.
        return {
            "dataset": self._path,
            "subset": self.spec.subset or "default",
            "revision": self.spec.revision or "main",
            "text_column": self.spec.text_column,
            "streaming": str(self.spec.streaming).lower(),
        }

    def _rows(self, split: str) -> Any:
        """The rows of a split, as `datasets` gives them."""
        # Importing `datasets` takes about a second, which only those who use it should wait for.
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        spec = self.spec
        if Path(self._path, f"{Path(self._path).name}.py").is_file():
            raise DataError(f"{self.label} is a dataset script, and none is run; convert it to Parquet")
        try:
            return load_dataset(
                self._path, name=spec.subset, split=split, revision=spec.revision, streaming=spec.streaming
            )
        except (OSError, ValueError, RuntimeError, LookupError, DatasetsError) as error:
            raise self._told(split, error) from error

    def _document(self, split: str, number: int, row: Any) -> Document:
        return Document(f"{split}/{number}", text_of(row, self.spec.text_column, f"{self.label} (split {split})"))

    def _told(self, split: str, error: BaseException) -> DataError:
        said, listed = str(error), _LISTED.search(str(error))
        if listed is not None and "config" in said.lower():
            wanted = f"has no subset {self.spec.subset}, only" if self.spec.subset else "has several subsets:"
            return DataError(f"{self.label} {wanted} {_plain(listed[1])}; choose one with --subset")
        if listed is not None and "split" in said.lower():
            return DataError(
                f"{self.label} (split {split}) cannot be loaded: it has only {_plain(listed[1])}; choose with --split"
            )
        return DataError(
            f"{self.label} (split {split}) cannot be loaded: {first_line(error)}; "
            "check the id, --split and --subset, and whether the network or a cached copy is there"
        )


class _Rows(Part):
    """The rows of a split that was downloaded."""

    def __init__(self, corpus: Hub, split: str) -> None:
        self._corpus, self._split = corpus, split
        self._table = corpus._rows(split)

    def __len__(self) -> int:
        return len(self._table)

    def name(self, number: int) -> str:
        return f"{self._split}/{number}"

    def read(self, number: int) -> Document | None:
        return self._corpus._document(self._split, number, self._table[number])


def _plain(listed: str) -> str:
    """Names as a list of Python shows them, without its quotes."""
    return ", ".join(name.strip().strip("'\"") for name in listed.split(","))
