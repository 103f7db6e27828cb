"""What a person sees: tables on stdout, progress and messages on stderr. The only file that imports rich.

Names and texts come from anywhere, so all that is printed here passes `screen.visible`: a terminal obeys nothing in
them, and rich reads no markup in them. What cannot be said on stderr is dropped, because a run is worth more than its
notes; what cannot be written to stdout is an `OutputError`.

Rich is imported inside the functions, because importing it costs more than all of `lpe-eval --help` may.
"""

import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from lpe_eval.errors import OutputError
from lpe_eval.progress_lines import Pace, told_in_lines
from lpe_eval.screen import (
    Block,
    Cell,
    Column,
    Table,
    block_width,
    blocks,
    column_widths,
    paragraphs,
    same_everywhere,
    visible,
    visible_lines,
)

if TYPE_CHECKING:
    import rich.console
    import rich.table

_SHORTEST_NAME = 6
"""Characters that the name of a row gets where a terminal has no room."""


def error(message: str) -> None:
    """One sentence on stderr, after `error:`."""
    _say("error:", "bold red", message)


def note(message: str) -> None:
    """One sentence on stderr, after `note:`."""
    _say("note:", "bold cyan", message)


def show(table: Table) -> None:
    """A table on stdout; nothing in it is cut.

    A table with columns to keep that is too wide for the terminal becomes several blocks, see `screen.blocks`.
    """
    console = _stdout()
    table = _as_shown(console, table)
    below = [*table.below]
    widths = None if table.kept else column_widths(table, console.width)
    if table.columns and not table.kept and widths is None:
        _printed(console, _flowing(table))
    elif table.columns and not table.kept:
        _printed(console, _rendered(table, Block("", range(len(table.columns)), range(len(table.rows))), widths))
    elif table.columns:
        found = blocks(table, console.width)
        below = [*(same_everywhere(table) if len(found) > 1 or found[0].close else ()), *below]
        if len(found) > 1 and table.title:
            _plain(console, table.title)
            table = table._replace(title="")
        for block in found:
            _printed(console, _fitted(console, table, block))
    for line in below:
        _plain(console, line)


def lines(text: str, as_it_is: bool = False) -> None:
    """Lines on stdout, and nothing but them: for other programs as much as for people.

    Args:
        text: ends with a line end, or gets one.
        as_it_is: where stdout is no terminal, the text is written unchanged.
    """
    if sys.stdout is None:
        return
    _forgiving(sys.stdout)
    unchanged = as_it_is and not sys.stdout.isatty()
    shown = text if unchanged else visible_lines(text)
    with _told(sys.stdout.fileno):
        sys.stdout.write(shown if unchanged or shown.endswith("\n") else f"{shown}\n")
        sys.stdout.flush()


@contextmanager
def progress(total: int, unit: str = "tokens", quiet: bool = False) -> Iterator[Callable[..., None]]:
    """Shows on stderr how far the work is; yields `advance(done, description=None)`.

    `done` counts what was finished since the last call; see `measure/progress.py`. On a terminal this is a bar;
    elsewhere plain lines, see `progress_lines.py`; nothing when `quiet`.
    """
    if quiet or total <= 0:
        yield lambda done, description=None, left=None: None
    else:
        with _bar(total, unit) if _has_bar() else told_in_lines(total, unit, _say_line) as advance:
            yield advance


def _has_bar() -> bool:
    """Whether stderr is a terminal that can draw over itself, and nobody keeps what is drawn as a log."""
    kept = os.environ.get("CI", "").lower() not in ("", "0", "false")
    dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return sys.stderr is not None and sys.stderr.isatty() and not kept and not dumb


def _say_line(line: str) -> None:
    with suppress(OutputError, BrokenPipeError):
        _plain(_stderr(), line)


@contextmanager
def _bar(total: int, unit: str) -> Iterator[Callable[..., None]]:
    from rich import progress as parts

    columns = (
        parts.TextColumn("{task.description}", markup=False),
        parts.BarColumn(),
        parts.TaskProgressColumn(),
        parts.TimeElapsedColumn(),
        parts.TextColumn("{task.fields[rest]}", markup=False),
    )
    pace = Pace(total)
    with parts.Progress(*columns, console=_stderr(), transient=True) as bar:
        task = bar.add_task("", total=total, rest="")

        def advance(done: int, description: str | None = None, left: float | None = None) -> None:
            pace.add(done, left)
            description = None if description is None else visible(description)
            bar.update(task, advance=done, description=description, rest=f"{pace.left()}{pace.speed(unit)}")

        yield advance


def _flowing(table: Table) -> "rich.console.Group":
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    title = [Text(f"{table.title}\n")] if table.title else []
    return Group(
        *title, *(Padding(Text(line.strip()), (0, 0, 0, 2 * line.startswith(" "))) for line in paragraphs(table))
    )


def _fitted(console: "rich.console.Console", table: Table, block: Block) -> "rich.table.Table":
    """A block in which no number is broken: names give way first, and the terminal's own width after that."""
    needed = block_width(table, block)
    if needed <= console.width:
        return _rendered(table, block)
    name = max(len(table.columns[0].text), *(len(_cell(row[0]).text) for row in table.rows))
    room = max(_SHORTEST_NAME, name - (needed - console.width))
    console.width = max(console.width, needed - name + room)
    return _rendered(table, block, {0: room})


def _rendered(
    table: Table, block: Block, widths: Sequence[int] | Mapping[int, int] | None = None
) -> "rich.table.Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    title = Text(block.title or table.title) if block.title or table.title else None
    found = RichTable(
        title=title, title_justify="left", title_style="", box=SIMPLE_HEAD, pad_edge=False,
        padding=(0, 1, 0, 0) if block.close else (0, 1),
    )  # fmt: skip
    of_place = dict(enumerate(widths)) if isinstance(widths, Sequence) else widths or {}
    for place in block.places:
        column: Column = table.columns[place]
        name = [each for each in ("" if block.title else column.group, column.text) if each]
        justify = "right" if column.number else "left"
        # Names and numbers that stand in several blocks are never broken, unless there is no room for them at all.
        whole = column.number or (0 < table.kept > place and place not in of_place)
        head = Text("\n".join(name), justify="right" if column.number else None)
        found.add_column(head, justify=justify, no_wrap=whole, overflow="fold", max_width=of_place.get(place))
    for row in block.rows:
        cells = [_cell(table.rows[row][place]) for place in block.places]
        found.add_row(*(Text(each.text, style="bold" if each.best else "") for each in cells))
    return found


def _cell(cell: Cell | str) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell)


def _as_shown(console: "rich.console.Console", table: Table) -> Table:
    """A table in characters that the terminal has, none of which it obeys."""
    columns = [
        each._replace(text=_shown(console, each.text), group=_shown(console, each.group)) for each in table.columns
    ]
    rows = [[_cell(cell)._replace(text=_shown(console, _cell(cell).text)) for cell in row] for row in table.rows]
    return table._replace(title=_shown(console, table.title), columns=columns, rows=rows)


def _shown(console: "rich.console.Console", text: str) -> str:
    """Printable, and what a terminal that lacks it cannot show in characters that it has."""
    text = visible(text)
    return text if console.encoding.lower().startswith("utf") else text.replace("±", "+-")


def _say(label: str, style: str, message: str) -> None:
    from rich.text import Text

    if sys.stderr is None:
        return
    with suppress(OutputError, BrokenPipeError):
        _printed(_stderr(), Text.assemble((label, style), " ", visible(message)), soft_wrap=True, highlight=False)


def _plain(console: "rich.console.Console", line: str) -> None:
    _printed(console, _shown(console, line), markup=False, emoji=False, highlight=False, soft_wrap=True)


def _printed(console: "rich.console.Console", what: object, **how: Any) -> None:
    with _told(console.file.fileno):
        console.print(what, **how)


@contextmanager
def _told(fileno: Callable[[], int]) -> Iterator[None]:
    """One sentence for a stream that takes no more."""
    try:
        yield
    except OSError as error:
        # What is left in the stream would fail once more when Python ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, fileno())
        os.close(nowhere)
        if isinstance(error, BrokenPipeError):
            # Whoever reads has enough; cli/ ends without a word.
            raise
        raise OutputError(f"cannot write to the terminal or to where it is sent: {error.strerror}") from error


def _stdout() -> "rich.console.Console":
    return _console(sys.stdout, stderr=False)


def _stderr() -> "rich.console.Console":
    return _console(sys.stderr, stderr=True)


def _console(stream: object, stderr: bool) -> "rich.console.Console":
    from rich.console import Console

    class Told(Console):
        """Lets a broken pipe be told; rich would close stdout, whichever stream it was, and exit."""

        def on_broken_pipe(self) -> None:
            raise

    _forgiving(stream)
    return Told(stderr=stderr)


def _forgiving(stream: object) -> None:
    """Lets a terminal that knows few characters show escapes for the others."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
