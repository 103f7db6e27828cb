"""The only writer of results: each finished cell at once, so that an interrupted run can go on.

    run.json  spec.yaml  provenance.json     which run, what was asked, where it ran
    cells/<name>.json                        one finished cell each: rows, cost, sums; the durable unit
    rows.csv  cost.csv                       what was measured; what it cost
    by_document.parquet  by_position.parquet sums for pairing and for curves over context
    .lock                                    held by the process that writes

The tables are made anew from the cells after each cell, in the order of the plan. A cell survives
the death of the process at any moment; a table is always whole. A run that was interrupted and
resumed has the `rows.csv` of one that was not, byte for byte.

Choices:
    * A cell file is JSON with `NaN` and `Infinity`, as Python writes them: only this file reads it.
    * A cell that failed is kept and shown, and measured again on resume. `n/a` and `error` are
      answers, not accidents, and stay.
    * A damaged cell file counts as not measured.
    * The lock is the kernel's (flock), so it goes with the process, whatever ends it.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lpe_eval import table
from lpe_eval.errors import OutputError
from lpe_eval.plain import Unreadable, json_of, printable
from lpe_eval.report.folders.atomic import PARTIAL, write_atomically
from lpe_eval.report.folders.lock import LOCK, HeldFolder
from lpe_eval.report.folders.reading import (
    MARKER,
    UNFIT,
    Run,
    csv_bytes,
    read_marker,
    read_run,
    require_kinds,
    typed_frame,
)
from lpe_eval.table import CellKey, Measurement

__all__ = ["Run", "RunStore", "open_run", "read_run"]

_PROBE = ".probe"
_FILES = ("rows.csv", "cost.csv", "by_document.parquet", "by_position.parquet", "provenance.json", "spec.yaml", MARKER)
"""In the order of removal: while the marker is there, the folder is a run's."""


class _Cell(NamedTuple):
    status: str
    rows: list[list]
    cost: list | None
    blocks: pd.DataFrame
    positions: pd.DataFrame


class RunStore(HeldFolder):
    """The folder of one run, held by this process; made by `open_run`, closed by `close` or `with`."""

    def __init__(self, directory: Path, run: str) -> None:
        super().__init__(directory)
        self.run = run
        self._cells: dict[CellKey, _Cell] = {}

    def finished(self) -> set[CellKey]:
        """Cells that need not be measured again."""
        return {key for key, cell in self._cells.items() if cell.status != "failed"}

    def save(self, measurement: Measurement, rows: list[dict]) -> None:
        """Writes one cell to disk before it returns.

        Raises:
            OutputError: it cannot be written; the cells saved before are kept.
        """
        names = [column.name for column in table.ROWS]
        content = {
            "schema": table.SCHEMA,
            "run": self.run,
            "key": list(measurement.key),
            "status": rows[0][table.STATUS.name],
            "rows": [[row[name] for name in names] for row in rows],
            "cost": _cost(self.run, measurement),
            "blocks": [list(block) for block in measurement.blocks],
            "positions": [list(position) for position in measurement.positions],
        }
        text = printable(json.dumps(content, ensure_ascii=False))
        with self._explained(self.directory / "cells" / _file_name(measurement.key)) as path:
            write_atomically(path, text.encode("utf-8"))
        self._cells[measurement.key] = _cell(json.loads(text))

    def collect(self, order: Iterable[CellKey]) -> None:
        """Writes the four tables from all saved cells, in the given order.

        Saved cells that `order` does not name come last, sorted.

        Raises:
            OutputError: a table cannot be written; the cells are kept.
        """
        places = {key: place for place, key in enumerate(dict.fromkeys(order))}
        keys = sorted(self._cells, key=lambda key: (places.get(key, len(places)), [str(part) for part in key]))
        cells = [self._cells[key] for key in keys]
        self._write("rows.csv", csv_bytes(table.ROWS, [row for cell in cells for row in cell.rows]))
        self._write("cost.csv", csv_bytes(table.COST, [cell.cost for cell in cells if cell.cost is not None]))
        blocks = [typed_frame(table.BY_DOCUMENT, []), *(cell.blocks for cell in cells)]
        self._write("by_document.parquet", pd.concat(blocks).to_parquet(index=False))
        positions = [typed_frame(table.BY_POSITION, []), *(cell.positions for cell in cells)]
        self._write("by_position.parquet", pd.concat(positions).to_parquet(index=False))

    def write_provenance(self, provenance: dict) -> None:
        """Writes where and with what the run was made.

        Raises:
            OutputError: it cannot be written.
        """
        text = json.dumps(provenance, indent=2, sort_keys=True, ensure_ascii=False, default=str)
        # What stands for a byte that is not UTF-8 becomes JSON's own escape for it.
        self._write("provenance.json", f"{text}\n".encode("utf-8", "backslashreplace"))

    def start(self, spec_text: str) -> None:
        """Puts the spec and the marker of the run in place and reads the cells that are there."""
        with self._explained(self.directory / "cells") as cells:
            cells.mkdir(exist_ok=True)
            for left in cells.glob(f".*{PARTIAL}"):
                left.unlink()
        self._write("spec.yaml", spec_text.encode("utf-8"))
        self._write(MARKER, json.dumps({"run": self.run, "schema": table.SCHEMA}).encode())
        self._cells = {key: cell for path in sorted(cells.glob("*.json")) for key, cell in _stored(path, self.run)}

    def _write(self, name: str, content: bytes) -> None:
        with self._explained(self.directory / name) as path:
            write_atomically(path, content)

    @contextmanager
    def _explained(self, path: Path) -> Iterator[Path]:
        try:
            yield path
        except OSError as error:
            kept = f"the {len(self._cells)} cells saved before are kept, and the same command goes on from there"
            raise OutputError(f"cannot write {path}: {error.strerror}; {kept}") from error


def open_run(directory: Path, spec_text: str, run_id: str, overwrite: bool = False) -> RunStore:
    """Makes or resumes the folder of a run, and proves that it can be written to.

    Args:
        spec_text: the resolved spec, stored as `spec.yaml`.
        overwrite: discard the run that the folder holds, this one or another. Files that are not
            a run's are never removed.

    Raises:
        OutputError: the folder cannot be written, another process writes to it, or it holds
            another run or other files.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(directory)
    except OSError as error:
        raise OutputError(f"cannot write to {directory}: {error.strerror}; choose another --out") from error
    store = RunStore(directory, run_id)
    try:
        _prove_writable(directory)
        _make_room(directory, run_id, overwrite)
        store.start(spec_text)
    except BaseException:
        store.close()
        raise
    return store


def _prove_writable(directory: Path) -> None:
    probe = directory / _PROBE
    try:
        write_atomically(probe, b"written to see whether results can be\n")
        probe.unlink()
    except OSError as error:
        raise OutputError(f"cannot write to {directory}: {error.strerror}; choose another --out") from error


def _refuse_foreign(directory: Path) -> None:
    present = {path.name for path in directory.iterdir() if not path.name.endswith(PARTIAL)}
    # The marker is written last, so a start that was cut short leaves at most these.
    foreign = sorted(present - {LOCK, _PROBE, "spec.yaml", "cells"})
    if foreign and MARKER not in present:
        raise OutputError(f"{directory} holds files that are no run ({foreign[0]}); choose another --out")


def _make_room(directory: Path, run_id: str, overwrite: bool) -> None:
    if not overwrite:
        found = read_marker(directory)
        if found not in (None, run_id):
            remedy = "choose another --out or discard it with --overwrite"
            raise OutputError(f"{directory} holds another run ({found}, not {run_id}); {remedy}")
        return
    try:
        if (directory / "cells").exists():
            shutil.rmtree(directory / "cells")
        for name in _FILES:
            (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove the earlier run in {directory}: {error.strerror}") from error


def _file_name(key: CellKey) -> str:
    readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{key.model[-60:]}-{key.protocol[:30]}-{key.length}").strip("-")
    digest = hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()[:12]
    return f"{readable}-{digest}.json"


def _cost(run: str, measurement: Measurement) -> list | None:
    cost, key = measurement.cost, measurement.key
    if cost is None:
        return None
    speed = cost.n_forward_tokens / cost.seconds if cost.seconds > 0 else None
    return [
        *(run, key.model, key.protocol, key.length, float(cost.seconds), cost.n_forward_tokens, cost.n_windows),
        *(cost.n_shared_windows, speed, float(cost.peak_memory_mib), cost.batch_tokens),
    ]


def _stored(path: Path, run: str) -> list[tuple[CellKey, _Cell]]:
    """The cell in a file, or nothing where the file is damaged or another run's."""
    try:
        content = json_of(path.read_bytes())
        if content["schema"] != table.SCHEMA or content["run"] != run:
            return []
        return [(_key(content["key"]), _cell(content))]
    except (Unreadable, *UNFIT):
        return []
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}") from error


def _key(parts: list[Any]) -> CellKey:
    kinds = [list(map(type, parts)) == [str, str, int, each] for each in (int, type(None))]
    if not any(kinds):
        raise ValueError("a key is a model, a protocol, a length and perhaps a stride")
    return CellKey(*parts)


def _cell(content: dict[str, Any]) -> _Cell:
    """A cell from its file; a cell that was just saved takes the same way, so both are equal."""
    where = [content["run"], *content["key"]]
    rows, width = content["rows"], len(table.ROWS)
    if not rows or any(len(row) != width for row in rows):
        raise ValueError(f"a row must have {width} columns")
    # A cell that is kept must be one whose table can be read back.
    require_kinds(table.ROWS, rows)
    require_kinds(table.COST, [] if content["cost"] is None else [content["cost"]])
    blocks = typed_frame(table.BY_DOCUMENT, [[*where, *block] for block in content["blocks"]])
    positions = typed_frame(table.BY_POSITION, [[*where, *position] for position in content["positions"]])
    return _Cell(str(content["status"]), rows, content["cost"], blocks, positions)
