"""The folder of a perplexity run.

cells/<name>.json                        one finished cell each: rows, cost, sums
parts/<name>.json                        of a length that is being measured and long: its finished parts (`parts.py`)
rows.csv  cost.csv                       what was measured; what it cost
by_document.parquet  by_position.parquet sums for pairing and for curves over context
by_token/<name>.parquet                  losses of single tokens, where they are kept
effective_length.csv  changes.csv        what follows from these tables (`derived.py`, `long_perplexity.py`)
position_fit.csv  long_perplexity.csv
key_tokens.jsonl
figures/                                 perplexity, its change with length, and loss by context

A cell whose losses of single tokens are kept is finished when both of its files are there: the losses are written
first.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lpe_eval import table, text_tables
from lpe_eval.errors import OutputError
from lpe_eval.part_records import PartName
from lpe_eval.plain import Unreadable, json_of, yaml_of
from lpe_eval.records import TokenPart
from lpe_eval.report.folders.atomic import PARTIAL
from lpe_eval.report.folders.cells import CELLS, CellFolder
from lpe_eval.report.folders.folder import SPEC, Layout
from lpe_eval.report.folders.marker import MARKER, read_marker
from lpe_eval.report.folders.parts import PartStore
from lpe_eval.report.folders.provenance import NAME as PROVENANCE
from lpe_eval.report.folders.provenance import read_provenance
from lpe_eval.report.folders.shared import PARTS, Sharing
from lpe_eval.report.folders.tokens import BY_TOKEN, write_tokens
from lpe_eval.report.frames import csv_bytes, read_bytes, read_csv, read_parquet, require_kinds, typed_frame
from lpe_eval.report.numbers.regret import Sums, optimum_rows
from lpe_eval.table import BlockSum, CellKey, Measurement

LAYOUT = Layout(
    files=(
        *("rows.csv", "cost.csv", "by_document.parquet", "by_position.parquet"),
        *(*text_tables.DERIVED, text_tables.KEY_SPANS),
    ),
    folders=(CELLS, BY_TOKEN, PARTS),
    early=(CELLS,),
)


class Run(NamedTuple):
    """Everything a perplexity run left behind."""

    rows: pd.DataFrame
    cost: pd.DataFrame
    by_document: pd.DataFrame
    by_position: pd.DataFrame
    spec: dict
    provenance: dict


class _Cell(NamedTuple):
    status: str
    rows: list[list]
    cost: list | None
    sums: list[BlockSum]
    blocks: pd.DataFrame
    positions: pd.DataFrame
    tokens: int | None
    """Bytes of the file with losses of single tokens; None where none are kept."""


class PerplexityFolder(CellFolder[CellKey, _Cell]):
    """The folder of one run, held by this process; made by `open_run`, closed by `close` or `with`.

    Args:
        directory: made if it is not there.
        run: id of the run.
        spec_text: the resolved spec.
        overwrite: discard the run that the folder holds.
        keep_tokens: whether a cell with a value is finished only with its losses of single tokens.
        sharing: how this process takes part where several fill the folder.
    """

    def __init__(
        self,
        directory: Path,
        run: str,
        spec_text: str,
        overwrite: bool,
        keep_tokens: bool,
        sharing: Sharing | None = None,
    ) -> None:
        self._keeps_tokens = keep_tokens
        self._written: dict[CellKey, int] = {}
        self._reckoned: dict[tuple, list[dict[str, Any]]] = {}
        self.parts = PartStore(directory, run, sharing is not None)
        super().__init__(directory, LAYOUT, "ppl", run, spec_text, overwrite, sharing)
        if keep_tokens:
            self._make_tokens_folder()

    def finished(self) -> set[CellKey]:
        found = super().finished()
        return {key for key in found if self._has_tokens(key)} if self._keeps_tokens else found

    def keep_tokens(self, key: CellKey, parts: Iterable[TokenPart]) -> None:
        """Writes the losses of the targets of a cell that is saved next; raises OutputError where that fails."""
        path = self.tokens_of(key)
        try:
            self._written[key] = write_tokens(path, self.run, key, parts, self.shared)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; {self._kept()}") from error

    def tokens_of(self, key: CellKey) -> Path:
        """The file with the losses of the targets of a cell."""
        return self.directory / BY_TOKEN / f"{self._file_name(key)}.parquet"

    def forget_parts(self, names: Iterable[PartName], order: Iterable[CellKey]) -> None:
        """Removes the parts of lengths of which all cells are on disk."""
        finished = self.finished()
        left = {(key.model, key.length) for key in order if key not in finished}
        self.parts.remove(name for name in names if (name.model, name.length) not in left)

    def file_of(self, piece: PartName | CellKey) -> Path:
        """The file of a part or of a cell."""
        return self.parts.path(piece) if isinstance(piece, PartName) else self.cell_file(piece)

    def counts(self) -> dict[CellKey, int]:
        """How many targets each cell with a value scored."""
        place = table.ROWS.index(table.N_TOKENS)
        return {key: cell.rows[0][place] for key, cell in self._cells.items() if cell.status in ("ok", "error")}

    def add(self, files: Mapping[str, bytes]) -> None:
        """Writes files that follow from the tables; names are those of the layout.

        Raises:
            OutputError: one cannot be written; the cells are kept.
        """
        for name, content in files.items():
            self._write(name, content)

    def save(self, measurement: Measurement, rows: list[dict]) -> None:
        """Writes one cell to disk before it returns.

        Raises:
            OutputError: it cannot be written; the cells saved before are kept.
        """
        names = [column.name for column in table.ROWS]
        content = {
            "status": rows[0][table.STATUS.name],
            "rows": [[row[name] for name in names] for row in rows],
            "cost": _cost(self.run, measurement),
            "blocks": [list(block) for block in measurement.blocks],
            "positions": [list(position) for position in measurement.positions],
        }
        if measurement.key in self._written:
            content["tokens"] = self._written[measurement.key]
        elif self._keeps_tokens:
            # What an earlier start left of a cell that has no value now.
            self.tokens_of(measurement.key).unlink(missing_ok=True)
        self._save(measurement.key, content)

    def collect(self, order: Iterable[CellKey]) -> None:
        """Writes the four tables from all saved cells, in the given order.

        Saved cells that `order` does not name come last, sorted. Where the best possible guess was measured too, the
        rows that are made of a model's cells and its own stand behind the rows of the cell.

        Raises:
            OutputError: a table cannot be written; the cells are kept.
        """
        order = list(order)
        by_key = self.cells(order)
        cells, names = by_key.values(), [column.name for column in table.ROWS]
        sums = {key: Sums(dict(zip(names, cell.rows[0], strict=True)), cell.sums) for key, cell in by_key.items()}
        further = optimum_rows(sums, order, self._reckoned)
        rows = [[*cell.rows, *(list(row.values()) for row in further.get(key, ()))] for key, cell in by_key.items()]
        self._write("rows.csv", csv_bytes(table.ROWS, [row for each in rows for row in each]))
        self._write("cost.csv", csv_bytes(table.COST, [cell.cost for cell in cells if cell.cost is not None]))
        blocks = [typed_frame(table.BY_DOCUMENT, []), *(cell.blocks for cell in cells)]
        self._write("by_document.parquet", pd.concat(blocks).to_parquet(index=False))
        positions = [typed_frame(table.BY_POSITION, []), *(cell.positions for cell in cells)]
        self._write("by_position.parquet", pd.concat(positions).to_parquet(index=False))

    def _make_tokens_folder(self) -> None:
        """After the marker is there, so that the folder is never anything but a run's."""
        folder = self.directory / BY_TOKEN
        try:
            folder.mkdir(exist_ok=True)
            for left in () if self.shared else folder.glob(f".*{PARTIAL}"):
                left.unlink()
        except OSError as error:
            self.close()
            raise OutputError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error

    def _has_tokens(self, key: CellKey) -> bool:
        cell, path = self._cells[key], self.tokens_of(key)
        if cell.tokens is None:
            return cell.status not in ("ok", "error")
        return path.is_file() and path.stat().st_size == cell.tokens

    def _failed(self, cell: _Cell) -> bool:
        return cell.status == "failed"

    def _file_name(self, key: CellKey) -> str:
        readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{key.model[-60:]}-{key.protocol[:30]}-{key.length}").strip("-")
        return f"{readable}-{hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()[:12]}"

    def _decoded(self, content: Mapping[str, Any]) -> tuple[CellKey, _Cell]:
        key = _key(content["key"])
        where = [content["run"], *key]
        rows, width = content["rows"], len(table.ROWS)
        if not rows or any(len(row) != width for row in rows):
            raise ValueError(f"a row must have {width} columns")
        # A cell that is kept must be one whose table can be read back.
        require_kinds(table.ROWS, rows)
        require_kinds(table.COST, [] if content["cost"] is None else [content["cost"]])
        blocks = typed_frame(table.BY_DOCUMENT, [[*where, *block] for block in content["blocks"]])
        positions = typed_frame(table.BY_POSITION, [[*where, *position] for position in content["positions"]])
        tokens = content.get("tokens")
        if tokens is not None and type(tokens) is not int:
            raise ValueError("the bytes of a file are a whole number")
        sums = [BlockSum(*block) for block in content["blocks"]]
        return key, _Cell(str(content["status"]), rows, content["cost"], sums, blocks, positions, tokens)


def open_run(
    directory: Path,
    spec_text: str,
    run_id: str,
    overwrite: bool = False,
    keep_tokens: bool = False,
    sharing: Sharing | None = None,
) -> PerplexityFolder:
    """Makes or resumes the folder of a perplexity run, and proves that it can be written to.

    Args:
        directory, spec_text, run_id, overwrite, keep_tokens, sharing: as `PerplexityFolder`.

    Raises:
        OutputError: the folder cannot be written, another process writes to it, or it holds another run or other files.
        SpecError: shards that planned something else fill it.
    """
    return PerplexityFolder(directory, run_id, spec_text, overwrite, keep_tokens, sharing)


def read_run(directory: Path) -> Run:
    """Reads the folder of a perplexity run.

    Raises:
        OutputError: it is no run, lacks a file, or was written in another version of the table.
    """
    if read_marker(directory) is None:
        raise OutputError(f"{directory} holds no run: it has no {MARKER}; give the folder that a run was written to")
    read_mapping(directory / PROVENANCE)
    return Run(
        rows=read_csv(directory / "rows.csv", table.ROWS),
        cost=read_csv(directory / "cost.csv", table.COST),
        by_document=read_parquet(directory / "by_document.parquet", table.BY_DOCUMENT),
        by_position=read_parquet(directory / "by_position.parquet", table.BY_POSITION),
        spec=read_mapping(directory / SPEC),
        provenance=read_provenance(directory),
    )


def read_mapping(path: Path) -> dict:
    """A YAML or JSON file that holds a mapping.

    Raises:
        OutputError: it is missing, damaged, or holds something else.
    """
    text = read_bytes(path).decode("utf-8", errors="replace")
    try:
        found = yaml_of(text) if path.suffix == ".yaml" else json_of(text)
    except Unreadable as error:
        raise OutputError(f"{path} is damaged; run the same command again to write it anew") from error
    if not isinstance(found, dict):
        raise OutputError(f"{path} holds no mapping; run the same command again to write it anew")
    return found


def _cost(run: str, measurement: Measurement) -> list | None:
    cost, key = measurement.cost, measurement.key
    if cost is None:
        return None
    speed = cost.n_forward_tokens / cost.seconds if cost.seconds > 0 else None
    return [
        *(run, key.model, key.protocol, key.length, float(cost.seconds), cost.n_forward_tokens, cost.n_windows),
        *(cost.n_shared_windows, speed, float(cost.peak_memory_mib), cost.batch_tokens),
    ]


def _key(parts: Sequence[Any]) -> CellKey:
    kinds = [list(map(type, parts)) == [str, str, int, each] for each in (int, type(None))]
    if not any(kinds):
        raise ValueError("a key is a model, a protocol, a length and perhaps a stride")
    return CellKey(*parts)
