"""What can be written into a spec: each field with its type, its default and its meaning, from the specs themselves.

A meaning stands where the field is declared: in a `description`, in the docstring below it, or under `Attributes:` in
the docstring of its class.
"""

import ast
import functools
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_BOUNDS = (
    ("ge", "at least {}"), ("gt", "above {}"), ("le", "at most {}"), ("lt", "below {}"), ("min_length", "{} or more"),
)  # fmt: skip
_NAMES = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "Any": "anything"}
_PLURALS = {"text": "texts", "whole number": "whole numbers", "number": "numbers"}
_NO_LIMIT = 1e12
"""Bounds beyond it only keep out what no machine counts to."""
_ENTRY = re.compile(r"^([A-Za-z_]\w*(?:, [A-Za-z_]\w*)*): (.*)")


class FieldOfSpec(NamedTuple):
    """One field, as people are told of it."""

    name: str
    type: str
    default: str
    """Empty where it has to be given."""
    meaning: str


def fields_of(spec: type[BaseModel]) -> list[FieldOfSpec]:
    """The fields of a spec in their order, by the names that stand in YAML."""
    meanings = {**_attributes(spec), **_below_fields(spec)}
    return [
        FieldOfSpec(
            field.alias or name,
            _type(field),
            "" if field.is_required() else _value(field.get_default(call_default_factory=True)),
            field.description or meanings.get(name, ""),
        )
        for name, field in spec.model_fields.items()
    ]


def specs_inside(spec: type[BaseModel]) -> list[type[BaseModel]]:
    """The specs that stand in the fields of one, and in theirs, each once, in the order in which they come."""
    found: list[type[BaseModel]] = []
    waiting = [spec]
    while waiting:
        inner = [model for field in waiting.pop(0).model_fields.values() for model in _models(field.annotation)]
        for model in inner:
            if model is not spec and model not in found:
                found.append(model)
                waiting.append(model)
    return found


def sentence_of(spec: type[BaseModel]) -> str:
    """What a spec says of itself, without its fields."""
    told = inspect.cleandoc(spec.__doc__ or "").partition("\nAttributes:")[0]
    return "\n\n".join(" ".join(part.split()) for part in told.split("\n\n")).strip()


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _type(field: FieldInfo) -> str:
    bounds = [
        text.format(f"{getattr(each, name):g}" if name != "min_length" else getattr(each, name))
        for name, text in _BOUNDS
        for each in field.metadata
        if getattr(each, name, None) is not None and abs(getattr(each, name)) < _NO_LIMIT
    ]
    return ", ".join([_written(field.annotation), *bounds])


def _written(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (Union, types.UnionType):
        # Nothing may be given for it: what that means is told by its default.
        return " | ".join(dict.fromkeys(_written(part) for part in parts if part is not type(None)))
    if origin in (tuple, list):
        several = len(parts) > 1 and parts[-1] is not Ellipsis
        inner = [_written(part) for part in parts if part is not Ellipsis]
        return f"[{', '.join(inner)}]" if several else f"list of {_PLURALS.get(inner[0], inner[0])}"
    if origin is dict:
        return f"names, each with {_written(parts[1])}"
    name = getattr(annotation, "__name__", str(annotation))
    return _NAMES.get(name, name)


def _value(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case tuple() | list():
            return f"[{', '.join(map(_value, value))}]"
        case _:
            return str(value) if value != "" else "empty"


@functools.cache
def _attributes(spec: type[BaseModel]) -> dict[str, str]:
    """The entries below `Attributes:` of a class's docstring; one may be of several fields."""
    told = inspect.cleandoc(spec.__doc__ or "").partition("\nAttributes:\n")[2]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in textwrap.dedent(told).split("\n"):
        if entry := _ENTRY.match(line):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif line.startswith(" "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            names = []
    return found


@functools.cache
def _below_fields(spec: type[BaseModel]) -> dict[str, str]:
    """The docstrings below the fields of a class."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(spec))).body[0]
    except (OSError, TypeError):
        return {}
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                found[name] = " ".join(inspect.cleandoc(text).split())
    return found
