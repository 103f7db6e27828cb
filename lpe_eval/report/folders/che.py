"""The folder of a run on algorithmic problems: each cell, one encoding on one task, is durable when it is done.

    run.json  spec.yaml  provenance.json   which run, what was asked, where it ran
    cells/<name>.json                      a finished cell: its scores and the log of its training
    snapshots/<name>.pt                    weights and optimiser of a cell that is being trained
    checkpoints/<encoding>/                what training leaves: a config, and the weights of each task
    che.csv  summary.csv                   scores, one number a row; and in short
    by_string.parquet                      how the chosen run answered each string; what `compare` pairs
    training.csv                           looks at the runs while they were trained
    figures/                               heat map and curves
    .lock                                  held by the process that writes

The tables are made anew after each cell, in the order of the encodings and tasks that were asked for, and a run
that was interrupted and resumed has the `che.csv` of one that was not, byte for byte.

Choices:
    * A run is known by what decides its numbers: protocol, lengths, samples, seed, device. Encodings and tasks
      do not belong to it, so a folder can grow by more of them; `spec.yaml` names all that were ever asked for.
    * A cell that failed is kept and shown, and made again on resume. `n/a` is an answer and stays.
    * A damaged cell counts as not made, a damaged snapshot as not taken.
"""

import csv
import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from lpe_eval import table
from lpe_eval.errors import OutputError
from lpe_eval.plain import Unreadable, json_of, read_plain, yaml_of
from lpe_eval.report.folders.atomic import PARTIAL
from lpe_eval.report.folders.lock import LOCK, HeldFolder
from lpe_eval.report.folders.reading import MARKER, UNFIT, csv_bytes, read_marker, require_kinds, typed_frame
from lpe_eval.report.tables.che import SUMMARY_COLUMNS, summary_records
from lpe_eval.spec.che_checkpoint import TrainedTask
from lpe_eval.table import CheRow, StringCounts

_TABLES = ("che.csv", "summary.csv", "by_string.parquet", "training.csv", "provenance.json", "spec.yaml", MARKER)
_FOLDERS = ("cells", "snapshots", "checkpoints", "figures")
"""With the tables, all that a run writes; removed in this order, so that the marker goes last."""

_COUNTS = table.BY_STRING[4:]
"""What `by_string.parquet` says of a string beyond which cell it is of."""

LOG_COLUMNS = (
    *("encoding", "task", "run_index", "seed", "learning_rate", "step"),
    *("train_nll_nats", "held_out_nll_nats", "held_out_accuracy"),
)


class CheCell(NamedTuple):
    """One encoding (or the model of one folder) on one task.

    Attributes:
        log: rows of `training.csv`.
        chosen: for a training, what the config of the checkpoint says of this task; else None.
        strings: how each string was answered; of a training, by the run that was chosen.
    """

    rows: list[CheRow]
    log: list[list[Any]]
    chosen: dict[str, Any] | None
    strings: list[StringCounts]

    @property
    def failed(self) -> bool:
        """Whether the cell has to be made again."""
        return any(row.status == "failed" for row in self.rows)


CellName = tuple[str, str]
"""Model and task."""


class Snapshot(NamedTuple):
    """Where a training has got to: its log so far, and the trainer's own state."""

    log: list[list[Any]]
    state: bytes


class CheFolder(HeldFolder):
    """One folder, held by this process until `close` or the end of `with`.

    Args:
        directory: made if it is not there.
        spec: the resolved spec as plain values, without what earlier starts asked for.
        run: id of the run.
        overwrite: discard what the folder holds of a run.

    Raises:
        OutputError: the folder cannot be written, another process writes to it, or it holds another run or
            other files.
    """

    def __init__(self, directory: Path, spec: dict[str, Any], run: str, overwrite: bool) -> None:
        super().__init__(directory)
        self.run = run
        try:
            self._make_room(overwrite)
            self.spec = _joined(spec, self._earlier_spec())
            for name in _FOLDERS[:2]:
                (directory / name).mkdir(exist_ok=True)
            self._write("spec.yaml", yaml.safe_dump(self.spec, sort_keys=False, allow_unicode=True).encode())
            self._write(MARKER, json.dumps({"run": run, "schema": table.SCHEMA}).encode())
            self._cells = dict(
                cell for path in sorted((directory / "cells").glob("*.json")) for cell in self._read(path)
            )
        except OSError as error:
            self.close()
            raise OutputError(f"cannot write to {directory}: {error.strerror}; choose another --out") from error
        except BaseException:
            self.close()
            raise

    def finished(self) -> set[CellName]:
        """Cells that need not be made again."""
        return {name for name, cell in self._cells.items() if not cell.failed}

    def cells(self, order: Iterable[CellName]) -> dict[CellName, CheCell]:
        """All cells, those of `order` first and in it."""
        places = {name: place for place, name in enumerate(dict.fromkeys(order))}
        names = sorted(self._cells, key=lambda name: (places.get(name, len(places)), name))
        return {name: self._cells[name] for name in names}

    def save(self, name: CellName, cell: CheCell) -> None:
        """Writes one cell to disk, durably, and forgets its snapshot."""
        content = {
            "schema": table.SCHEMA, "run": self.run, "cell": list(name),
            "rows": [list(row) for row in cell.rows], "log": cell.log, "chosen": cell.chosen,
            "strings": [list(each) for each in cell.strings],
        }  # fmt: skip
        text = json.dumps(content, ensure_ascii=False)
        self._write(f"cells/{_file_name(name)}.json", text.encode())
        self._cells |= dict(_cell(json.loads(text)))
        (self.directory / "snapshots" / f"{_file_name(name)}.pt").unlink(missing_ok=True)

    def collect(self, order: Iterable[CellName]) -> list[CheRow]:
        """Writes the tables from all cells, and gives the rows of the first."""
        cells = self.cells(order).values()
        rows = [row for cell in cells for row in cell.rows]
        self._write("che.csv", csv_bytes(table.CHE, rows))
        self._write("summary.csv", _csv(SUMMARY_COLUMNS, summary_records(rows)))
        log = [each for cell in cells for each in cell.log]
        if log:
            self._write("training.csv", _csv(LOG_COLUMNS, log))
        return rows

    def collect_strings(self, order: Iterable[CellName]) -> None:
        """Writes how each string was answered, from all cells; apart because it is the largest table by far."""
        frames = [typed_frame(table.BY_STRING, [])]
        for (model, task), cell in self.cells(order).items():
            index = cell.chosen["run_index"] if cell.chosen else cell.rows[0].run_index
            records = [
                (self.run, model, task, index, each.length, each.test_set, place, *counts)
                for each in cell.strings
                for place, counts in enumerate(zip(each.n_correct, each.n_tokens, strict=True))
            ]
            frames.append(typed_frame(table.BY_STRING, records))
        self._write("by_string.parquet", pd.concat(frames).to_parquet(index=False))

    def snapshot(self, name: CellName) -> Snapshot | None:
        """Where the training of a cell was interrupted; None if there is nothing to go on from."""
        try:
            content = (self.directory / "snapshots" / f"{_file_name(name)}.pt").read_bytes()
            log, separator, state = content.partition(b"\n")
            return Snapshot(json_of(log), state) if separator else None
        except (OSError, Unreadable):
            return None

    def save_snapshot(self, name: CellName, log: Sequence[Sequence[Any]], state: bytes) -> None:
        """Writes where a training has got to: a line of JSON, then the state."""
        self._write(f"snapshots/{_file_name(name)}.pt", json.dumps(log).encode() + b"\n" + state)

    def save_checkpoint(self, slug: str, task: str, weights: bytes, config: str) -> None:
        """Writes the weights of one task, then the config that names it."""
        try:
            (self.directory / "checkpoints" / slug).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write to {self.directory}: {error.strerror}") from error
        self._write(f"checkpoints/{slug}/{task}.safetensors", weights)
        self._write(f"checkpoints/{slug}/config.yaml", config.encode())

    def provenance(self) -> dict[str, Any] | None:
        """The provenance of earlier starts, if there is one that can be read."""
        try:
            found = json_of(read_plain(self.directory / "provenance.json"))
        except Unreadable:
            return None
        return found if isinstance(found, dict) else None

    def write_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Writes where and with what the run was made."""
        text = json.dumps(provenance, indent=2, sort_keys=True, ensure_ascii=False, default=str)
        self._write("provenance.json", f"{text}\n".encode())

    def _make_room(self, overwrite: bool) -> None:
        present = {path.name for path in self.directory.iterdir() if not path.name.endswith(PARTIAL)}
        foreign = sorted(present - {LOCK, *_TABLES, *_FOLDERS})
        if foreign or (present - {LOCK, "spec.yaml", *_FOLDERS[:2]} and MARKER not in present):
            what = foreign[0] if foreign else sorted(present)[0]
            raise OutputError(f"{self.directory} holds files that are no run of che ({what}); choose another --out")
        if overwrite:
            for name in _FOLDERS:
                shutil.rmtree(self.directory / name, ignore_errors=True)
            for name in _TABLES:
                (self.directory / name).unlink(missing_ok=True)
        found = read_marker(self.directory)
        if found not in (None, self.run):
            raise OutputError(
                f"{self.directory} holds another run ({found}, not {self.run}); "
                "choose another --out or discard it with --overwrite"
            )

    def _earlier_spec(self) -> dict[str, Any]:
        try:
            found = yaml_of(read_plain(self.directory / "spec.yaml"))
        except Unreadable:
            return {}
        return found if isinstance(found, dict) else {}

    def _read(self, path: Path) -> list[tuple[CellName, CheCell]]:
        try:
            content = json_of(read_plain(path))
            if content["schema"] != table.SCHEMA or content["run"] != self.run:
                return []
            return _cell(content)
        except (Unreadable, *UNFIT):
            return []


def slug_of(name: str) -> str:
    """A model's name as a folder's: `dape(kerple_log)` is `dape-kerple-log`."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _cell(content: Mapping[str, Any]) -> list[tuple[CellName, CheCell]]:
    model, task = content["cell"]
    rows = [CheRow(*row) for row in content["rows"]]
    # A cell that is kept must be one whose tables can be read back.
    require_kinds(table.CHE, rows)
    if not rows or {(row.model, row.task) for row in rows} != {(model, task)}:
        raise ValueError("a cell has rows, all of its model and task")
    log, strings = ([list(each) for each in content[name]] for name in ("log", "strings"))
    counts = [StringCounts(*each) for each in strings]
    for each in counts:
        pairs = list(enumerate(zip(each.n_correct, each.n_tokens, strict=True)))
        require_kinds(_COUNTS, [(each.length, each.test_set, place, *pair) for place, pair in pairs])
    chosen = content["chosen"]
    if chosen is not None:
        TrainedTask.model_validate(chosen)
    return [((model, task), CheCell(rows, log, chosen, counts))]


def _file_name(name: CellName) -> str:
    digest = hashlib.sha256(json.dumps(list(name)).encode()).hexdigest()[:12]
    return f"{slug_of(name[0])[-60:]}-{name[1]}-{digest}"


def _joined(spec: dict[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with what earlier starts asked for in front, where it can grow."""
    joined = dict(spec)
    for key in ("encodings", "models", "tasks"):
        before, now = earlier.get(key), spec[key]
        if isinstance(before, list) and isinstance(now, list):
            joined[key] = [*before, *(each for each in now if each not in before)]
    return joined


def _csv(columns: Sequence[str], records: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(records)
    return text.getvalue().encode("utf-8")
