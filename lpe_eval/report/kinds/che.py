"""Encoders on algorithmic problems, at lengths beyond those of training."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from lpe_eval import table
from lpe_eval.errors import SpecError
from lpe_eval.report.figures.che import draw_che
from lpe_eval.report.folders.che import LAYOUT
from lpe_eval.report.folders.folder import Layout
from lpe_eval.report.frames import read_bytes, read_csv
from lpe_eval.report.gate.che_rows import judged_che_rows
from lpe_eval.report.gate.damage import refuse_damaged
from lpe_eval.report.gate.joining import Judged
from lpe_eval.report.kind import Found, Kind
from lpe_eval.report.page.of_che import che_charts
from lpe_eval.report.page.parts import Chart, HeatMap
from lpe_eval.report.sources import (
    Source,
    sources_of_methods,
    sources_of_problems,
    sources_of_text,
    sources_of_training,
)
from lpe_eval.report.tables.che import che_tables
from lpe_eval.report.tables.provenance import several
from lpe_eval.screen import Table
from lpe_eval.spec.che_spec import CheSpec


class AlgorithmicProblems(Kind):
    """See the module's docstring."""

    name = "che"
    title = "algorithmic problems"
    spec = CheSpec
    columns = table.CHE
    worse_is = {"accuracy": -1}

    @classmethod
    def direction(cls, metric: str) -> int | None:
        return -1

    @classmethod
    def layout(cls) -> Layout:
        return LAYOUT

    @classmethod
    def baseline(cls, found: Found) -> dict[str, bytes]:
        return {name: read_bytes(found.path / name) for name in ("che.csv", "by_string.parquet")}

    @classmethod
    def cells(cls, found: Found) -> tuple[Sequence[str], int]:
        models = len(found.spec["encodings"] or found.spec["models"])
        return ("model", "task"), models * len(found.spec["tasks"])

    @classmethod
    def about(cls, found: Found) -> list[tuple[str, str]]:
        return [
            ("tasks", several(dict.fromkeys(f"{row['task']} v{row['task_version']}" for row in found.rows))),
            ("encodings", several(dict.fromkeys(row["encoding"] for row in found.rows))),
        ]

    @classmethod
    def values(cls, found: Found) -> list[Table]:
        return che_tables(read_csv(found.path / cls.table(), cls.columns)) if found.rows else []

    @classmethod
    def draw(cls, folders: Sequence[Found], out: Path) -> list[Path]:
        written = draw_che(pd.concat([_drawn(each) for each in folders]), out)
        if not written:
            places = ", ".join(str(each.path) for each in folders)
            raise SpecError(f"{places}: no problem has a score yet, so there is nothing to draw")
        return written

    @classmethod
    def charts(cls, folders: Sequence[Found]) -> list[Chart | HeatMap]:
        return che_charts(pd.concat([_drawn(each) for each in folders]))

    @classmethod
    def judged_rows(cls, found: Found, source: str) -> list[Judged]:
        judged = judged_che_rows(found.path, source)
        refuse_damaged(judged, source)
        return judged

    @classmethod
    def sources(cls, found: Found) -> Iterator[Source]:
        yield from sources_of_methods(found.spec, found.provenance, found.rows)
        yield from sources_of_problems(found.rows)
        yield from sources_of_text(found.spec)
        yield from sources_of_training(found.spec)


def _drawn(found: Found) -> pd.DataFrame:
    """The table of a folder with the models of its rows, which may have been chosen."""
    rows = read_csv(found.path / found.kind.table(), found.kind.columns)
    return rows.loc[rows["model"].isin([row["model"] for row in found.rows])]
