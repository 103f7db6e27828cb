"""Losses of single tokens: a Parquet file a cell in the folder `by_token` of a run.

All files together are one table for whoever reads the folder: `pandas.read_parquet("RUN/by_token")`. Rows stand in the
order of documents and of the text. A file is written and read a piece at a time, so memory holds a piece and not a
cell; the pieces are of one size, so that the same losses give the same bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from lpe_eval import text_tables
from lpe_eval.errors import OutputError
from lpe_eval.records import TokenPart
from lpe_eval.report.folders.atomic import opened_atomically
from lpe_eval.table import CellKey

BY_TOKEN = "by_token"

_ROWS = 1 << 18
"""Targets in one piece of a file."""
_TYPES = {"string": pa.string(), "Int64": pa.int64(), "float32": pa.float32()}
_SMALL = {"token": pa.int32(), "context": pa.int32(), "n_bytes": pa.int32()}
_SCHEMA = pa.schema([(column.name, _SMALL.get(column.name, _TYPES[column.kind])) for column in text_tables.TOKENS])
_NUMBERS = ("position", "token", "context", "byte_from", "n_bytes", "loss")


class DocumentTokens(NamedTuple):
    """The scored targets of one document of a cell, in the order of its text."""

    document: str
    digest: str
    position: Int[np.ndarray, " n"]
    byte_from: Int[np.ndarray, " n"]
    n_bytes: Int[np.ndarray, " n"]
    loss: Float[np.ndarray, " n"]


def write_tokens(path: Path, run: str, key: CellKey, parts: Iterable[TokenPart], private: bool = False) -> int:
    """Writes the targets of a cell, durably; gives the bytes that were written.

    Args:
        path: the file, which appears whole or not at all.
        run: id of the run.
        key: which cell.
        parts: its targets.
        private: whether other processes may write the same file meanwhile.

    Raises:
        OSError: it cannot be written.
    """
    with opened_atomically(path, private) as file:
        # No time and no name of a machine is written into a Parquet file.
        with pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer:
            for piece in _pieces(parts):
                writer.write_batch(_batch(run, key, piece))
        return file.tell()


def read_tokens(path: Path) -> Iterator[DocumentTokens]:
    """The targets of a cell, a document at a time.

    Raises:
        OutputError: the file is missing or damaged.
    """
    columns = ["document", "digest", "position", "byte_from", "n_bytes", "loss"]
    try:
        held: list[tuple[Any, ...]] = []
        with pq.ParquetFile(path, read_dictionary=["document", "digest"]) as file:
            if file.schema_arrow.names != _SCHEMA.names:
                raise OutputError(f"{path} does not have the columns of this version of lpe-eval; measure anew")
            for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
                for piece in _by_document(batch):
                    if held and held[0][:2] != piece[:2]:
                        yield _joined(held)
                        held = []
                    held.append(piece)
        if held:
            yield _joined(held)
    except (OSError, pa.ArrowException, ValueError, LookupError) as error:
        raise OutputError(f"{path} is missing or damaged; run the same command again to write it anew") from error


def _pieces(parts: Iterable[TokenPart]) -> Iterator[list[TokenPart]]:
    """The same targets in lists of `_ROWS`, the last one shorter."""
    held: list[TokenPart] = []
    count = 0
    for part in parts:
        while len(part.position):
            room = _ROWS - count
            held.append(_cut(part, slice(None, room)))
            count += len(held[-1].position)
            part = _cut(part, slice(room, None))
            if count == _ROWS:
                yield held
                held, count = [], 0
    if held:
        yield held


def _cut(part: TokenPart, where: slice) -> TokenPart:
    return part._replace(**{name: getattr(part, name)[where] for name in _NUMBERS})


def _batch(run: str, key: CellKey, piece: Sequence[TokenPart]) -> pa.RecordBatch:
    sizes = [len(part.position) for part in piece]
    count = sum(sizes)
    same = {"run": run, **key._asdict()}
    columns: list[pa.Array] = []
    for field in _SCHEMA:
        if field.name in same:
            columns.append(pa.repeat(pa.scalar(same[field.name], field.type), count))
        elif field.name in _NUMBERS:
            whole = np.concatenate([getattr(part, field.name) for part in piece])
            columns.append(pa.array(whole).cast(field.type))
        else:
            names = pa.array([getattr(part, field.name) for part in piece], field.type)
            columns.append(names.take(pa.array(np.repeat(np.arange(len(piece)), sizes))))
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)


def _by_document(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """The parts of a batch that belong to one document each: name, digest, and the columns."""
    names = [batch.column(name) for name in ("document", "digest")]
    codes = [np.asarray(each.indices) for each in names]
    changed = np.flatnonzero((np.diff(codes[0]) != 0) | (np.diff(codes[1]) != 0)) + 1
    ends = [0, *changed.tolist(), batch.num_rows]
    columns = [batch.column(name).to_numpy() for name in ("position", "byte_from", "n_bytes", "loss")]
    for start, stop in pairwise(ends):
        if stop > start:
            document, digest = (str(each.dictionary[int(code[start])]) for each, code in zip(names, codes, strict=True))
            yield (document, digest, *(column[start:stop] for column in columns))


def _joined(held: Sequence[tuple[Any, ...]]) -> DocumentTokens:
    columns = [np.concatenate([piece[place] for piece in held]) for place in range(2, 6)]
    position, byte_from, n_bytes, loss = columns
    return DocumentTokens(
        held[0][0], held[0][1], position, byte_from, n_bytes.astype(np.int64), loss.astype(np.float64)
    )
