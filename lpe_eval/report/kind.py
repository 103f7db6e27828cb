"""The contract of a kind of run: one record says what its folder holds and how it is shown, drawn, compared and cited.

A kind is one file in `kinds/`, found by its name, which is also the `kind` of its specs, the name of its command and
that of the file in `commands/` that runs it. `show`, `plot`, `compare`, `--bless`, `--cite` and `run` ask the record
and know no kind themselves.

What a kind inherits: it may declare a spec and a direction for each metric and nothing else. Its folder is then one of
`folders/items.py`: a table `<kind>.csv` with the columns of `table.ITEM_ROWS` and the sums behind it, from which
tables, figures, verdicts and baselines are made. A kind whose cells are more than a model at a length declares what
else tells them apart in `further`, and a table with these columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel

from lpe_eval import table
from lpe_eval.errors import OutputError, SpecError
from lpe_eval.plain import Unreadable, read_plain, yaml_of
from lpe_eval.records import ItemKey, Point
from lpe_eval.registry import KINDS
from lpe_eval.report.figures.items import draw_items
from lpe_eval.report.folders.folder import SPEC, Layout
from lpe_eval.report.folders.items import BY_ITEM, items_layout
from lpe_eval.report.folders.marker import MARKER, read_marker
from lpe_eval.report.folders.provenance import read_provenance
from lpe_eval.report.frames import read_bytes, read_csv, records
from lpe_eval.report.gate.item_rows import judged_item_rows
from lpe_eval.report.gate.joining import Judged
from lpe_eval.report.page.of_items import item_charts
from lpe_eval.report.page.parts import Chart, HeatMap
from lpe_eval.report.sources import Source, sources_of_methods, sources_of_text
from lpe_eval.report.stored_rows import Stored
from lpe_eval.report.tables.items import item_tables
from lpe_eval.report.tables.provenance import several
from lpe_eval.screen import Table


class Found(NamedTuple):
    """A folder that holds a run of any kind, finished or not, read back."""

    path: Path
    kind: type["Kind"]
    spec: Mapping[str, Any]
    provenance: Mapping[str, Any]
    rows: list[dict[str, Any]]
    """Of the kind's table, missing values None; empty where nothing has been finished."""


class Kind:
    """A kind of run. A member overrides what is different about it; every method has a default that works.

    Attributes:
        name: as specs say it.
        title: what a person calls it.
        spec: the class of its specs.
        columns: of its table.
        further: those of them that tell its cells apart beside model and length.
        worse_is: the metrics that a gate judges, each with 1 where more is worse and -1 where less is.
        made: files that `further_files` makes when a run has ended.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    spec: ClassVar[type[BaseModel]]
    columns: ClassVar[tuple[table.Column, ...]] = table.ITEM_ROWS
    further: ClassVar[tuple[table.Column, ...]] = ()
    worse_is: ClassVar[Mapping[str, int]] = {}
    made: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def metrics(cls, key: ItemKey) -> Sequence[str]:
        """The metrics of a cell of items, each of which has a row even where the cell has no value."""
        return tuple(cls.worse_is)

    @classmethod
    def judged_metrics(cls, key: ItemKey) -> Sequence[str]:
        """Those of them that a gate judges."""
        return [metric for metric in cls.metrics(key) if metric in cls.worse_is]

    @classmethod
    def further_files(cls, found: "Found") -> dict[str, bytes]:
        """What is made of a run's tables when it has ended, content by file name; the names are those of `made`."""
        return {}

    @classmethod
    def table(cls) -> str:
        """Name of the file of its table; "" for a kind that has none."""
        return f"{cls.name}.csv"

    @classmethod
    def layout(cls) -> Layout:
        """What a run writes into its folder."""
        return items_layout(cls.table(), cls.made)

    @classmethod
    def baseline(cls, found: Found) -> dict[str, bytes]:
        """What a baseline keeps of a run beside marker, spec and provenance: content by file name.

        Empty for a kind that is never compared.

        Raises:
            OutputError: a file is missing.
        """
        names = (cls.table(), BY_ITEM, *cls.made) if cls.worse_is else ()
        return {name: read_bytes(found.path / name) for name in names}

    @classmethod
    def cells(cls, found: Found) -> tuple[Sequence[str], int]:
        """The columns that tell its cells apart, and how many cells a finished run has.

        Raises:
            LookupError, TypeError: the spec does not say.
        """
        return ("model", "length"), len(found.spec["models"]) * len(found.spec["lengths"])

    @classmethod
    def about(cls, found: Found) -> list[tuple[str, str]]:
        """What was measured, a name and a value each, as `show` tells it."""
        fields = [("models", "lengths", "task")]
        return [(name, several(found.spec[name])) for names in fields for name in names if found.spec.get(name)]

    @classmethod
    def direction(cls, metric: str) -> int | None:
        """1 where more of a metric is worse, -1 where less is, None where nobody says."""
        return cls.worse_is.get(metric)

    @classmethod
    def stored(cls, found: Found) -> Stored:
        """Its table as it is stored.

        Raises:
            OutputError: the run is damaged.
        """
        return Stored(cls.table(), cls.columns, found.rows)

    @classmethod
    def values(cls, found: Found) -> list[Table]:
        """What came out, as tables for the screen."""
        return item_tables(found.rows, cls.direction)

    @classmethod
    def details(cls, found: Found) -> list[Table]:
        """Tables for those who want to know more; only `show` prints them, after the values."""
        return []

    @classmethod
    def draw(cls, folders: Sequence[Found], out: Path) -> list[Path]:
        """Draws the figures of one run, or of several together, into a folder; gives the files.

        Raises:
            SpecError: these runs cannot be drawn together.
            OutputError: a run is damaged, or a file cannot be written.
        """
        return draw_items([row for each in folders for row in each.rows], cls.title, out)

    @classmethod
    def charts(cls, folders: Sequence[Found]) -> list[Chart | HeatMap]:
        """What the page of `report` shows of one run, or of several together; empty where nothing can be drawn.

        Raises:
            OutputError: a run is damaged.
        """
        rows = [row for each in folders for row in each.rows]
        further = [column.name for column in cls.further if column is not table.TASK]
        return [*item_charts(rows, cls.title, further)]

    @classmethod
    def costs(cls, found: Found) -> Stored | None:
        """What each cell cost; None where nobody kept it.

        Raises:
            OutputError: the run is damaged.
        """
        return None

    @classmethod
    def points(cls, found: Found) -> list[Point]:
        """What came out as curves, for a tracker: one over the lengths for each model and metric, and whatever else
        tells rows apart."""
        if not {column.name for column in cls.columns} >= {"model", "length", "metric", "value"}:
            return []
        names = ["protocol" if table.PROTOCOL in cls.columns else "task", *(each.name for each in cls.further)]
        if table.CHANCE in cls.columns:
            names.append("task")
        by_length: dict[int, dict[str, float]] = {}
        for row in found.rows:
            if row["status"] == "ok" and row["value"] is not None:
                parts = dict.fromkeys(str(row[name]) for name in names if row[name] is not None)
                curve = "/".join([str(row["metric"]), *parts, str(row["model"])])
                by_length.setdefault(int(row["length"]), {})[curve] = float(row["value"])
        return [Point("length", length, values) for length, values in sorted(by_length.items())]

    @classmethod
    def judged_rows(cls, found: Found, source: str) -> list[Judged]:
        """The rows that a gate judges.

        Args:
            found: the run.
            source: what it is called.

        Raises:
            SpecError: runs of this kind cannot be compared.
            OutputError: the run is damaged.
        """
        if not cls.worse_is:
            raise SpecError(f"{source} holds {cls.title}, which is not compared with a baseline")
        return judged_item_rows(found.path, found.rows, found.provenance, cls.worse_is, source, cls.further)

    @classmethod
    def sources(cls, found: Found) -> Iterator[Source]:
        """Whose work a run used: methods, text, protocols."""
        yield from sources_of_methods(found.spec, found.provenance, found.rows)
        yield from sources_of_text(found.spec)


def open_folder(path: Path) -> Found:
    """Reads a run of any kind, finished or not.

    Raises:
        SpecError: the folder is not there, or holds no run.
        OutputError: it holds one that is damaged, or of another version of the tables.
    """
    if not path.is_dir():
        raise SpecError(f"there is no folder {path}; give the folder that a run was written to")
    spec = _spec_of(path)
    # Tables that were copied somewhere without their spec can still be shown and drawn.
    name = spec["kind"] if "kind" in spec else next((each for each in KINDS.names() if _has_table(each, path)), None)
    if name not in KINDS.names():
        raise SpecError(f"{path} holds no run (no spec.yaml of one); give the folder that a run was written to")
    kind: type[Kind] = KINDS.load(str(name))
    if (path / MARKER).exists():
        read_marker(path)
    rows: list[dict[str, Any]] = []
    if kind.columns and (path / kind.table()).exists():
        rows = records(read_csv(path / kind.table(), kind.columns))
    return Found(path, kind, spec, read_provenance(path), rows)


def _has_table(name: str, path: Path) -> bool:
    kind: type[Kind] = KINDS.load(name)
    return bool(kind.columns) and (path / kind.table()).exists()


def _spec_of(path: Path) -> dict[str, Any]:
    file = path / SPEC
    if not file.exists():
        return {}
    try:
        found = yaml_of(read_plain(file))
    except Unreadable as error:
        raise OutputError(f"{file} {error}") from error
    if not isinstance(found, dict):
        raise OutputError(f"{file} holds no mapping; run the same command again to write it anew")
    return found
