"""The sums of all cells as tables, `by_document.parquet` and `by_position.parquet`, written piece by piece.

A piece has `_ROWS` rows and is a row group, so that memory holds a piece and a cell, however many cells there are.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lpe_eval import table
from lpe_eval.records import BlockColumns
from lpe_eval.report.folders.atomic import opened_atomically
from lpe_eval.report.folders.cell_files import NUMBERS, CellSums
from lpe_eval.report.frames import typed_frame
from lpe_eval.table import CellKey, Column, PositionSum

_ROWS = 1 << 17
_TABLES = {"by_document.parquet": table.BY_DOCUMENT, "by_position.parquet": table.BY_POSITION}
_SAMPLE: dict[str, Any] = {"string": "", "Int64": 0, "float64": 0.0}


def write_sums(folder: Path, run: str, cells: Iterable[tuple[CellKey, CellSums]], private: bool) -> None:
    """Writes both tables, durably, the cells in their order; each is asked for once, and let go.

    Args:
        folder: of the run.
        run: its id.
        cells: with their sums.
        private: whether other processes may write the same files meanwhile.

    Raises:
        OSError: they cannot be written; what was there before is untouched.
    """
    with ExitStack() as stack:
        documents, positions = (
            stack.enter_context(_Writer(stack.enter_context(opened_atomically(folder / name, private)), columns))
            for name, columns in _TABLES.items()
        )
        for key, sums in cells:
            where = {"run": run, **key._asdict()}
            documents.add(where, len(sums.blocks), _columns_of_blocks(sums.blocks, documents.schema))
            own = dict(zip(PositionSum._fields, sums.positions.T, strict=True))
            positions.add(where, len(sums.positions), own)


class _Writer:
    """A table that is written piece by piece."""

    def __init__(self, file: Any, columns: tuple[Column, ...]) -> None:
        self.schema = _schema(columns)
        self._writer = pq.ParquetWriter(file, self.schema, compression="snappy")
        self._held: list[pa.Table] = []
        self._written = False

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            for piece in self._pieces(all_of_it=True):
                self._writer.write_table(piece, row_group_size=_ROWS)
        self._writer.close()

    def add(self, where: Mapping[str, Any], count: int, columns: Mapping[str, Any]) -> None:
        """Adds the rows of a cell: what all of them say, how many they are, and their own columns."""
        arrays = []
        for field in self.schema:
            if field.name in where:
                arrays.append(pa.repeat(pa.scalar(where[field.name], field.type), count))
            else:
                found = columns[field.name]
                # As a frame is written, in which NaN is what is missing.
                arrays.append(
                    found if isinstance(found, pa.Array) else pa.array(found, from_pandas=True).cast(field.type)
                )
        if count:
            self._held.append(pa.Table.from_arrays(arrays, schema=self.schema))
        for piece in self._pieces():
            self._writer.write_table(piece, row_group_size=_ROWS)

    def _pieces(self, all_of_it: bool = False) -> Iterator[pa.Table]:
        rows = sum(each.num_rows for each in self._held)
        if rows < _ROWS and not all_of_it:
            return
        # Contiguous, so that the bytes do not tell where cells end.
        whole = pa.concat_tables([self.schema.empty_table(), *self._held]).combine_chunks()
        ends = range(0, rows if all_of_it else rows - _ROWS + 1, _ROWS)
        for start in ends:
            self._written = True
            yield whole.slice(start, _ROWS)
        if all_of_it and not self._written:
            yield whole
        rest = whole.slice(len(ends) * _ROWS)
        self._held = [rest] if rest.num_rows else []


def _columns_of_blocks(blocks: BlockColumns, schema: pa.Schema) -> dict[str, Any]:
    names = {}
    for place, name in enumerate(("document", "digest")):
        kept = pa.array([text[place] for text in blocks.texts], schema.field(name).type)
        names[name] = kept.take(pa.array(blocks.text))
    return {**names, **{name: getattr(blocks, name) for name in NUMBERS}}


@cache
def _schema(columns: tuple[Column, ...]) -> pa.Schema:
    """Types and metadata that pandas gives such a table."""
    row = [_SAMPLE[column.kind] for column in columns]
    return pa.Table.from_pandas(typed_frame(columns, [row]), preserve_index=False).schema
