"""What can be named on the command line, as tables for `lpe-eval list`.

Importing torch takes seconds, so what our own members say of themselves is read in their files; only members of other
packages, and an encoding that is asked for by its name, are imported.
"""

import ast
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from lpe_eval import bias_tables, table, text_tables
from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.plain import Unreadable, json_of, read_plain, yaml_of
from lpe_eval.registry import ATTENTIONS, CHECKPOINTS, CORPORA, ENCODINGS, KINDS, PROBLEMS, TOKENIZERS, Room
from lpe_eval.report.folders.recall import EFFECTIVE, EFFECTIVE_LENGTH, RECALL
from lpe_eval.screen import Table, listing
from lpe_eval.spec.che_spec import read_protocol
from lpe_eval.spec.che_task import read_problem_task
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.fields import fields_of, sentence_of, specs_inside
from lpe_eval.spec.kinds_of_spec import FILES, spec_of
from lpe_eval.spec.protocol_spec import ProtocolSpec
from lpe_eval.spec.released import (
    BASELINES,
    baseline_names,
    names_of_other_text,
    released_encoders,
    released_folder,
    released_names,
    shipped_baselines,
)
from lpe_eval.spec.task_files import problem_task_names, protocol_names, task_names
from lpe_eval.spec.tasks import read_task
from lpe_eval.table import Column

Rows = Sequence[Sequence[str]]


class _Listing(NamedTuple):
    """One thing that is listed: what it is, the heads of its columns, and its rows."""

    about: str
    columns: Sequence[str]
    rows: Callable[[], Rows]


_FORMS = {"published": "as published", "ours": "our choice", "": "our choice"}
"""What `bidirectional` of an encoding means; "" is for one that leaves it as the contract has it."""

_CLASS_VALUES = ("title", "paper", "bidirectional", "causal_only")

_CUTTING = {
    "nonoverlap": "windows side by side: every target once, contexts 1 to the length",
    "sliding": "windows that overlap; only targets that are new are scored (--stride)",
    "last": "the last targets of each full window (--last-k)",
    "anchored": "the same targets at every length, each window ending at its block (--last-k)",
}


def catalogue(what: str) -> Table:
    """The table of everything of one kind.

    Raises:
        UnknownName: there is no such kind.
    """
    found = _listing(what)
    return listing(what, found.columns, found.rows())


def overview() -> Table:
    """What can be listed at all."""
    rows = [(name, each.about, str(len(each.rows()))) for name, each in _LISTINGS.items()]
    return listing("lpe-eval list ...", ("name", "what it lists", "how many"), rows)


def details(what: str, name: str) -> list[Table]:
    """What is known of one that is listed.

    Raises:
        UnknownName: there is no such kind, or none of that name.
    """
    found = _listing(what)
    if what == "fields":
        return _fields(name)
    own = [row for row in found.rows() if _spelled(row[0]) == _spelled(name)]
    if not own:
        noun = "corpus" if what == "corpora" else what.removesuffix("s")
        raise UnknownName(noun, name, [row[0] for row in found.rows()])
    facts = [pair for row in own for pair in zip(found.columns, row, strict=True)]
    if what == "encodings":
        return _encoding(own[0][0], facts)
    if what == "tasks":
        facts = [(key, _plain(value)) for key, value in read_task(name).model_dump(mode="json").items() if value]
    return [listing("", ("what", "of it"), facts)]


def _listing(what: str) -> _Listing:
    if what not in _LISTINGS:
        raise UnknownName("listing", what, _LISTINGS)
    return _LISTINGS[what]


def _encodings() -> Rows:
    """What each one does, as the first line of its file says it, and where it comes from."""
    rows: list[Sequence[str]] = []
    for name in ENCODINGS.names():
        said = _said(ENCODINGS, name)
        form = "none" if said.get("causal_only") == "True" else _FORMS[said.get("bidirectional", "")]
        rows.append((name, said["docstring"].partition("\n")[0].rstrip("."), said.get("paper", ""), form))
    return rows


def _encoding(name: str, facts: Sequence[tuple[str, str]]) -> list[Table]:
    member: Any = ENCODINGS.load(name)
    told = (sys.modules[member.__module__].__doc__ or "").strip()
    options = [(each.name, each.type, each.default or "required") for each in fields_of(member.Options)]
    found = listing("", ("what", "of it"), facts)
    tables = [found._replace(below=told.split("\n")[2:])]
    if options:
        shown = next((each for each in options if each[2] not in ("none", "required")), options[0])
        example = f"write them in brackets: {name}[{shown[0]}={shown[2]}]"
        tables.append(listing("options", ("name", "type", "default"), options)._replace(below=[example]))
    return tables


def _problems() -> Rows:
    """Those with a task file, and what is only registered, whose version is 0."""
    tasks = [read_problem_task(name) for name in problem_task_names()]
    rows = [(each.name, table.LEVELS.get(each.level, each.level), f"{each.chance:.3g}", each.title) for each in tasks]
    others = sorted(set(PROBLEMS.names()) - {each.problem for each in tasks} - {each.name for each in tasks})
    return [*rows, *((name, "-", "-", _said(PROBLEMS, name)["docstring"].partition("\n")[0]) for name in others)]


def _tasks() -> Rows:
    tasks = [read_task(name) for name in task_names()]
    return [(task.name, str(task.version), task.title) for task in tasks]


def _protocols() -> Rows:
    cutting = [(name, "ppl", _CUTTING[name]) for name in get_args(ProtocolSpec.model_fields["name"].annotation)]
    return [*cutting, *((name, "che", read_protocol(name).title) for name in protocol_names())]


def _checkpoints() -> Rows:
    rows = []
    for name in (*released_names(), *names_of_other_text()):
        place = released_folder(name)
        held = _mapping(place / "config.yaml") if place is not None else {}
        model = held.get("model", {})
        rows.append(
            (name, _short(model.get("encoding")), str(model.get("train_length")), str(held.get("tokenizer", "bytes")))
        )
    return rows


def _encoders() -> Rows:
    rows = []
    for name, place in released_encoders().items():
        held = _mapping(place / "config.yaml")
        tasks, trained = held.get("tasks", {}), held.get("protocol", {})
        rows.append((name, _short(held.get("encoding")), str(trained.get("name")), str(len(tasks))))
    return rows


def _baselines() -> Rows:
    rows = []
    for name in baseline_names():
        places = [place / name for place in (BASELINES, *shipped_baselines()) if (place / name / "run.json").is_file()]
        spec, own = _mapping(places[0] / "spec.yaml"), places[0].parent == BASELINES
        models = spec.get("models") or spec.get("encodings") or []
        rows.append((name, _kind(places[0]), f"{len(models)} models", "here" if own else "ships with lpe-eval"))
    return rows


def _kinds_with_fields() -> Rows:
    """A row for each kind of run that a spec can say, and for each file that is no run."""
    specs = [(name, spec_of(name)) for name in [*KINDS.names(), *FILES]]
    return [(name, sentence_of(spec).partition("\n")[0], str(len(spec.model_fields))) for name, spec in specs]


def _fields(name: str) -> list[Table]:
    """The fields of one spec, and of the specs that stand in them."""
    spec, tables = spec_of(name), []
    for each in [spec, *specs_inside(spec)]:
        rows = [(field.name, field.type, field.default or "required", field.meaning) for field in fields_of(each)]
        found = listing(name if each is spec else each.__name__, ("name", "type", "default", "meaning"), rows)
        tables.append(found._replace(below=sentence_of(each).split("\n")))
    return tables


def _kind(place: Path) -> str:
    try:
        return str(json_of(read_plain(place / "run.json")).get("kind", "ppl"))
    except (AttributeError, Unreadable):
        return "-"


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml_of(read_plain(path))
    except Unreadable:
        return {}
    return found if isinstance(found, dict) else {}


def _short(encoding: Any) -> str:
    """An encoding as it is typed."""
    try:
        return str(EncodingSpec.model_validate(encoding))
    except (SpecError, ValueError):
        return "-"


def _plain(value: Any) -> str:
    match value:
        case list():
            return ", ".join(map(_plain, value))
        case dict():
            return ", ".join(f"{name} {_plain(each)}" for name, each in value.items() if each not in (None, {}, False))
        case _:
            return str(value)


def _spelled(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _members(room: Room) -> Callable[[], Rows]:
    return lambda: [(name, _said(room, name)["docstring"].partition("\n")[0]) for name in room.names()]


def _columns() -> Rows:
    """Every column of the tables that runs leave behind, once, with the tables that have it."""
    tables: dict[str, tuple[Column, ...]] = {
        "rows.csv": table.ROWS, "cost.csv": table.COST, "by_document.parquet": table.BY_DOCUMENT,
        "by_position.parquet": table.BY_POSITION, "speed.csv": table.SPEED, "che.csv": table.CHE,
        "by_string.parquet": table.BY_STRING, **text_tables.DERIVED, "by_token/*.parquet": text_tables.TOKENS,
        "recall.csv": RECALL, f"{EFFECTIVE_LENGTH} of recall": EFFECTIVE, "training.csv": text_tables.TRAINING,
        "bias.csv": bias_tables.BIAS, "by_distance.parquet": bias_tables.BY_DISTANCE, "steps.csv": text_tables.BY_STEP,
    }  # fmt: skip
    found: dict[str, list[str]] = {}
    first: dict[str, Column] = {}
    for name, columns in tables.items():
        for column in columns:
            found.setdefault(column.name, []).append(f"{name}*" if column.key else name)
            first.setdefault(column.name, column)
    return [(name, first[name].unit, first[name].meaning, ", ".join(places)) for name, places in found.items()]


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


_NAME = ("name", "what it is")
_LISTINGS: dict[str, _Listing] = {
    "encodings": _Listing(
        "positional encodings; with a name, its options", ("name", "what it does", "paper", "bidirectional"), _encodings
    ),
    "checkpoints": _Listing(
        "trained language models that ship: ppl -m NAME", ("name", "encoding", "train length", "tokenizer"),
        _checkpoints,
    ),
    "encoders": _Listing(
        "trained encoders that ship: che -m NAME", ("name", "encoding", "protocol", "problems"), _encoders
    ),
    "tasks": _Listing("text and how it is cut: ppl --task NAME", ("name", "version", "text"), _tasks),
    "problems": _Listing(
        "algorithmic problems: che --tasks NAME", ("name", "level", "chance", "what it asks"), _problems
    ),
    "protocols": _Listing("how text is cut, and how encoders are trained", ("name", "of", "what it does"), _protocols),
    "corpora": _Listing("kinds of text: ppl --data", _NAME, _members(CORPORA)),
    "tokenizers": _Listing("kinds of tokenizers: ppl --tokenizer", _NAME, _members(TOKENIZERS)),
    "formats": _Listing("checkpoint formats: ppl -m FORMAT:PLACE", _NAME, _members(CHECKPOINTS)),
    "attentions": _Listing("ways to compute attention: ppl --attention NAME", _NAME, _members(ATTENTIONS)),
    "baselines": _Listing(
        "what runs are compared with: compare --baseline NAME", ("name", "kind", "holds", "where"), _baselines
    ),
    "kinds": _Listing("kinds of runs", _NAME, _members(KINDS)),
    "fields": _Listing("what a spec may say: list fields ppl", ("name", "what it is", "fields"), _kinds_with_fields),
    "columns": _Listing(
        "columns of the tables that runs leave", ("name", "unit", "meaning", "tables (* where it tells rows apart)"),
        _columns,
    ),
}  # fmt: skip
