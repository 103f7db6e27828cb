"""A table whose lines are models and whose columns are where they were measured: protocol or problem, and length."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lpe_eval.screen import Column, Table, number, with_error


class Place(NamedTuple):
    """Where a number was measured.

    Attributes:
        group: a protocol, or a problem; empty where there is only one.
        length: tokens of the windows or the string.
    """

    group: str
    length: int


def places_table(
    title: str, cells: Mapping[tuple[str, Place], str], below: Sequence[str], name: str = "model"
) -> Table:
    """The table, with its lines and groups in the order in which they come.

    Args:
        title: stands above.
        cells: texts by line and place; what is not there is empty.
        below: sentences.
        name: what the lines are.
    """
    groups = list(dict.fromkeys(place.group for _, place in cells))
    places = sorted({place for _, place in cells}, key=lambda place: (groups.index(place.group), place.length))
    lines = list(dict.fromkeys(line for line, _ in cells))
    columns = [Column(name), *(Column(str(place.length), place.group, number=True) for place in places)]
    rows = [[line, *(cells.get((line, place), "") for place in places)] for line in lines]
    return Table(title, columns, rows, kept=1, below=below)


def signed(value: float, stderr: float | None) -> str:
    """A difference with its sign and its standard error: +0.123 ± 0.005."""
    text = number(value) if stderr is None else with_error(value, stderr)
    return f"+{text}" if value > 0 else text
