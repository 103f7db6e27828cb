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
from lpe_eval.report.folders.cell_files import CellSums, StoredCell, Texts, cell_in, content_of, sums_in
from lpe_eval.report.folders.cells import CELLS, CellFolder
from lpe_eval.report.folders.folder import SPEC, Layout
from lpe_eval.report.folders.marker import MARKER, read_marker
from lpe_eval.report.folders.parts import PartStore
from lpe_eval.report.folders.provenance import NAME as PROVENANCE
from lpe_eval.report.folders.provenance import read_provenance
from lpe_eval.report.folders.shared import PARTS, Sharing
from lpe_eval.report.folders.sums import write_sums
from lpe_eval.report.folders.tokens import BY_TOKEN, write_tokens
from lpe_eval.report.frames import UNFIT, csv_bytes, read_bytes, read_csv, read_parquet, typed_frame
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


_TEXTS = 8
"""Lists of documents that a process remembers which holds no sums."""


class Run(NamedTuple):
    """Everything a perplexity run left behind."""

    rows: pd.DataFrame
    cost: pd.DataFrame
    by_document: pd.DataFrame
    by_position: pd.DataFrame
    spec: dict
    provenance: dict


class PerplexityFolder(CellFolder[CellKey, StoredCell]):
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
        self._texts: dict[Texts, Texts] = {}
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
        content = content_of(self.run, measurement, rows)
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
        by_key, names = self.cells(order), [column.name for column in table.ROWS]
        first = {key: dict(zip(names, cell.rows[0], strict=True)) for key, cell in by_key.items()}
        # Without the best guess no sums are asked for here; with it those of all cells are held together.
        optimum = any(row[table.ENCODING.name] == table.OPTIMUM for row in first.values())
        sums = {key: Sums(row, self.sums_of(key).blocks if optimum else ()) for key, row in first.items()}
        further = optimum_rows(sums, order, self._reckoned)
        rows = [[*cell.rows, *(list(row.values()) for row in further.get(key, ()))] for key, cell in by_key.items()]
        self._write("rows.csv", csv_bytes(table.ROWS, [row for each in rows for row in each]))
        self._write("cost.csv", csv_bytes(table.COST, [cell.cost for cell in by_key.values() if cell.cost is not None]))
        try:
            write_sums(self.directory, self.run, ((key, self.sums_of(key)) for key in by_key), self.shared)
        except OSError as error:
            where = self.directory / "by_document.parquet"
            raise OutputError(f"cannot write {where}: {error.strerror}; {self._kept()}") from error

    def sums_of(self, key: CellKey) -> CellSums:
        """The sums of a cell that is on disk.

        Raises:
            OutputError: its file cannot be read any more.
        """
        held = self._cells[key].sums
        try:
            return held or sums_in(json_of(self.cell_file(key).read_bytes()), self._documents())
        except (Unreadable, OSError, *UNFIT) as error:
            raise OutputError(f"cannot read {self.cell_file(key)} any more; run the same command again") from error

    def blocks_of(self, cell: tuple[str, str, int, int | None]) -> Sequence[BlockSum]:
        """The blocks of a cell; empty where it is not on disk."""
        key = CellKey(*cell)
        return self.sums_of(key).blocks if key in self._cells else ()

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

    def _failed(self, cell: StoredCell) -> bool:
        return cell.status == "failed"

    def _file_name(self, key: CellKey) -> str:
        readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{key.model[-60:]}-{key.protocol[:30]}-{key.length}").strip("-")
        return f"{readable}-{hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()[:12]}"

    def _decoded(self, content: Mapping[str, Any]) -> tuple[CellKey, StoredCell]:
        key, cell = cell_in(content, self._documents())
        return key, cell._replace(sums=None) if self.shared else cell

    def _documents(self) -> dict[Texts, Texts]:
        if self.shared and len(self._texts) > _TEXTS:
            self._texts.clear()
        return self._texts


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


def read_run(directory: Path, by_document: bool = True) -> Run:
    """Reads the folder of a perplexity run.

    Args:
        directory: of the run.
        by_document: whether its largest table is read, too; else it is empty.

    Raises:
        OutputError: it is no run, lacks a file, or was written in another version of the table.
    """
    if read_marker(directory) is None:
        raise OutputError(f"{directory} holds no run: it has no {MARKER}; give the folder that a run was written to")
    read_mapping(directory / PROVENANCE)
    sums = table.BY_DOCUMENT
    return Run(
        rows=read_csv(directory / "rows.csv", table.ROWS),
        cost=read_csv(directory / "cost.csv", table.COST),
        by_document=read_parquet(directory / "by_document.parquet", sums) if by_document else typed_frame(sums, []),
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
