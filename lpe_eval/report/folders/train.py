"""The folder of a training.

    training.csv         the log: one row for every few steps, with the validation loss where there is one
    training_state.pt    weights and optimiser of the last snapshot; removed when training ends
    config.yaml  model.safetensors    the checkpoint, which the caller puts there
    tokenizer/           files of the tokenizer, where it has any, so that the checkpoint can be moved

A training has ended when its checkpoint, its log and a provenance that tells what it saw are there, and no snapshot.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpe_eval.errors import OutputError
from lpe_eval.records import LogRow
from lpe_eval.report.folders.folder import SPEC, Layout, RunFolder
from lpe_eval.report.folders.provenance import earlier_provenance
from lpe_eval.report.frames import plain_csv

_CHECKPOINT = ("config.yaml", "model.safetensors")
_STATE = "training_state.pt"
_TOKENIZER = "tokenizer"
LAYOUT = Layout(files=(_STATE, "training.csv", *_CHECKPOINT), folders=(_TOKENIZER,), unmarked=True)


class TrainingFolder(RunFolder):
    """One folder, held by this process until `close` or the end of `with`.

    Args:
        directory: made if it is not there.
        run: id of the run.
        spec_text: the resolved spec.
        overwrite: start anew over the training that the folder holds.

    Raises:
        OutputError: as `RunFolder`; a checkpoint that was not trained there is a file that is no run.
    """

    def __init__(self, directory: Path, run: str, spec_text: str, overwrite: bool = False) -> None:
        super().__init__(directory, LAYOUT, "train", run, spec_text, overwrite)

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
            return (self.directory / _STATE).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            path = self.directory / _STATE
            raise OutputError(f"cannot read {path}: {error.strerror}; delete it to start anew") from error

    def save(self, rows: Sequence[LogRow], state: bytes) -> None:
        """Writes the log and a snapshot that continues it."""
        self.write_log(rows)
        self._write(_STATE, state)

    def keep_tokenizer(self, files: Mapping[str, bytes]) -> None:
        """Writes the files of a tokenizer, by their paths below `tokenizer/`.

        Raises:
            OutputError: they cannot be written.
        """
        for name, content in files.items():
            path = self.directory / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot write to {path.parent}: {error.strerror}") from error
            self._write(name, content)

    def write_log(self, rows: Sequence[LogRow]) -> None:
        """Writes the whole log."""
        self._write("training.csv", plain_csv(LogRow._fields, rows))

    def read_log(self, up_to_step: int) -> list[LogRow]:
        """The rows of the log that a snapshot at that step continues.

        Raises:
            OutputError: the log is damaged.
        """
        return [row for row in read_log(self.directory) if row.step <= up_to_step]

    def finish(self, rows: Sequence[LogRow], provenance: Mapping[str, Any]) -> None:
        """Writes the whole log and what the training saw, and removes the snapshot."""
        self.write_log(rows)
        self.write_provenance(provenance)
        (self.directory / _STATE).unlink(missing_ok=True)


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
        OutputError: the log is damaged.
    """
    spec = directory / SPEC
    if not _ended(directory) or not spec.is_file() or spec.read_bytes() != spec_text.encode():
        return None
    return read_log(directory), earlier_provenance(directory)


def _ended(directory: Path) -> bool:
    whole = all((directory / name).is_file() for name in (*_CHECKPOINT, "training.csv"))
    # A provenance is written at every start; only the end of a training knows how many tokens it saw.
    known = "tokens_seen" in earlier_provenance(directory)
    return whole and known and not os.path.lexists(directory / _STATE)
