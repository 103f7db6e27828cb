"""A run as a Python object: its rows, figures and comparisons, read from the folder that it was written to."""

import shutil
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from lpe_eval.commands import compare as comparing
from lpe_eval.commands.plot import plot
from lpe_eval.errors import OutputError
from lpe_eval.fetched import here
from lpe_eval.interface import in_html
from lpe_eval.report.folders.atomic import write_atomically
from lpe_eval.report.frames import read_csv, typed_frame
from lpe_eval.report.gate.rules import Verdict
from lpe_eval.report.gate.verdicts import exit_code
from lpe_eval.report.kind import open_folder
from lpe_eval.screen import Table, counted


class Figures:
    """The figures of a run, held in memory; a notebook shows them.

    Attributes:
        files: their content by name; each is there as PNG and as SVG.
        notes: what a reader should know of them.
    """

    def __init__(self, files: Mapping[str, bytes], notes: Sequence[str] = ()) -> None:
        self.files, self.notes = dict(files), tuple(notes)

    def save(self, folder: str | Path) -> list[Path]:
        """Writes the files into a folder, which is made if it is not there.

        Raises:
            OutputError: one cannot be written.
        """
        place = Path(folder)
        try:
            place.mkdir(parents=True, exist_ok=True)
            for name, content in self.files.items():
                write_atomically(place / name, content)
        except OSError as error:
            raise OutputError(f"cannot write to {place}: {error.strerror}; choose another folder") from error
        return [place / name for name in self.files]

    def _repr_html_(self) -> str:
        return in_html.pictures(self.files) + in_html.sentences(self.notes)

    def __repr__(self) -> str:
        return f"Figures({', '.join(self.files)})"


class Compared:
    """What a comparison with baselines found, row by row, as `lpe-eval compare` judges it."""

    def __init__(self, comparison: comparing.Comparison) -> None:
        self._comparison = comparison

    @property
    def rows(self) -> pd.DataFrame:
        """A line a row: the fields of `lpe_eval.report.gate.rules.Verdict`."""
        return pd.DataFrame(self._comparison.verdicts, columns=list(Verdict._fields))

    @property
    def exit_code(self) -> int:
        """What the command would end with: 0 passes, 3 worse, 2 not comparable, 5 inconclusive."""
        return exit_code(self._comparison.verdicts, self._comparison.rules)

    @property
    def passed(self) -> bool:
        """Whether the run may pass."""
        return self.exit_code == 0

    @property
    def conclusion(self) -> str:
        """How it ended, in one sentence that names every row that keeps the run from passing."""
        return comparing.conclusion(self._comparison)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the table does not say: what was left out, why, and what could not be seen."""
        return tuple(comparing.notes(self._comparison))

    def check(self) -> None:
        """Nothing, if the run may pass.

        Raises:
            RegressionFound: a row is worse or missing.
            InconclusiveComparison: a row can see too little.
            SpecError: a row is not comparable.
        """
        comparing.refuse_regression(self._comparison)

    def _repr_html_(self) -> str:
        told = [self.conclusion, *self.notes]
        return in_html.table(comparing.table_of(self._comparison)) + in_html.sentences(told)

    def __repr__(self) -> str:
        return f"Compared({self.conclusion})"


class Run:
    """A run of any kind; `lpe_eval.ppl` and the like make one, and `lpe_eval.read` opens one.

    Args:
        folder: where it is.
        notes: what was said while it was measured.
        temporary: whether the folder goes when nobody holds the run any more.

    Attributes:
        folder: likewise.
        kind: `ppl`, `che`, `recall` and so on.
        spec: what was asked.
        provenance: with what and where it was measured.
        notes: what a reader of the rows should know.

    Raises:
        SpecError: the folder is not there, or holds no run.
        OutputError: it holds one that is damaged, or of another version of the tables.
    """

    def __init__(self, folder: Path, notes: Sequence[str] = (), temporary: bool = False) -> None:
        if temporary:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        found = open_folder(folder)
        self.folder, self.notes = folder, tuple(notes)
        self.kind: str = found.kind.name
        self.spec: Mapping[str, Any] = found.spec
        self.provenance: Mapping[str, Any] = found.provenance

    @property
    def rows(self) -> pd.DataFrame:
        """One number a row, with everything that tells rows apart; `lpe-eval list columns` says what columns mean.

        Raises:
            OutputError: the table is damaged.
        """
        found = open_folder(self.folder)
        path = self.folder / found.kind.table()
        if not found.kind.columns or not path.is_file():
            return typed_frame(found.kind.columns, [])
        return read_csv(path, found.kind.columns)

    def plot(self, *others: "Run | str | Path", models: Sequence[str] = ()) -> Figures:
        """The figures of the run, of several runs together where others are given; nothing is written.

        Args:
            others: runs of the same kind, or their folders.
            models: draw these alone, by the names of the table; none means all.

        Raises:
            SpecError: the runs cannot be drawn together, or have no such model.
            OutputError: a run is damaged.
        """
        with TemporaryDirectory(prefix="lpe-eval-") as place:
            drawn = plot([self.folder, *map(_folder, others)], Path(place), models)
            return Figures({path.name: path.read_bytes() for path in drawn.files}, drawn.notes)

    def compare(
        self,
        *baselines: "Run | str | Path",
        tolerance: float = 0.0025,
        sigmas: float = 3.0,
        detectable: float | None = None,
        allow: Sequence[str] = (),
    ) -> Compared:
        """Judges the run by baselines, row by row, on the text that both scored.

        Args:
            baselines: runs, their folders as `Path`, or names of baselines; a text with a slash is a folder too.
            tolerance: part of the baseline's loss by which a row may be worse.
            sigmas: standard errors of the paired difference below which nothing is worse.
            detectable: change that a row must be able to see before it is called same.
            allow: what may differ all the same: task, protocol, tokenizer, dtype, seed, missing.

        Raises:
            UnknownName: there is no such baseline.
            SpecError: nothing was measured on both sides, or a number cannot be.
            OutputError: a run is damaged.
        """
        rules = comparing.parse_rules(tolerance, sigmas, allow, detectable)
        names = [each if isinstance(each, str) else str(_folder(each).resolve()) for each in baselines]
        return Compared(comparing.compare(self.folder, comparing.open_baselines(names), rules))

    def tables(self) -> list[Table]:
        """The values as tables for people, as the command shows them; none where nothing has been finished."""
        found = open_folder(self.folder)
        return found.kind.values(found) if found.kind.columns and found.rows else []

    def _repr_html_(self) -> str:
        shown = "".join(map(in_html.table, self.tables())) or "<div>nothing has been finished yet</div>"
        return shown + in_html.sentences(self.notes)

    def __repr__(self) -> str:
        return f"Run({self.kind} in {str(self.folder)!r}, {counted(len(self.rows), 'row')})"


def read(folder: str | Path) -> Run:
    """The run in a folder, finished or not; of an address (`s3://bucket/run`), as it is now.

    Raises:
        SpecError: the folder is not there, or holds no run.
        OutputError: it holds one that is damaged, or of another version of the tables; or an address cannot be read.
        MissingExtra: a package for the address is not installed.
    """
    return Run(here(Path(folder)))


def _folder(run: "Run | str | Path") -> Path:
    return run.folder if isinstance(run, Run) else here(Path(run))
