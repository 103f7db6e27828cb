"""The folder of a run on algorithmic problems: a cell is one encoding on one problem.

    cells/<name>.json            a finished cell: its scores and the log of its training
    snapshots/<name>.pt          weights and optimiser of a cell that is being trained
    checkpoints/<encoding>/      what training leaves: a config, and the weights of each task
    che.csv  summary.csv         scores, one number a row; and in short
    by_string.parquet            how the chosen run answered each string; what `compare` pairs
    training.csv                 validations of the runs while they were trained
    figures/                     heat map and curves

Choices:
    * A run is known by what decides its numbers: protocol, lengths, samples, seed, device. Encodings and tasks
      do not belong to it, so a folder can grow by more of them; `spec.yaml` names all that were ever asked for.
    * A damaged snapshot counts as not taken.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from lpe_eval import table
from lpe_eval.errors import OutputError
from lpe_eval.plain import Unreadable, json_of, read_plain, yaml_of
from lpe_eval.records import CheRow, StringCounts
from lpe_eval.report.folders.cells import CELLS, CellFolder
from lpe_eval.report.folders.folder import SPEC, Layout
from lpe_eval.report.folders.shared import Sharing
from lpe_eval.report.frames import csv_bytes, plain_csv, require_kinds, typed_frame
from lpe_eval.report.numbers.che_summary import SUMMARY_COLUMNS, summary_records
from lpe_eval.spec.che_checkpoint import TrainedTask

LAYOUT = Layout(
    files=("che.csv", "summary.csv", "by_string.parquet", "training.csv"),
    folders=(CELLS, "snapshots", "checkpoints", "figures"),
    early=(CELLS, "snapshots"),
)

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


class CheFolder(CellFolder[CellName, CheCell]):
    """One folder, held by this process until `close` or the end of `with`.

    Args:
        directory: made if it is not there.
        spec: the resolved spec as plain values, without what earlier starts asked for.
        run: id of the run.
        overwrite: discard what the folder holds of a run.
        sharing: how this process takes part where several fill the folder.

    Raises:
        OutputError: the folder cannot be written, another process writes to it, or it holds another run or
            other files.
    """

    def __init__(
        self, directory: Path, spec: dict[str, Any], run: str, overwrite: bool, sharing: Sharing | None = None
    ) -> None:
        self._spec = spec
        super().__init__(directory, LAYOUT, "che", run, "", overwrite, sharing)

    def save(self, name: CellName, cell: CheCell) -> None:
        """Writes one cell to disk, durably, and forgets its snapshot."""
        content = {
            "rows": [list(row) for row in cell.rows], "log": cell.log, "chosen": cell.chosen,
            "strings": [list(each) for each in cell.strings],
        }  # fmt: skip
        self._save(name, content)
        self._snapshot_of(name).unlink(missing_ok=True)

    def collect(self, order: Iterable[CellName]) -> list[CheRow]:
        """Writes the tables from all cells, and gives the rows of the first."""
        cells = self.cells(order).values()
        rows = [row for cell in cells for row in cell.rows]
        self._write("che.csv", csv_bytes(table.CHE, rows))
        self._write("summary.csv", plain_csv(SUMMARY_COLUMNS, summary_records(rows)))
        log = [each for cell in cells for each in cell.log]
        if log:
            self._write("training.csv", plain_csv(LOG_COLUMNS, log))
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
            content = self._snapshot_of(name).read_bytes()
            log, separator, state = content.partition(b"\n")
            return Snapshot(json_of(log), state) if separator else None
        except (OSError, Unreadable):
            return None

    def save_snapshot(self, name: CellName, log: Sequence[Sequence[Any]], state: bytes) -> None:
        """Writes where a training has got to: a line of JSON, then the state."""
        self._write(f"snapshots/{self._file_name(name)}.pt", json.dumps(log).encode() + b"\n" + state)

    def save_checkpoint(self, slug: str, task: str, weights: bytes, config: str) -> None:
        """Writes the weights of one task, then the config that names it."""
        try:
            (self.directory / "checkpoints" / slug).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write to {self.directory}: {error.strerror}") from error
        self._write(f"checkpoints/{slug}/{task}.safetensors", weights)
        self.save_config(slug, config)

    def save_config(self, slug: str, config: str) -> None:
        """Writes what a checkpoint says of itself."""
        self._write(f"checkpoints/{slug}/config.yaml", config.encode())

    def chosen(self, model: str) -> dict[str, dict[str, Any]]:
        """Of each task on which a model was trained, what is said of the run that was chosen."""
        return {task: cell.chosen for (name, task), cell in self.cells([]).items() if name == model and cell.chosen}

    def _snapshot_of(self, name: CellName) -> Path:
        return self.directory / "snapshots" / f"{self._file_name(name)}.pt"

    def _failed(self, cell: CheCell) -> bool:
        return cell.failed

    def _file_name(self, key: CellName) -> str:
        digest = hashlib.sha256(json.dumps(list(key)).encode()).hexdigest()[:12]
        return f"{slug_of(key[0])[-60:]}-{key[1]}-{digest}"

    def _spec_to_store(self, spec_text: str) -> str:
        joined = _joined(self._spec, _earlier_spec(self.directory))
        return yaml.safe_dump(joined, sort_keys=False, allow_unicode=True)

    def _decoded(self, content: Mapping[str, Any]) -> tuple[CellName, CheCell]:
        # A cell's key was called `cell` at first.
        model, task = content["key"] if "key" in content else content["cell"]
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
        return (model, task), CheCell(rows, log, chosen, counts)


def slug_of(name: str) -> str:
    """A model's name as a folder's: `dape(kerple_log)` is `dape-kerple-log`."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _earlier_spec(directory: Path) -> dict[str, Any]:
    try:
        found = yaml_of(read_plain(directory / SPEC))
    except Unreadable:
        return {}
    return found if isinstance(found, dict) else {}


def _joined(spec: dict[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with what earlier starts asked for in front, where it can grow."""
    joined = dict(spec)
    for key in ("encodings", "models", "tasks"):
        before, now = earlier.get(key), spec[key]
        if isinstance(before, list) and isinstance(now, list):
            joined[key] = [*before, *(each for each in now if each not in before)]
    return joined
