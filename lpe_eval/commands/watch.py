"""Checkpoints of a training, measured as they appear: each once, when it is whole, and one table over all of them.

    OUT/NAME/                  the run of the checkpoint NAME, as `ppl` writes it
    OUT/steps.csv              the rows of all of them, each behind the step of its checkpoint
    OUT/figures/steps.png      loss against step, a line a length

Choices:
    * A checkpoint is a folder that a format knows. It is whole when nothing in it has changed between two looks and no
      name in it says that it is being written.
    * The step is the last number in the folder's name: `step-2000`, `checkpoint-500`, `00010000`.
    * A checkpoint that has a run without failed cells is not opened again, whatever becomes of its files.
"""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lpe_eval import table, text_tables
from lpe_eval.errors import LpeEvalError, OutputError
from lpe_eval.measure.progress import Tell
from lpe_eval.model.checkpoint import locate
from lpe_eval.report.figures.steps import draw_steps
from lpe_eval.report.folders.atomic import write_atomically
from lpe_eval.report.frames import csv_bytes, read_csv, records

TABLE = "steps.csv"
_UNFINISHED = (".tmp", ".partial", ".part", ".incomplete", ".lock")

Stamp = tuple[tuple[str, int, int], ...]
Measure = Callable[[str, Path, Path], int]
"""measure(name, checkpoint, out): measures a checkpoint into a folder, and gives the exit code."""


def watch(
    directory: Path, out: Path, measure: Measure, tell: Tell, *, every: float, once: bool, last: int | None
) -> int:
    """Measures the checkpoints in a folder as they appear; gives how many ended with an exit code other than 0.

    Args:
        directory: where checkpoints appear.
        out: where their runs go.
        measure: measures one.
        tell: takes a sentence for the user.
        every: seconds between two looks.
        once: end when what is there now is measured.
        last: end after the checkpoint of this step or of a later one; None never ends by that.
    """
    before: dict[Path, Stamp] = {}
    done: dict[Path, int] = {}
    looks = 0
    while True:
        looks += 1
        now = {path: stamp for path in checkpoints(directory) if path not in done and (stamp := stamp_of(path))}
        ready = [path for path, stamp in now.items() if before.get(path) == stamp or _finished(out / path.name)]
        for path in ready:
            if _finished(out / path.name):
                done[path] = 0
                continue
            tell(f"measuring {path.name}, {len(now)} checkpoints wait")
            done[path] = measure(path.name, path, out / path.name)
            collect(out, tell)
        steps = [step for path in done if (step := step_of(path.name)) is not None]
        if (once and looks > 1) or (last is not None and steps and max(steps) >= last):
            collect(out, tell)
            return sum(code != 0 for code in done.values())
        before = now
        if not ready:
            time.sleep(every)


def checkpoints(directory: Path) -> list[Path]:
    """The folders in a folder that a checkpoint format knows, in the order of the numbers in their names."""
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        try:
            if path.is_dir() and not path.name.startswith("."):
                locate(str(path))
                found.append(path)
        except (LpeEvalError, OSError):
            # Not yet one, or never.
            continue
    return sorted(found, key=lambda path: [(len(part), part) for part in re.split(r"\D+|(?<=\d)(?=\D)", path.name)])


def stamp_of(folder: Path) -> Stamp | None:
    """What tells whether something in a folder has changed; None while something is being written or removed."""
    try:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if any(path.name.endswith(_UNFINISHED) for path in files):
            return None
        seen = [(path.relative_to(folder).as_posix(), path.stat()) for path in files]
    except OSError:
        return None
    return tuple((name, each.st_size, each.st_mtime_ns) for name, each in seen)


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
