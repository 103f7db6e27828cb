"""What `lpe-eval show` tells of a run of any kind, finished or not: what was measured, with what, and its values.

It reads whatever a run left, of this version or an earlier one: what is not there is not told. Numbers come from the
tables, everything else from `provenance.json` and `spec.yaml`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lpe_eval.errors import LpeEvalError, OutputError, SpecError
from lpe_eval.fetched import as_addressed
from lpe_eval.plain import read_plain
from lpe_eval.report.folders.folder import SPEC
from lpe_eval.report.kind import Found, open_folder
from lpe_eval.report.markup import turned, with_error_digits
from lpe_eval.report.numbers.trainings import recipe_of, spread
from lpe_eval.report.sources import Citations, citations
from lpe_eval.report.stored_rows import Stored, as_csv, as_json, chosen, stored_table
from lpe_eval.report.tables.places import Place, places_table
from lpe_eval.report.tables.provenance import MODEL_COLUMNS, machine, models, seeds, state, text
from lpe_eval.screen import Table, listing, with_error


class Shown(NamedTuple):
    """What is told of a run: tables, its values after what was measured, and sentences."""

    tables: list[Table]
    notes: list[str]


def show(path: Path) -> Shown:
    """Everything about a run.

    Raises:
        SpecError: the folder holds no run.
        OutputError: it holds one that is damaged.
    """
    found = open_folder(path)
    unfinished = bool(found.kind.columns) and not found.rows
    with understood(path):
        measured, *rest = _about(found)
        values = [] if unfinished else [*found.kind.values(found), *found.kind.details(found)]
        tables = [measured, *values, *rest]
    return Shown(tables, ["nothing has been finished in this folder yet"] if unfinished else [])


def values(
    path: Path,
    over_seeds: bool = False,
    columns: Sequence[str] = (),
    error_digits: int | None = None,
    transpose: bool = False,
) -> list[Table]:
    """The values of a run alone.

    Args:
        path: of the run.
        over_seeds: trainings of one recipe as one line, with their mean and deviation.
        columns: a line a stored row with these columns, in the place of the usual tables.
        error_digits: write errors in brackets, in the last digits, with 1 or 2 digits.
        transpose: lines become columns.

    Raises:
        SpecError: the folder holds no run, or one without values or without models, or what is asked cannot be.
        UnknownName: it has no such column.
        OutputError: it holds one that is damaged.
    """
    if error_digits not in (None, 1, 2):
        raise SpecError(f"--error-digits is 1 or 2, not {error_digits}; 1 writes 1.234(5), 2 writes 1.2340(53)")
    if columns and (over_seeds or transpose):
        raise SpecError("--columns lists stored rows, --over-seeds and --transpose change the usual tables; choose one")
    found = open_folder(path)
    with understood(path):
        if over_seeds:
            tables = _over_seeds(_with_values(found))
        elif columns:
            tables = [stored_table(chosen(_stored(found), columns), found.kind.direction)]
        else:
            tables = (_with_values(found) if found.kind.columns else found).kind.values(found)
    tables = [turned(table) for table in tables] if transpose else tables
    return [with_error_digits(table, error_digits) for table in tables] if error_digits else tables


def stored_text(path: Path, form: str, columns: Sequence[str] = ()) -> str:
    """The stored rows of a run, every number with all its digits.

    Args:
        path: of the run.
        form: csv or json.
        columns: these alone, in this order; all by default.

    Raises:
        SpecError: the folder holds no run, or one without values.
        UnknownName: it has no such column.
        OutputError: it holds one that is damaged.
    """
    stored = chosen(_stored(open_folder(path)), columns)
    return as_csv(stored) if form == "csv" else as_json(stored)


def cite(path: Path) -> Citations:
    """BibTeX of what a run used, and of this program.

    Raises:
        SpecError: the folder holds no run.
        OutputError: it holds one that is damaged.
    """
    found = open_folder(path)
    with understood(path):
        return citations(found.kind.sources(found), found.provenance)


def spec_of(path: Path) -> str:
    """`spec.yaml` of a run, as it is.

    Raises:
        SpecError: the folder holds no run.
        OutputError: it holds one that is damaged.
    """
    return read_plain(open_folder(path).path / SPEC)


def _with_values(found: Found) -> Found:
    if not found.kind.columns or not found.rows:
        raise SpecError(f"{found.path} holds no values; run it to its end, or name another folder")
    return found


def _stored(found: Found) -> Stored:
    stored = found.kind.stored(found)
    if not stored.rows:
        raise SpecError(f"{found.path} holds no values; run it to its end, or name another folder")
    return stored


def _over_seeds(found: Found) -> list[Table]:
    if "model" not in found.rows[0]:
        raise SpecError(f"{found.path} holds {found.kind.title}, of which there are no trainings")
    return [_metric_over_seeds(found, str(metric)) for metric in dict.fromkeys(row["metric"] for row in found.rows)]


def _metric_over_seeds(found: Found, metric: str) -> Table:
    values: dict[tuple[str, Place], list[float]] = {}
    for row in found.rows:
        if row["metric"] == metric and row["status"] == "ok":
            group = str(row.get("protocol") if "corpus" in row else row.get("task") or "")
            values.setdefault((recipe_of(str(row["model"])), Place(group, int(row["length"]))), []).append(row["value"])
    many = {line: max(len(held) for (of, _), held in values.items() if of == line) for line, _ in values}
    cells = {
        (f"{line} ({many[line]} trainings)" if many[line] > 1 else line, place): with_error(each.mean, each.deviation)
        for (line, place), each in ((key, spread(held)) for key, held in values.items())
    }
    below = ["± is the standard deviation of the trainings of a recipe (divisor n - 1); a line without it is of one"]
    if any(len(held) < many[line] for (line, _), held in values.items()):
        below.append("not every training has a value everywhere")
    return places_table(metric, cells, below, name="recipe")


def _about(found: Found) -> list[Table]:
    known, spec = found.provenance, found.spec
    lines = [("kind", found.kind.title), ("run", text(known.get("run"))), *found.kind.about(found)]
    lines += [*seeds(known, spec), *state(known, found.rows)]
    tables = [
        listing(as_addressed(str(found.path)), ("measured", ""), [(name, value) for name, value in lines if value]),
        listing("with", ("what", ""), machine(known, spec, found.rows)),
    ]
    opened = models(known, found.rows)
    return [*tables, models_table(opened)] if opened else tables


def models_table(opened: Sequence[Sequence[str]]) -> Table:
    """A line a model, without the columns that no model fills."""
    filled = [place for place in range(len(MODEL_COLUMNS)) if any(line[place] != "-" for line in opened)]
    whole = listing(
        "models", [MODEL_COLUMNS[place] for place in filled], [[line[at] for at in filled] for line in opened]
    )
    return whole._replace(kept=1)


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Turns what a spec or a provenance says in a shape that this program does not write into one sentence."""
    try:
        yield
    except LpeEvalError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise OutputError(f"{path} has a spec.yaml or provenance.json that this program did not write") from error
