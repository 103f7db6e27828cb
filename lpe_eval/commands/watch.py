"""Checkpoints of a training, measured as they appear: each once, when it is whole, and one table over all of them.

    OUT/NAME/                  the run of the checkpoint NAME, as `ppl` writes it
    OUT/steps.csv              the rows of all of them, each behind the step of its checkpoint
    OUT/figures/steps.png      loss against step, a line a length

The folder may be at an address of object storage, `s3://bucket/runs`: then it is listed, and a checkpoint is fetched
when it is whole.

Choices:
    * A checkpoint is a folder that a format knows. It is whole when nothing in it has changed between two looks and no
      name in it says that it is being written.
    * The step is the last number in the folder's name: `step-2000`, `checkpoint-500`, `00010000`.
    * A checkpoint that has a run without failed cells is not opened again, whatever becomes of its files.
"""

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpe_eval import table, text_tables
from lpe_eval.addresses import Entry, listed
from lpe_eval.errors import LpeEvalError, OutputError
from lpe_eval.measure.progress import Tell
from lpe_eval.model.at_address import may_be_one
from lpe_eval.model.checkpoint import locate
from lpe_eval.report.figures.steps import draw_steps
from lpe_eval.report.folders.atomic import write_atomically
from lpe_eval.report.frames import csv_bytes, read_csv, records

TABLE = "steps.csv"
_UNFINISHED = (".tmp", ".partial", ".part", ".incomplete", ".lock")

Stamp = tuple[tuple[str, str], ...]
Measure = Callable[[str, str, Path], int]
"""measure(name, checkpoint, out): measures a checkpoint, as `-m` takes it, into a folder, and gives the exit code."""


class Seen(NamedTuple):
    """A folder in which a checkpoint is or may come to be.

    Attributes:
        name: of the folder.
        place: as `-m` takes it.
        stamp: tells whether something in it has changed; None while something is being written or removed.
    """

    name: str
    place: str
    stamp: Stamp | None


def watch(
    directory: Path | str, out: Path, measure: Measure, tell: Tell, *, every: float, once: bool, last: int | None
) -> int:
    """Measures the checkpoints in a folder as they appear; gives how many ended with an exit code other than 0.

    Args:
        directory: where checkpoints appear; a text is an address.
        out: where their runs go.
        measure: measures one.
        tell: takes a sentence for the user.
        every: seconds between two looks.
        once: end when what is there now is measured.
        last: end after the checkpoint of this step or of a later one; None never ends by that.
    """
    before: dict[str, Stamp] = {}
    done: dict[str, int] = {}
    looks = 0
    while True:
        looks += 1
        try:
            look = _looked_at(directory) if isinstance(directory, str) else _looked_into(directory)
        except OutputError as error:
            if once or looks == 1:
                raise
            tell(f"{error}; it is looked at again in {every:g} seconds")
            time.sleep(every)
            continue
        now = {each.name: each for each in look if each.name not in done and each.stamp}
        ready = [each for each in now.values() if before.get(each.name) == each.stamp or _finished(out / each.name)]
        idle = True
        for each in ready:
            if _finished(out / each.name):
                done[each.name], idle = 0, False
                continue
            if isinstance(directory, str) and not _is_checkpoint(each.place):
                continue
            tell(f"measuring {each.name}, {len(now)} checkpoints wait")
            done[each.name], idle = measure(each.name, each.place, out / each.name), False
            collect(out, tell)
        steps = [step for name in done if (step := step_of(name)) is not None]
        if (once and looks > 1) or (last is not None and steps and max(steps) >= last):
            collect(out, tell)
            return sum(code != 0 for code in done.values())
        before = {name: each.stamp for name, each in now.items() if each.stamp}
        if idle:
            time.sleep(every)


def checkpoints(directory: Path) -> list[Path]:
    """The folders in a folder that a checkpoint format knows, in the order of the numbers in their names."""
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.name.startswith(".") and _is_checkpoint(str(path)):
                found.append(path)
    return sorted(found, key=lambda path: _in_order(path.name))


def stamp_of(folder: Path) -> Stamp | None:
    """What tells whether something in a folder has changed; None while something is being written or removed."""
    try:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if any(path.name.endswith(_UNFINISHED) for path in files):
            return None
        seen = [(path.relative_to(folder).as_posix(), path.stat()) for path in files]
    except OSError:
        return None
    return tuple((name, f"{each.st_size} {each.st_mtime_ns}") for name, each in seen)


def _looked_into(directory: Path) -> list[Seen]:
    return [Seen(path.name, str(path), stamp_of(path)) for path in checkpoints(directory)]


def _looked_at(address: str) -> list[Seen]:
    """The same at an address, of folders whose files may be a checkpoint: only their content can tell.

    Raises:
        OutputError: it cannot be read.
    """
    held: dict[str, list[Entry]] = {}
    for entry in listed(address, OutputError).entries:
        folder, slash, name = entry.name.partition("/")
        if slash and not folder.startswith("."):
            held.setdefault(folder, []).append(entry._replace(name=name))
    found = []
    for folder, entries in sorted(held.items(), key=lambda each: _in_order(each[0])):
        if may_be_one(each.name for each in entries):
            unfinished = any(each.name.endswith(_UNFINISHED) for each in entries)
            stamp = None if unfinished else tuple((each.name, each.stamp) for each in entries)
            found.append(Seen(folder, f"{address}/{folder}", stamp))
    return found


def _is_checkpoint(place: str) -> bool:
    try:
        locate(place)
    except LpeEvalError:
        # Not yet one, or never.
        return False
    return True


def _in_order(name: str) -> list[tuple[int, str]]:
    return [(len(part), part) for part in re.split(r"\D+|(?<=\d)(?=\D)", name)]


def step_of(name: str) -> int | None:
    """The last number in a name; None where there is none."""
    found = re.findall(r"\d{1,15}", name)
    return int(found[-1]) if found else None


def collect(out: Path, tell: Tell) -> None:
    """Writes the table of all runs, and its figure.

    Raises:
        OutputError: they cannot be written.
    """
    rows: list[dict[str, Any]] = []
    for folder in sorted(path.parent for path in out.glob("*/rows.csv")):
        try:
            found = records(read_csv(folder / "rows.csv", table.ROWS))
        except OutputError as error:
            tell(str(error))
            continue
        rows += [{"step": step_of(folder.name), **row} for row in found]
    rows.sort(key=lambda row: (row["step"] is None, row["step"] or 0))
    names = [column.name for column in text_tables.BY_STEP]
    try:
        out.mkdir(parents=True, exist_ok=True)
        lines: Sequence[Sequence[Any]] = [[row[name] for name in names] for row in rows]
        write_atomically(out / TABLE, csv_bytes(text_tables.BY_STEP, lines))
    except OSError as error:
        raise OutputError(f"cannot write {out / TABLE}: {error.strerror}; choose another --out") from error
    draw_steps(rows, out / "figures")


def _finished(folder: Path) -> bool:
    """Whether a checkpoint has a run in which nothing failed."""
    try:
        rows = records(read_csv(folder / "rows.csv", table.ROWS))
    except OutputError:
        return False
    return bool(rows) and (folder / "figures").is_dir() and not any(row["status"] == "failed" for row in rows)
