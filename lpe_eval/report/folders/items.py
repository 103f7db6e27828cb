"""The folder of a kind of run that declares no tables of its own.

cells/<name>.json    one finished cell, a model at a length: for each metric its items
<kind>.csv           one number a row, with the columns of `table.ITEM_ROWS`
by_item.parquet      the sums behind them; what `compare` pairs
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lpe_eval import table
from lpe_eval.records import Item, ItemCell, ItemKey
from lpe_eval.report.folders.cells import CELLS, CellFolder
from lpe_eval.report.folders.folder import Layout
from lpe_eval.report.frames import csv_bytes, require_kinds, typed_frame
from lpe_eval.report.numbers.items import pooled

BY_ITEM = "by_item.parquet"


def items_layout(name: str) -> Layout:
    """What a run writes whose table has that name."""
    return Layout(files=(name, BY_ITEM), folders=(CELLS,), early=(CELLS,))


class _Cell(NamedTuple):
    status: str
    rows: list[list[Any]]
    items: list[list[Any]]


class ItemFolder(CellFolder[ItemKey, _Cell]):
    """One folder, held by this process until `close` or the end of `with`.

    Args:
        directory: made if it is not there.
        kind: name of the kind.
        run: id of the run.
        spec_text: the resolved spec.
        overwrite: discard the run that the folder holds.

    Raises:
        OutputError: as `RunFolder`.
    """

    def __init__(self, directory: Path, kind: str, run: str, spec_text: str, overwrite: bool = False) -> None:
        self._table = f"{kind}.csv"
        super().__init__(directory, items_layout(self._table), kind, run, spec_text, overwrite)

    def save(self, cell: ItemCell) -> None:
        """Writes one cell to disk before it returns.

        Raises:
            OutputError: it cannot be written; the cells saved before are kept.
        """
        rows, items = [], []
        for metric, found in cell.items.items() or [("", [])]:
            rows.append(_row(self.run, cell, metric, found))
            items += [[metric, *item] for item in found]
        self._save(cell.key, {"status": cell.status, "rows": rows, "items": items})

    def collect(self, order: Iterable[ItemKey]) -> None:
        """Writes both tables from all saved cells, those of `order` first.

        Raises:
            OutputError: a table cannot be written; the cells are kept.
        """
        held = self.cells(order)
        rows = [row for cell in held.values() for row in cell.rows]
        self._write(self._table, csv_bytes(table.ITEM_ROWS, rows))
        frames = [typed_frame(table.BY_ITEM, [])]
        for key, cell in held.items():
            task = cell.rows[0][[column.name for column in table.ITEM_ROWS].index("task")]
            lines = [(self.run, key.model, task, key.length, *item) for item in cell.items]
            frames.append(typed_frame(table.BY_ITEM, lines))
        self._write(BY_ITEM, pd.concat(frames).to_parquet(index=False))

    def _failed(self, cell: _Cell) -> bool:
        return cell.status == "failed"

    def _decoded(self, content: Mapping[str, Any]) -> tuple[ItemKey, _Cell]:
        model, length = content["key"]
        if type(model) is not str or type(length) is not int or not content["rows"]:
            raise ValueError("a cell has the key of a model and a length, and rows")
        require_kinds(table.ITEM_ROWS, content["rows"])
        # A cell that is kept must be one whose tables can be read back.
        items = [[metric, *Item(*item)] for metric, *item in content["items"]]
        require_kinds(table.BY_ITEM[4:], items)
        return ItemKey(model, length), _Cell(str(content["status"]), content["rows"], items)


def _row(run: str, cell: ItemCell, metric: str, items: Sequence[Item]) -> list[Any]:
    value, stderr = pooled(items)
    facts = cell.facts
    found = {
        "run": run, "model": cell.key.model, "encoding": facts.encoding, "train_length": facts.train_length,
        "task": facts.task, "task_version": facts.task_version, "length": cell.key.length, "metric": metric,
        "value": value, "stderr": stderr, "unit": cell.unit, "n_items": len(items), "seed": facts.seed,
        "dtype": facts.dtype, "device": facts.device, "attention": cell.attention, "status": cell.status,
        "note": cell.note, "schema": table.SCHEMA,
    }  # fmt: skip
    return [found[column.name] for column in table.ITEM_ROWS]
