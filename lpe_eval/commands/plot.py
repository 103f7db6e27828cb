"""What `lpe-eval plot` draws: the figures of one run again, or of several runs of one kind together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpe_eval.errors import OutputError, SpecError, UnknownName
from lpe_eval.report.kind import Found, open_folder


class Drawn(NamedTuple):
    """The files of the figures, and sentences about what they show."""

    files: list[Path]
    notes: list[str]


def plot(folders: Sequence[Path], out: Path, models: Sequence[str] = ()) -> Drawn:
    """Draws into `out`.

    Args:
        folders: of runs of one kind.
        out: where the figures go.
        models: draw these alone, by the names of the table; none means all.

    Raises:
        SpecError: a folder holds no run, the runs cannot be drawn together, or have no such model.
        OutputError: a run is damaged, or a figure cannot be written.
    """
    found = [open_folder(folder) for folder in folders]
    other = next((each for each in found if each.kind is not found[0].kind), None)
    if other is not None:
        raise SpecError(f"{folders[0]} and {other.path} hold runs of different kinds; draw each kind by itself")
    try:
        files = found[0].kind.draw(_chosen(found, models), out)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Tables of the right columns may hold any numbers: a length of zero, one that no axis has room for.
        names = ", ".join(map(str, folders))
        raise OutputError(
            f"{names}: a table holds numbers that this program did not write; run it once more"
        ) from error
    return Drawn(files, _about_texts(found))


def _chosen(found: Sequence[Found], models: Sequence[str]) -> list[Found]:
    """The runs with the rows of some models alone.

    Raises:
        UnknownName: no run has a model of that name.
    """
    known = {_model(row) for each in found for row in each.rows}
    for name in models:
        if name not in known:
            raise UnknownName("model in these runs", name, known)
    if not models:
        return list(found)
    return [each._replace(rows=[row for row in each.rows if _model(row) in models]) for each in found]


def _model(row: Mapping[str, Any]) -> str:
    return str(row.get("model", row.get("encoding")))


def _about_texts(found: Sequence[Found]) -> list[str]:
    """A sentence where runs did not measure the same text; their values have no common axis then."""
    texts = {text for each in found if (text := _text(each)) is not None}
    if len(texts) < 2:
        return []
    shared = frozenset.intersection(*texts)
    what = "nothing" if not shared else f"{len(shared)} of {len(frozenset.union(*texts))} documents"
    return [f"these runs measured different texts, which have {what} in common; their values do not compare"]


def _text(found: Found) -> frozenset[str] | None:
    """Digests of the documents that a run measured; None where it does not say."""
    models = found.provenance.get("models")
    known = models.values() if isinstance(models, Mapping) else ()
    listed = [each["documents"] for each in known if isinstance(each, Mapping) and each.get("documents")]
    try:
        return frozenset(str(document[1]) for documents in listed for document in documents) if listed else None
    except (LookupError, TypeError):
        return None
