"""What can be named on the command line, as tables for `lpe-eval list`.

Importing torch takes seconds, so what our own members say of themselves is read in their files; only members of other
packages, and checkpoints, are imported.
"""

import ast
import sys
from collections.abc import Callable, Sequence

from lpe_eval import bias_tables, table, text_tables
from lpe_eval.errors import UnknownName
from lpe_eval.registry import ATTENTIONS, CHECKPOINTS, CORPORA, ENCODINGS, KINDS, Room
from lpe_eval.report.folders.recall import EFFECTIVE, EFFECTIVE_LENGTH, RECALL
from lpe_eval.screen import Table, listing
from lpe_eval.spec.released import names_of_other_text, released_names
from lpe_eval.spec.tasks import read_task, task_names
from lpe_eval.table import Column

Listing = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Column names, and rows."""


_FORMS = {"published": "as published", "ours": "our choice", "": "our choice"}
"""What `bidirectional` of an encoding means; "" is for one that leaves it as the contract has it."""

_CLASS_VALUES = ("title", "paper", "bidirectional", "causal_only")


def catalogue(what: str) -> Table:
    """The table of everything of one kind.

    Raises:
        UnknownName: there is no such kind.
    """
    if what not in _KINDS:
        raise UnknownName("listing", what, _KINDS)
    return listing(what, *_KINDS[what]())


def _encodings() -> Listing:
    """What each one does, as the first line of its file says it, and where it comes from."""
    rows: list[Sequence[str]] = []
    for name in ENCODINGS.names():
        said = _said(ENCODINGS, name)
        form = "none" if said.get("causal_only") == "True" else _FORMS[said.get("bidirectional", "")]
        rows.append((name, said["docstring"].partition("\n")[0].rstrip("."), said.get("paper", ""), form))
    return ("name", "what it does", "paper", "bidirectional"), rows


def _tasks() -> Listing:
    tasks = [read_task(name) for name in task_names()]
    return ("name", "version", "text"), [(task.name, str(task.version), task.title) for task in tasks]


def _checkpoints() -> Listing:
    from lpe_eval.model.checkpoint import LoadOptions, locate

    rows: list[Sequence[str]] = []
    for name in (*released_names(), *names_of_other_text()):
        located = locate(name)
        facts = located.peek(LoadOptions())
        rows.append((name, facts.tokenizer, facts.digest[:12], str(located.path)))
    return ("name", "tokenizer", "digest", "folder"), rows


def _members(room: Room) -> Listing:
    return ("name", "what it is"), [(name, _said(room, name)["docstring"].partition("\n")[0]) for name in room.names()]


def _columns() -> Listing:
    """Every column of the tables that runs leave behind, once, with the tables that have it."""
    tables: dict[str, tuple[Column, ...]] = {
        "rows.csv": table.ROWS, "cost.csv": table.COST, "by_document.parquet": table.BY_DOCUMENT,
        "by_position.parquet": table.BY_POSITION, "speed.csv": table.SPEED, "che.csv": table.CHE,
        "by_string.parquet": table.BY_STRING, **text_tables.DERIVED, "by_token/*.parquet": text_tables.TOKENS,
        "recall.csv": RECALL, f"{EFFECTIVE_LENGTH} of recall": EFFECTIVE, "bias.csv": bias_tables.BIAS,
        "by_distance.parquet": bias_tables.BY_DISTANCE,
    }  # fmt: skip
    found: dict[str, list[str]] = {}
    first: dict[str, Column] = {}
    for name, columns in tables.items():
        for column in columns:
            found.setdefault(column.name, []).append(f"{name}*" if column.key else name)
            first.setdefault(column.name, column)
    rows = [(name, first[name].unit, first[name].meaning, ", ".join(places)) for name, places in found.items()]
    return ("name", "unit", "meaning", "tables (* where it tells rows apart)"), rows


def _said(room: Room, name: str) -> dict[str, str]:
    """The docstring of a member's module, and the plain values that its class gives to its attributes."""
    file = room.source(name)
    if file is None:
        member = room.load(name)
        values = {field: str(getattr(member, field, "")) for field in _CLASS_VALUES}
        return {**values, "docstring": (sys.modules[member.__module__].__doc__ or "").strip()}
    tree = ast.parse(file.read_bytes())
    found = {"docstring": ast.get_docstring(tree) or ""}
    for each in [part for node in tree.body if isinstance(node, ast.ClassDef) for part in node.body]:
        match each:
            case ast.AnnAssign(target=ast.Name(id=field), value=ast.Constant(value=str() | bool() as value)):
                found[field] = str(value)
            case ast.Assign(targets=[ast.Name(id=field)], value=ast.Constant(value=str() | bool() as value)):
                found[field] = str(value)
    return found


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
