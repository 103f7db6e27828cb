"""A dataset of the Hugging Face Hub, or a folder that the library `datasets` can read; a row is a document.

Dataset scripts are refused, by `datasets` itself since version 4 and here before it: measuring should run
no code that comes with the data. With `streaming`, rows are taken in their own order and only as many as
are needed; without it a split is downloaded once, kept in the library's cache, and held in memory while
documents are chosen. The environment variables of the library (`HF_HOME`, `HF_HUB_OFFLINE`, `HF_TOKEN`)
work as usual. Name a `revision` to measure the same text next year.
"""

from collections.abc import Iterator
from pathlib import Path

from lpe_eval.data.corpus import Corpus, Document, text_of
from lpe_eval.errors import DataError, SpecError
from lpe_eval.plain import first_line
from lpe_eval.spec.corpus_spec import CorpusSpec


class Hub(Corpus):
    """See the module's docstring."""

    def __init__(self, spec: CorpusSpec) -> None:
        super().__init__(spec)
        if spec.path is None:
            raise SpecError("the corpus hub needs the id of a dataset; write hub:org/name")
        self._path = spec.path

    @property
    def streams(self) -> bool:
        return self.spec.streaming

    def documents(self, split: str) -> Iterator[Document]:
        # Importing `datasets` takes about a second, which only those who use it should wait for.
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        spec = self.spec
        if Path(self._path, f"{Path(self._path).name}.py").is_file():
            raise DataError(f"{self.label} is a dataset script, and none is run; convert it to Parquet")
        try:
            rows = load_dataset(
                self._path, name=spec.subset, split=split, revision=spec.revision, streaming=spec.streaming
            )
            for number, row in enumerate(rows):
                yield Document(f"{split}/{number}", text_of(row, spec.text_column, f"{self.label} (split {split})"))
        except (OSError, ValueError, RuntimeError, DatasetsError) as error:
            raise DataError(
                f"{self.label} (split {split}) cannot be loaded: {first_line(error)}; "
                "check the id, the split and the subset, and whether the network or a cached copy is there"
            ) from error

    def describe(self) -> dict[str, str]:
        # The library loads the default branch where no revision is named.
        return {
            "dataset": self._path,
            "subset": self.spec.subset or "default",
            "revision": self.spec.revision or "main",
            "text_column": self.spec.text_column,
            "streaming": str(self.spec.streaming).lower(),
        }
