"""Baselines: small run folders that later runs are compared with.

    results/baselines/<name>/
        rows.csv  by_document.parquet    what was measured, and the sums that pair it; of `lpe-eval che`
                                         che.csv and by_string.parquet
        provenance.json  spec.yaml       where it was made, of what; `lpe-eval run spec.yaml` measures the same again
        cost.csv  by_position.parquet    of text only, and empty: what a cell cost, and curves over context, belong
                                         to the run
        run.json                         which run it is

It is a run folder in every respect, so whatever reads runs reads baselines. A name is looked up below the current
directory and then among the baselines that come with the package; a path is any run's folder.

Refused as a baseline: a run that was interrupted, and one with a cell that failed, since a failure is an accident of
one day and not what later runs should be held to. `n/a` and `error` are answers and are kept.
"""

import math
import re
import shutil
from pathlib import Path

import pandas as pd

import lpe_eval
from lpe_eval import table
from lpe_eval.errors import OutputError, SpecError, UnknownName
from lpe_eval.report.folders.atomic import PARTIAL, write_atomically
from lpe_eval.report.folders.reading import (
    MARKER,
    UNFIT,
    Run,
    csv_bytes,
    read_csv,
    read_mapping,
    read_marker,
    read_run,
    typed_frame,
)
from lpe_eval.report.gate.che_entries import che_entries

FOLDER = Path("results/baselines")
_OF_TEXT = ("rows.csv", "by_document.parquet", "provenance.json", "spec.yaml")
_OF_PROBLEMS = ("che.csv", "by_string.parquet", "provenance.json", "spec.yaml")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def find_baseline(text: str) -> Path:
    """The folder of a run at the path `text`, or of the baseline called so.

    Raises:
        OutputError: there is a folder at that path, and it holds no run.
        UnknownName: there is neither a folder nor a baseline.
    """
    path = Path(text).expanduser()
    if read_marker(path) is not None:
        return path
    places = (FOLDER, *_shipped())
    if _NAME.fullmatch(text):
        for place in places:
            if read_marker(place / text) is not None:
                return place / text
    if path.is_dir():
        raise OutputError(f"{path} holds no run: it has no {MARKER}; give the folder that a run was written to")
    known = {found.parent.name for place in places for found in place.glob(f"*/{MARKER}")}
    raise UnknownName("run or baseline", text, known or {"none; make one with lpe-eval compare RUN --bless NAME"})


def write_baseline(folder: Path, name: str, overwrite: bool) -> Path:
    """Writes what later runs are compared with to `results/baselines/<name>`; it appears whole or not at all.

    Args:
        folder: where the run is.
        name: letters, digits, dots, dashes and underscores.
        overwrite: replace a baseline of that name.

    Raises:
        SpecError: the name is no name, is taken, or the run is not fit to be a baseline.
        OutputError: the run cannot be read, or the baseline not written.
    """
    if not _NAME.fullmatch(name):
        raise SpecError(f"a baseline cannot be called {name!r}; use letters, digits, dots, dashes and underscores")
    of_problems = (folder / "che.csv").exists()
    if of_problems:
        che_entries(folder, str(folder))
        _refuse_unfit(folder, read_csv(folder / "che.csv", table.CHE), _problem_cells(folder), ("model", "task"))
    else:
        run = read_run(folder)
        _refuse_unfit(folder, run.rows, _text_cells(folder, run), ("model", "protocol", "length", "stride"))
    target = FOLDER / name
    if target.exists() and not overwrite:
        raise SpecError(f"there is a baseline {target}; replace it with --overwrite or choose another name")
    if target.exists() and read_marker(target) is None:
        raise OutputError(f"{target} holds files that are no baseline; choose another name")
    partial, old = FOLDER / f".{name}{PARTIAL}", FOLDER / f".{name}.old{PARTIAL}"
    try:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        for kept in _OF_PROBLEMS if of_problems else _OF_TEXT:
            write_atomically(partial / kept, (folder / kept).read_bytes())
        if not of_problems:
            positions = typed_frame(table.BY_POSITION, []).to_parquet(index=False)
            write_atomically(partial / "cost.csv", csv_bytes(table.COST, []))
            write_atomically(partial / "by_position.parquet", positions)
        write_atomically(partial / MARKER, (folder / MARKER).read_bytes())
        if target.exists():
            target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}; the run itself is untouched") from error
    return target


def _text_cells(folder: Path, run: Run) -> int:
    try:
        return math.prod(len(run.spec[name]) for name in ("models", "protocols", "lengths"))
    except UNFIT as error:
        raise OutputError(f"{folder / 'spec.yaml'} does not say what the run measures; measure anew") from error


def _problem_cells(folder: Path) -> int:
    spec = read_mapping(folder / "spec.yaml")
    try:
        return len(spec["encodings"] or spec["models"]) * len(spec["tasks"])
    except UNFIT as error:
        raise OutputError(f"{folder / 'spec.yaml'} does not say what the run measures; measure anew") from error


def _refuse_unfit(folder: Path, rows: pd.DataFrame, cells: int, key: tuple[str, ...]) -> None:
    if not len(rows):
        raise SpecError(f"{folder} has no rows to compare with; run it to its end first")
    there = int(rows.groupby(list(key), dropna=False).ngroups)
    if there < cells:
        raise SpecError(f"{folder} has {there} of {cells} cells; run it to its end before it becomes a baseline")
    failed = rows[rows.status == "failed"]
    if len(failed):
        first = failed.iloc[0]
        raise SpecError(
            f"{folder} cannot be a baseline: {first.model} failed at {first.length} ({first.note}); run it again"
        )


def _shipped() -> list[Path]:
    """`results/baselines/` of the package: inside an installed one, beside it in a source checkout."""
    package = Path(lpe_eval.__file__).parent
    return [place for place in (package / "baselines", package.parent / FOLDER) if place.is_dir()]
