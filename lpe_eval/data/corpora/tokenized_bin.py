"""A file of token ids, one after the other, as nanoGPT, Megatron and others write them (without a header).

How ids are stored cannot be seen in the file, and 32-bit ids read as 16-bit ones are other ids that look
well. So the type is asked for: by `--token-dtype` (in a spec `token_dtype`), or in a JSON file beside the data that
has the same name with `.json` appended: `{"dtype": "uint16", "document_end": 0}`. `document_end` is the id after
which the next document begins; it stays at the end of its document. Without it the file is one document.
Ids are little-endian. There are no bytes of text, hence no bits per byte. A tokenizer is not needed; where the model
has one, that ids fit it is checked where documents are chosen. A file at an address of object storage is copied into
the cache, with the JSON file beside it.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from lpe_eval.addresses import last_part, typed_address, without_protocol
from lpe_eval.data.corpus import Corpus, Document
from lpe_eval.errors import DataError, SpecError
from lpe_eval.fetched import fetched_file
from lpe_eval.plain import first_line, json_of, read_plain
from lpe_eval.spec.corpus_spec import CorpusSpec, TokenDtype

_BESIDE = ".json"


class TokenizedBin(Corpus):
    """See the module's docstring."""

    default_split = "all"

    def __init__(self, spec: CorpusSpec) -> None:
        super().__init__(spec)
        if spec.path is None:
            raise SpecError("the corpus tokenized-bin needs the path of a file")
        address = typed_address(spec.path)
        try:
            name = "" if address is None else last_part(address)
            here = None if address is None else fetched_file(address, DataError, [f"{name}{_BESIDE}"])
            self._path = here or Path(without_protocol(spec.path)).expanduser()
            there = self._path.is_file()
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(f"the path {spec.path[:200]} of the corpus cannot be read: {first_line(error)}") from error
        if not there:
            raise DataError(f"there is no file {self._path}; check the path of the corpus")
        beside = _read_sidecar(self._path.with_name(self._path.name + _BESIDE))
        dtype = spec.token_dtype or beside.dtype
        if dtype is None:
            raise SpecError(f"{self._path} does not say how its ids are stored; give --token-dtype uint16 or uint32")
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._document_end = beside.document_end if spec.document_end is None else spec.document_end
        size = self._path.stat().st_size
        if size == 0:
            raise DataError(f"{self._path} is empty; give a file with token ids")
        if size % self._dtype.itemsize:
            raise DataError(f"{self._path} has {size} bytes, which is no whole number of {dtype} ids; check the type")

    @property
    def holds_ids(self) -> bool:
        return True

    def documents(self, split: str) -> Iterator[Document]:
        if split != "all":
            raise DataError(f"{self._path} is one file and has no split {split!r}; use the split all, or another file")
        try:
            ids = np.memmap(self._path, dtype=self._dtype, mode="r")
        except (OSError, ValueError) as error:
            raise DataError(f"{self._path} cannot be read: {first_line(error)}") from error
        name = self._path.name
        if self._document_end is None:
            yield Document(name, "", ids)
            return
        ends = [*(np.flatnonzero(ids == self._document_end) + 1).tolist(), len(ids)]
        for number, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if stop > start:
                yield Document(f"{name}#{number}", "", ids[start:stop])

    def describe(self) -> dict[str, str]:
        return {
            "path": typed_address(self.spec.path or "") or str(self._path.resolve()),
            "token_dtype": self._dtype.name,
            "document_end": "none" if self._document_end is None else str(self._document_end),
        }


class _Sidecar(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: TokenDtype | None = None
    document_end: int | None = None


def _read_sidecar(path: Path) -> _Sidecar:
    if not path.is_file():
        return _Sidecar()
    try:
        return _Sidecar(**json_of(read_plain(path)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}, {where!r}: {first['msg']}; it may have dtype and document_end") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is no JSON object with dtype and document_end: {first_line(error)}") from error
