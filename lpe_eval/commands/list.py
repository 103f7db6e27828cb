"""What can be named on the command line, as tables for `lpe-eval list`."""

import sys
from collections.abc import Callable, Sequence

from lpe_eval import table
from lpe_eval.errors import UnknownName
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.registry import ATTENTIONS, CHECKPOINTS, CORPORA, ENCODINGS, KINDS, Room
from lpe_eval.screen import Table, listing
from lpe_eval.spec.released import released_names
from lpe_eval.spec.tasks import read_task, task_names
from lpe_eval.table import Column

Listing = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Column names, and rows."""


_FORMS = {"published": "as published", "ours": "our choice"}


def catalogue(what: str) -> Table:
    """The table of everything of one kind.

    Raises:
        UnknownName: there is no such kind.
    """
    if what not in _KINDS:
        raise UnknownName("listing", what, _KINDS)
    return listing(what, *_KINDS[what]())


def _encodings() -> Listing:
    members = [(name, ENCODINGS.load(name)) for name in ENCODINGS.names()]
    rows = [(name, member.title, member.paper, _FORMS[member.bidirectional]) for name, member in members]
    return ("name", "method", "paper", "bidirectional"), [*rows]


def _tasks() -> Listing:
    tasks = [read_task(name) for name in task_names()]
    return ("name", "version", "text"), [(task.name, str(task.version), task.title) for task in tasks]


def _checkpoints() -> Listing:
    rows: list[Sequence[str]] = []
    for name in released_names():
        located = locate(name)
        facts = located.peek(LoadOptions())
        rows.append((name, facts.tokenizer, facts.digest[:12], str(located.path)))
    return ("name", "tokenizer", "digest", "folder"), rows


def _members(room: Room) -> Listing:
    return ("name", "what it is"), [(name, _first_line(room.load(name))) for name in room.names()]


def _columns() -> Listing:
    """Every column of the tables that runs leave behind, once, with the tables that have it."""
    tables: dict[str, tuple[Column, ...]] = {
        "rows.csv": table.ROWS, "cost.csv": table.COST, "by_document.parquet": table.BY_DOCUMENT,
        "by_position.parquet": table.BY_POSITION, "speed.csv": table.SPEED, "che.csv": table.CHE,
        "by_string.parquet": table.BY_STRING,
    }  # fmt: skip
    found: dict[str, list[str]] = {}
    first: dict[str, Column] = {}
    for name, columns in tables.items():
        for column in columns:
            found.setdefault(column.name, []).append(f"{name}*" if column.key else name)
            first.setdefault(column.name, column)
    rows = [(name, first[name].unit, first[name].meaning, ", ".join(places)) for name, places in found.items()]
    return ("name", "unit", "meaning", "tables (* where it tells rows apart)"), rows


def _first_line(member: type) -> str:
    return (sys.modules[member.__module__].__doc__ or "").strip().partition("\n")[0]


_KINDS: dict[str, Callable[[], Listing]] = {
    "encodings": _encodings,
    "tasks": _tasks,
    "checkpoints": _checkpoints,
    "corpora": lambda: _members(CORPORA),
    "formats": lambda: _members(CHECKPOINTS),
    "attentions": lambda: _members(ATTENTIONS),
    "kinds": lambda: _members(KINDS),
    "columns": _columns,
}
