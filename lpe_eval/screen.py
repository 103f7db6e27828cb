"""What a table for the screen is, and how numbers and names are written in it. `console.py` renders it; nothing else
rounds."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, final

_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls of ASCII and of Latin-1 (C1), marks and overrides of direction, two more ends of a line, and halves of
surrogate pairs."""
_LONGEST_WORD, _BETWEEN, _CLOSE = 22, 3, 2
"""Longer ones, paths for instance, are broken where a column is narrow; and the space between two columns, and between
two that stand close."""
_SPACES = str.maketrans("\n\t", "  ")


class Column(NamedTuple):
    """The head of a column.

    Attributes:
        text: its name.
        group: columns of one group stand together where a table is too wide for one piece; above its name.
        number: numbers stand at the right.
    """

    text: str
    group: str = ""
    number: bool = False


@final
class Written(str):
    """A number as it is written, which still knows what it was written from.

    Attributes:
        value, stderr: as they are stored; None where there is none.
    """

    def __new__(cls, text: str, value: float | int | None, stderr: float | int | None = None) -> "Written":
        """The text, with the numbers."""
        found = super().__new__(cls, text)
        found.value, found.stderr = value, stderr
        return found

    value: float | int | None
    stderr: float | int | None


class Cell(NamedTuple):
    """One value as it is written."""

    text: str
    best: bool = False
    """Shown bold."""


class Table(NamedTuple):
    """A table for the screen, with the sentences that stand below it.

    Attributes:
        title: stands above; may be empty.
        columns: heads.
        rows: as many cells each as there are columns; plain text is a cell too.
        kept: so many columns at the left stand in every block of a table that is too wide for the terminal. With 0 a
            table stays in one piece: long cells are folded, and where the terminal is narrower than its words, a row
            becomes a paragraph.
        described: so many columns after those say more of a row; where there are several blocks, they are told apart
            from the values.
        below: sentences, a line each.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell | str]]
    kept: int = 0
    described: int = 0
    below: Sequence[str] = ()


class Block(NamedTuple):
    """A part of a table that is shown by itself.

    Attributes:
        title: the group of its columns; empty where their heads tell it.
        places: its columns.
        rows: its rows.
        close: whether columns stand close together, since there is little room.
    """

    title: str
    places: Sequence[int]
    rows: Sequence[int]
    close: bool = False


def blocks(table: Table, width: int) -> list[Block]:
    """The parts in which a table with columns to keep is shown at so many characters; one where it fits.

    Else each group of columns is a block, or several with about as many columns each, and a number is never broken.
    What describes the rows comes last, where it differs from row to row and from their names; see `same_everywhere`.
    """
    rows, first = range(len(table.rows)), table.kept + table.described
    if block_width(table, Block("", range(len(table.columns)), rows)) <= width:
        return [Block("", range(len(table.columns)), rows)]
    groups: dict[str, list[int]] = {}
    for place in range(first, len(table.columns)):
        groups.setdefault(table.columns[place].group, []).append(place)
    found = []
    for group, places in groups.items():
        ways = (
            [Block(group, [*range(table.kept), *part], rows, close=True) for part in _parted(places, many)]
            for many in range(1, len(places) + 1)
        )
        # The last way has one column in each block; a terminal may be too narrow even for that.
        found += next(
            way for way in ways if len(way) == len(places) or all(block_width(table, part) <= width for part in way)
        )
    more = [place for place in range(table.kept, first) if len({_text(row[place]) for row in table.rows}) > 1]
    telling = [
        number
        for number in rows
        if any(_spelling(table, number, place) != _spelling(table, number, 0) for place in more)
    ]
    if telling and more:
        found.append(Block("", [*range(table.kept), *more], telling, close=True))
    return found


def same_everywhere(table: Table) -> list[str]:
    """What the columns that describe rows say of all of them, a sentence each."""
    found = []
    for place in range(table.kept, table.kept + table.described):
        told = {_text(row[place]) for row in table.rows}
        if len(told) == 1:
            found.append(f"{table.columns[place].text} {told.pop()} in every row")
    return found


def block_width(table: Table, block: Block) -> int:
    """How many characters a block needs so that nothing in it is broken."""
    texts = [
        [table.columns[place].text, *(_text(table.rows[row][place]) for row in block.rows)] for place in block.places
    ]
    # Without a title the group stands above a column's name.
    groups = [0 if block.title else len(table.columns[place].group) for place in block.places]
    widths = [max(group, *map(len, each)) for group, each in zip(groups, texts, strict=True)]
    between = _CLOSE if block.close else _BETWEEN
    return sum(widths) + between * (len(widths) - 1) + 2


def _parted(places: Sequence[int], many: int) -> list[Sequence[int]]:
    """So many parts, as equal as can be, the longer ones first."""
    each, more = divmod(len(places), many)
    ends = [part * each + min(part, more) for part in range(many + 1)]
    return [places[start:end] for start, end in pairwise(ends)]


def _spelling(table: Table, row: int, place: int) -> str:
    """A name without the marks in which names of one thing differ: dape-kerple-log and dape(kerple_log)."""
    return re.sub(r"[^a-z0-9]+", "", _text(table.rows[row][place]).lower())


def column_widths(table: Table, width: int) -> list[int] | None:
    """Widths at which a table fits into so many characters and no word or number is broken; None where there are none.

    Columns are as wide as their longest line where that fits; else the widest give way.
    """
    lines = [[column.text, *(_text(row[place]) for row in table.rows)] for place, column in enumerate(table.columns)]
    found = [max(map(len, each)) for each in lines]
    least = [max(min(len(word), _LONGEST_WORD) for line in each for word in line.split() or [""]) for each in lines]
    for place, column in enumerate(table.columns):
        if column.number:
            # A number may have parts with blanks between them, `2.94 ± 0.11`, which belong together; its head may not.
            least[place] = max(least[place], *(len(_text(row[place])) for row in table.rows), 0)
    room = width - _BETWEEN * (len(found) - 1) - 2
    if sum(least) > room:
        return None
    while sum(found) > room:
        able = [place for place in range(len(found)) if found[place] > least[place]]
        found[max(able, key=lambda place: found[place])] -= 1
    return found


def paragraphs(table: Table) -> list[str]:
    """The rows of a table for a terminal that is too narrow for its columns: each the first cell, then the others."""
    names = [column.text for column in table.columns]
    found = []
    for first, *rest in ([_text(cell) for cell in row] for row in table.rows):
        found += [first, *(f"  {name}: {text}" for name, text in zip(names[1:], rest, strict=True))]
    return found


def _text(cell: Cell | str) -> str:
    return visible(cell.text if isinstance(cell, Cell) else cell)


def listing(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A plain table of text; what is missing is written `-`."""
    return Table(title, [Column(name) for name in columns], [[written(cell) for cell in row] for row in rows])


def counted(count: int, noun: str) -> str:
    """A number of things, such as `1 document` or `2,000 documents`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def written(value: object) -> str:
    """A value as text; None, NaN and pandas' NA are `-`."""
    return "-" if missing(value) else str(value)


def missing(value: object) -> bool:
    """Whether there is no value."""
    # pandas' NA has no truth value and pandas is not imported here, so its name is asked.
    return value is None or str(value) in ("nan", "<NA>")


def number(value: float | int | None, digits: int = 4) -> str:
    """A number with so many significant digits: 5.123, 30046, 1.2e9, inf, - where there is none.

    Digits before the point are never rounded away below a million.
    """
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size >= 6 or size < -4:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{max(digits - 1 - size, 0)}f}"


def with_error(value: float | int | None, stderr: float | int | None) -> Written:
    """A value and its standard error, both to the second digit of the error: 5.123 ± 0.021."""
    if stderr is None or not math.isfinite(stderr) or stderr <= 0 or value is None or not math.isfinite(value):
        return Written(number(value), value)
    if abs(value) >= 1e6 or abs(stderr) >= 1e6:
        return Written(f"{number(value)} ± {number(stderr)}", value, stderr)
    places = min(max(1 - math.floor(math.log10(stderr)), 0), 4)
    return Written(f"{value:.{places}f} ± {stderr:.{places}f}", value, stderr)


def short_count(count: float | int) -> str:
    """How many, to three digits: 950, 12.3k, 1.2M, 3.4G."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{letter}"
    return f"{count:.0f}"


def clock(seconds: float | int) -> str:
    """A duration: 0:07, 3:20, 1:02:05."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def duration(seconds: float | int) -> str:
    """Seconds below a minute, else a clock."""
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)


def visible(text: str) -> str:
    """A text of one line in which nothing is obeyed by a terminal or hidden from a reader.

    Line ends and tabs become spaces. Escape sequences, other control characters and overrides of the direction of
    writing become escapes such as `\\x1b`.
    """
    return _OBEYED.sub(_escape, text.translate(_SPACES))


def visible_lines(text: str) -> str:
    """The same for a text of several lines, whose line ends stay."""
    return "\n".join(map(visible, text.split("\n")))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
