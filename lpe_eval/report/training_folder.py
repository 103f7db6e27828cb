"""The folder of a training run: its spec, its log, and what is needed to go on after a kill.

    spec.yaml            what was asked, fully resolved
    training.csv         the log: one row for every few steps, with the validation loss where there is one
    provenance.json      machine, libraries, text, wall time
    training_state.pt    weights and optimiser of the last snapshot; removed when training ends

Beside them the caller puts the checkpoint itself.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpe_eval.errors import OutputError
from lpe_eval.report.atomic import write_atomically


class LogRow(NamedTuple):
    """A few training steps: means over them, and the validation loss after the last."""

    step: int
    train_nll_nats: float
    gradient_norm: float
    learning_rate: float
    valid_nll_nats: float | None
    seconds: float


class TrainingFolder:
    """One folder; writes are whole or not at all.

    Args:
        directory: made if it is not there.
        spec_text: the resolved spec.
        overwrite: start anew over another run's files.

    Raises:
        OutputError: the folder holds the training of another spec, or cannot be written.
    """

    def __init__(self, directory: Path, spec_text: str, overwrite: bool = False) -> None:
        self.directory = directory
        spec = directory / "spec.yaml"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if overwrite:
                for name in ("spec.yaml", "training.csv", "training_state.pt"):
                    (directory / name).unlink(missing_ok=True)
            elif spec.exists() and spec.read_text(encoding="utf-8") != spec_text:
                raise OutputError(
                    f"{directory} holds the training of another spec; choose another --out or add --overwrite"
                )
        except OSError as error:
            raise OutputError(f"cannot write to {directory}: {error.strerror}; choose another --out") from error
        self._write("spec.yaml", spec_text.encode())

    def saved_state(self) -> bytes | None:
        """The last snapshot; None if there is none."""
        path = self.directory / "training_state.pt"
        return path.read_bytes() if path.exists() else None

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
        """The rows of the log that a snapshot at that step continues."""
        path = self.directory / "training.csv"
        if not path.exists():
            return []
        with path.open(encoding="utf-8", newline="") as file:
            rows = [
                LogRow(int(row["step"]), *(float(row[name]) if row[name] else None for name in LogRow._fields[1:]))  # pyright: ignore[reportArgumentType]
                for row in csv.DictReader(file)
            ]
        return [row for row in rows if row.step <= up_to_step]

    def finish(self, rows: Sequence[LogRow], provenance: dict[str, Any]) -> None:
        """Writes the whole log and where it was made, and removes the snapshot."""
        self.write_log(rows)
        self._write("provenance.json", (json.dumps(provenance, indent=2, sort_keys=True) + "\n").encode())
        (self.directory / "training_state.pt").unlink(missing_ok=True)

    def _write(self, name: str, content: bytes) -> None:
        try:
            write_atomically(self.directory / name, content)
        except OSError as error:
            raise OutputError(
                f"cannot write {self.directory / name}: {error.strerror}; what was written before is kept"
            ) from error
