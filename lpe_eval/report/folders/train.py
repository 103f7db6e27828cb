"""The folder of a training run: its spec, its log, and what is needed to go on after a kill.

    spec.yaml            what was asked, fully resolved
    training.csv         the log: one row for every few steps, with the validation loss where there is one
    provenance.json      machine, libraries, text, wall time
    training_state.pt    weights and optimiser of the last snapshot; removed when training ends
    .lock                held by the process that writes; removed with it

Beside them the caller puts the checkpoint itself. Provenance is written last but one, so a folder with it and
without a snapshot is of a training that has ended.
"""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpe_eval.errors import OutputError
from lpe_eval.report.folders.lock import HeldFolder

_CHECKPOINT = ("config.yaml", "model.safetensors")
_FILES = ("training_state.pt", "provenance.json", "training.csv", *_CHECKPOINT, "spec.yaml")
"""In the order of removal: while the spec is there, the folder is known as a training's."""


class LogRow(NamedTuple):
    """A few training steps: means over them, and the validation loss after the last."""

    step: int
    train_nll_nats: float
    gradient_norm: float
    learning_rate: float
    valid_nll_nats: float | None
    seconds: float


class TrainingFolder(HeldFolder):
    """One folder, held by this process until `close` or the end of `with`; writes are whole or not at all.

    Args:
        directory: made if it is not there.
        spec_text: the resolved spec.
        overwrite: start anew over another run's files.

    Raises:
        OutputError: the folder holds the training of another spec or a checkpoint from elsewhere, cannot be
            written, or another process writes to it.
    """

    def __init__(self, directory: Path, spec_text: str, overwrite: bool = False) -> None:
        super().__init__(directory)
        spec = directory / "spec.yaml"
        try:
            if overwrite:
                for name in _FILES:
                    (directory / name).unlink(missing_ok=True)
            elif spec.exists() and spec.read_bytes() != spec_text.encode():
                raise OutputError(
                    f"{directory} holds the training of another spec; choose another --out or add --overwrite"
                )
            elif not spec.exists() and (held := [name for name in _CHECKPOINT if (directory / name).exists()]):
                raise OutputError(
                    f"{directory} holds a checkpoint that was not trained there ({held[0]}), which would be lost; "
                    "choose another --out or add --overwrite"
                )
            self._write("spec.yaml", spec_text.encode())
        except OSError as error:
            self.close()
            raise OutputError(f"cannot write to {directory}: {error.strerror}; choose another --out") from error
        except BaseException:
            self.close()
            raise

    @property
    def ended(self) -> bool:
        """Whether the training of this spec has been run to its end."""
        return _ended(self.directory)

    def saved_state(self) -> bytes | None:
        """The last snapshot; None if there is none.

        Raises:
            OutputError: it cannot be read.
        """
        try:
            return (self.directory / "training_state.pt").read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            path = self.directory / "training_state.pt"
            raise OutputError(f"cannot read {path}: {error.strerror}; delete it to start anew") from error

    def save(self, rows: Sequence[LogRow], state: bytes) -> None:
        """Writes the log and a snapshot that continues it."""
        self.write_log(rows)
        self._write("training_state.pt", state)

    def write_log(self, rows: Sequence[LogRow]) -> None:
        """Writes the whole log."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(LogRow._fields)
        writer.writerows(["" if value is None else value for value in row] for row in rows)
        self._write("training.csv", text.getvalue().encode())

    def read_log(self, up_to_step: int) -> list[LogRow]:
        """The rows of the log that a snapshot at that step continues.

        Raises:
            OutputError: the log is damaged.
        """
        return [row for row in read_log(self.directory) if row.step <= up_to_step]

    def finish(self, rows: Sequence[LogRow], provenance: dict[str, Any]) -> None:
        """Writes the whole log and where it was made, and removes the snapshot."""
        self.write_log(rows)
        self._write("provenance.json", (json.dumps(provenance, indent=2, sort_keys=True) + "\n").encode())
        (self.directory / "training_state.pt").unlink(missing_ok=True)


def read_log(directory: Path) -> list[LogRow]:
    """The log of a training so far; empty where there is none yet.

    Raises:
        OutputError: the log is damaged.
    """
    path = directory / "training.csv"
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                LogRow(int(row["step"]), *(float(row[name]) if row[name] else None for name in LogRow._fields[1:]))  # pyright: ignore[reportArgumentType]
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
        raise OutputError(f"{path} is damaged; delete it and training_state.pt to start anew") from error


def ended_training(directory: Path, spec_text: str) -> tuple[list[LogRow], dict[str, Any]] | None:
    """Log and provenance of a training that has ended; None where it has not, or is of another spec.

    Raises:
        OutputError: one of them is damaged.
    """
    spec = directory / "spec.yaml"
    if not _ended(directory) or not spec.is_file() or spec.read_bytes() != spec_text.encode():
        return None
    path = directory / "provenance.json"
    try:
        return read_log(directory), json.loads(path.read_bytes())
    except ValueError as error:
        raise OutputError(f"{path} is damaged; delete the folder to train anew") from error


def _ended(directory: Path) -> bool:
    whole = all((directory / name).is_file() for name in (*_CHECKPOINT, "training.csv", "provenance.json"))
    return whole and not os.path.lexists(directory / "training_state.pt")
