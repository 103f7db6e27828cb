"""The fields of every spec, as tables for `lpe-eval list fields`."""

from collections.abc import Sequence

from lpe_eval.registry import KINDS
from lpe_eval.screen import Table, listing
from lpe_eval.spec.fields import fields_of, sentence_of, specs_inside
from lpe_eval.spec.kinds_of_spec import FILES, spec_of

_COLUMNS = ("name", "type", "default", "meaning")


def kinds_with_fields() -> Sequence[Sequence[str]]:
    """A row for each kind of run that a spec can say, and for each file that is no run."""
    found = []
    for name in [*KINDS.names(), *FILES]:
        spec = spec_of(name)
        found.append((name, sentence_of(spec).partition("\n")[0], str(len(spec.model_fields))))
    return found


def field_tables(name: str) -> list[Table]:
    """The fields of one spec, and of the specs that stand in them.

    Raises:
        UnknownName: there is no such spec.
    """
    spec = spec_of(name)
    tables = []
    for each in [spec, *specs_inside(spec)]:
        rows = [(field.name, field.type, field.default or "required", field.meaning) for field in fields_of(each)]
        title = name if each is spec else each.__name__
        tables.append(listing(title, _COLUMNS, rows)._replace(below=sentence_of(each).split("\n")))
    return tables
