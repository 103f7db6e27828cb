"""What a report's page is made of: charts, heat maps, and what is told of each run."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lpe_eval.report.stored_rows import Stored
from lpe_eval.screen import Table


class Line(NamedTuple):
    """A line of a chart, which can be switched on and off.

    Attributes:
        name: as people know it.
        colour: as CSS has it.
        shape: of its points, as Vega calls it; "" for none.
        dash: lengths of strokes and gaps; empty for a whole line.
    """

    name: str
    colour: str
    shape: str = ""
    dash: tuple[float, ...] = ()


class View(NamedTuple):
    """What the vertical axis of a chart may show.

    Attributes:
        name: on its switch.
        label: beside the axis.
        log: whether the axis begins logarithmic; None where values may be zero or less, so that it never is.
        top: where the axis is cut as long as nobody asks for all of it; None where nothing is cut.
    """

    name: str
    label: str
    log: bool | None = None
    top: float | None = None


class Point(NamedTuple):
    """A value of a line.

    Attributes:
        line, panel, view: places in those of the chart.
        x, y: finite.
        low, high: ends of an interval; None without one.
        told: the value with its error, for whoever points at it.
        stored: the same with every digit.
        over: what it is a mean over; may be empty.
    """

    line: int
    panel: int
    view: int
    x: float
    y: float
    low: float | None
    high: float | None
    told: str
    stored: str
    over: str = ""


class Chart(NamedTuple):
    """Lines against a length, with switches for lines, panels and what is shown.

    Attributes:
        title: above.
        told: sentences below.
        noun: what a line is; `panel_noun`: what a panel is.
        x_label: below the axis.
        x_ticks: places of the axis that have a number, if it is logarithmic; None for one that is not.
        marks: vertical lines by panel, and `mark_label` beside them.
    """

    title: str
    told: Sequence[str]
    noun: str
    panel_noun: str
    panels: Sequence[str]
    views: Sequence[View]
    lines: Sequence[Line]
    x_label: str
    x_ticks: Sequence[float] | None
    points: Sequence[Point]
    marks: Mapping[str, Sequence[int]]
    mark_label: str = "train length"


class HeatCell(NamedTuple):
    """A cell of a heat map.

    Attributes:
        text: in it.
        share: of the full colour, from 0 to 1; None for none.
        told: more, for whoever points at it.
        weak: whether it says nothing beyond chance.
    """

    text: str
    share: float | None = None
    told: str = ""
    weak: bool = False


class HeatMap(NamedTuple):
    """A table whose cells have colours; every cell has its number as well.

    Attributes:
        title, told: above and below.
        corner: what the lines are.
        heads: of the columns.
        lines: a name and cells each.
        groups: of the lines, in their order; equal neighbours are told once. Empty without groups.
    """

    title: str
    told: Sequence[str]
    corner: str
    heads: Sequence[str]
    lines: Sequence[tuple[str, Sequence[HeatCell]]]
    groups: Sequence[str] = ()


class Judgement(NamedTuple):
    """A run beside its baselines.

    Attributes:
        passes: whether the run may pass.
        outcome: one sentence.
        table: of verdicts; the last column is the verdict.
        notes: sentences.
    """

    passes: bool
    outcome: str
    table: Table
    notes: Sequence[str]


class RunPart(NamedTuple):
    """What is told of one run.

    Attributes:
        label: what it is called.
        measured: names and values of what was measured and how.
        values: its tables.
        stored: its rows with every digit; None where there are none.
        judgement: None where it was not compared.
        cost: names and values of the whole; `costs`: of each cell.
        provenance: names and values, then tables.
        citations: BibTeX; `uncited`: sentences about what has none.
    """

    label: str
    measured: Table
    values: Sequence[Table]
    stored: Stored | None
    judgement: Judgement | None
    cost: Table
    costs: Stored | None
    provenance: Sequence[Table]
    citations: str
    uncited: Sequence[str]


class KindPart(NamedTuple):
    """All runs of one kind.

    Attributes:
        title: of the kind.
        figures: of all of them together.
        runs: at least one.
    """

    title: str
    figures: Sequence[Chart | HeatMap]
    runs: Sequence[RunPart]
