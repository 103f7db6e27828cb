"""The folder of a kind of run that declares no tables of its own.

cells/<name>.json    one finished cell, a model at a length: for each metric its items
<kind>.csv           one number a row, with the columns of `table.ITEM_ROWS`
by_item.parquet      the sums behind them; what `compare` pairs

A kind may tell cells apart by further columns: then its table has them, and so has the one of items.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpe_eval import table
from lpe_eval.records import Item, ItemCell, ItemKey
from lpe_eval.report.folders.cells import CELLS, CellFolder
from lpe_eval.report.folders.folder import Layout
from lpe_eval.report.folders.shared import Sharing
from lpe_eval.report.frames import csv_bytes, require_kinds, typed_frame
from lpe_eval.report.numbers.items import pooled

BY_ITEM = "by_item.parquet"


_Flat = tuple[str | int | None, ...]
"""A key as it is stored: the model, the length, and what is further."""


def items_layout(name: str, more: Sequence[str] = ()) -> Layout:
    """What a run writes whose table has that name; `more` are files made of it."""
    return Layout(files=(name, BY_ITEM, *more), folders=(CELLS,), early=(CELLS,))


def item_columns(further: Sequence[table.Column]) -> tuple[table.Column, ...]:
    """The columns of `by_item.parquet` for a kind with further columns."""
    place = table.BY_ITEM.index(table.LENGTH) + 1
    more = [column for column in further if column not in table.BY_ITEM]
    return (*table.BY_ITEM[:place], *more, *table.BY_ITEM[place:])


class _Cell(NamedTuple):
    status: str
    rows: list[list[Any]]
    items: list[list[Any]]


class ItemFolder(CellFolder[_Flat, _Cell]):
    """One folder, held by this process until `close` or the end of `with`.

    Args:
        directory: made if it is not there.
        kind: name of the kind.
        run: id of the run.
        spec_text: the resolved spec.
        overwrite: discard the run that the folder holds.
        columns: of the table.
        further: those of them that tell cells apart beside model and length.
        more: files made of the table.
        sharing: how this process takes part where several fill the folder.

    Raises:
        OutputError: as `RunFolder`.
    """

    def __init__(
        self,
        directory: Path,
        kind: str,
        run: str,
        spec_text: str,
        overwrite: bool = False,
        columns: tuple[table.Column, ...] = table.ITEM_ROWS,
        further: Sequence[table.Column] = (),
        more: Sequence[str] = (),
        sharing: Sharing | None = None,
    ) -> None:
        self._table, self._columns, self._further = f"{kind}.csv", columns, tuple(further)
        super().__init__(directory, items_layout(self._table, more), kind, run, spec_text, overwrite, sharing)

    def done(self) -> set[ItemKey]:
        """The keys of cells that need not be made again."""
        return {_key(flat) for flat in self.finished()}

    def save(self, cell: ItemCell) -> None:
        """Writes one cell to disk before it returns.

        Raises:
            OutputError: it cannot be written; the cells saved before are kept.
        """
        rows, items = [], []
        for metric, found in cell.items.items() or [("", [])]:
            rows.append(self._row(cell, metric, found))
            items += [[metric, *item] for item in found]
        self._save(flat_key(cell.key), {"status": cell.status, "rows": rows, "items": items})

    def collect(self, order: Iterable[ItemKey]) -> None:
        """Writes both tables from all saved cells, those of `order` first.

        Raises:
            OutputError: a table cannot be written; the cells are kept.
        """
        held = self.cells(flat_key(key) for key in order)
        rows = [row for cell in held.values() for row in cell.rows]
        self._write(self._table, csv_bytes(self._columns, rows))
        task = [column.name for column in self._columns].index("task")
        unknown = [column not in table.BY_ITEM for column in self._further]
        lines = []
        for (model, length, *further), cell in held.items():
            more = [value for value, new in zip(further, unknown, strict=True) if new]
            lines += [(self.run, model, cell.rows[0][task], length, *more, *item) for item in cell.items]
        self._write(BY_ITEM, typed_frame(item_columns(self._further), lines).to_parquet(index=False))

    def add(self, files: Mapping[str, bytes]) -> None:
        """Writes files that are made of the tables.

        Raises:
            OutputError: one cannot be written.
        """
        for name, content in files.items():
            self._write(name, content)

    def _failed(self, cell: _Cell) -> bool:
        return cell.status == "failed"

    def _decoded(self, content: Mapping[str, Any]) -> tuple[_Flat, _Cell]:
        model, length, *further = content["key"]
        if type(model) is not str or type(length) is not int or not content["rows"]:
            raise ValueError("a cell has the key of a model and a length, and rows")
        require_kinds(self._further, [further] if self._further else [])
        if len(further) != len(self._further):
            raise ValueError("a cell has the key of another kind of run")
        require_kinds(self._columns, content["rows"])
        # A cell that is kept must be one whose tables can be read back.
        items = [[metric, *Item(*item)] for metric, *item in content["items"]]
        require_kinds(table.BY_ITEM[4:], items)
        return (model, length, *further), _Cell(str(content["status"]), content["rows"], items)

    def _row(self, cell: ItemCell, metric: str, items: Sequence[Item]) -> list[Any]:
        value, stderr = pooled(items)
        facts, unit = cell.facts, cell.unit if isinstance(cell.unit, str) else cell.unit.get(metric, "")
        found = {
            "run": self.run, "model": cell.key.model, "encoding": facts.encoding, "train_length": facts.train_length,
            "task": facts.task, "task_version": facts.task_version, "length": cell.key.length, "metric": metric,
            "value": value, "stderr": stderr, "unit": unit, "n_items": len(items), "seed": facts.seed,
            "dtype": facts.dtype, "device": facts.device, "attention": cell.attention, "status": cell.status,
            "note": cell.note, "schema": table.SCHEMA, "chance": cell.chance.get(metric),
        }  # fmt: skip
        found |= zip((column.name for column in self._further), cell.key.further, strict=True)
        return [found[column.name] for column in self._columns]


def flat_key(key: ItemKey) -> _Flat:
    """A key as it is stored: the model, the length, and what is further."""
    return (key.model, key.length, *key.further)


def _key(flat: _Flat) -> ItemKey:
    model, length, *further = flat
    assert isinstance(model, str) and isinstance(length, int), "a key begins with a model and a length"
    return ItemKey(model, length, tuple(further))
