"""What `lpe-eval report` makes: one page of runs of any kinds, which opens without a network or a server.

Runs of one kind share figures, as in `plot`; each has its own tables, verdicts, cost, provenance and citations.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lpe_eval.commands import compare as comparing
from lpe_eval.commands.show import models_table, understood
from lpe_eval.errors import OutputError, SpecError
from lpe_eval.fetched import as_addressed
from lpe_eval.report.folders.atomic import write_atomically
from lpe_eval.report.frames import UNFIT
from lpe_eval.report.gate.joining import Judged
from lpe_eval.report.gate.verdicts import exit_code
from lpe_eval.report.kind import Found, open_folder
from lpe_eval.report.page.document import page
from lpe_eval.report.page.parts import Chart, HeatMap, Judgement, KindPart, RunPart
from lpe_eval.report.page.vega import bundle, library
from lpe_eval.report.sources import citations
from lpe_eval.report.tables.provenance import machine, models, seeds, state, text
from lpe_eval.screen import Table, listing

_ENDINGS = (".html", ".htm")


class Reported(NamedTuple):
    """The file, and sentences about what stands in it."""

    file: Path
    notes: list[str]


def report(folders: Sequence[Path], out: Path, baselines: Sequence[str] = ()) -> Reported:
    """Writes a page.

    Args:
        folders: of runs of any kinds.
        out: the file; one that is there is replaced.
        baselines: names or paths; each run is compared with those of its kind.

    Raises:
        MissingExtra: the library that draws charts is not installed.
        SpecError: a folder holds no run or nothing that is finished, or no run can be compared with a baseline.
        UnknownName: there is no such baseline.
        OutputError: a run is damaged, or the page cannot be written.
    """
    if out.suffix.lower() not in _ENDINGS:
        raise SpecError(f"a report is a page, so --out ends in .html, not {out.name!r}")
    # Told before anything is read; the bundle itself takes seconds.
    maker = library()
    found = [open_folder(folder) for folder in dict.fromkeys(folders)]
    for each in found:
        if each.kind.columns and not each.rows:
            raise SpecError(f"{each.path} holds no values; run it to its end, or name another folder")
    opened = comparing.open_baselines(baselines)
    kinds: dict[str, list[Found]] = {}
    for each in found:
        kinds.setdefault(each.kind.name, []).append(each)
    notes: list[str] = []
    parts = [kind_part(own, opened, notes) for own in kinds.values()]
    judged = [run for kind in parts for run in kind.runs if run.judgement is not None]
    if opened and not judged:
        raise SpecError(f"the baseline {', '.join(opened)} has no row to compare these runs with")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page(parts, bundle(maker) if any(_drawn(kind) for kind in parts) else ""))
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}; choose another --out") from error
    return Reported(out, notes)


def kind_part(own: Sequence[Found], baselines: Mapping[str, list[Judged]], notes: list[str]) -> KindPart:
    """What the page tells of the runs of one kind.

    Args:
        own: at least one run.
        baselines: the rows of each, by name.
        notes: gets a sentence for each run that was compared.

    Raises:
        OutputError: a run is damaged.
    """
    kind = own[0].kind
    try:
        figures = kind.charts(own)
    except UNFIT as error:
        # Tables of the right columns may hold any numbers: a length of zero, one that no axis has room for.
        names = ", ".join(str(each.path) for each in own)
        raise OutputError(
            f"{names}: a table holds numbers that this program did not write; run it once more"
        ) from error
    same = Counter(each.path.name for each in own)
    places = [as_addressed(str(each.path)) for each in own]
    labels = [
        each.path.name if same[each.path.name] == 1 and each.path.name else place
        for each, place in zip(own, places, strict=True)
    ]
    if len(own) > 1:
        ids = {str(each.provenance.get("run")): label for each, label in zip(own, labels, strict=True)}
        figures = [_with_labels(figure, ids) for figure in figures]
    return KindPart(
        kind.title, figures, [_run(each, label, baselines, notes) for each, label in zip(own, labels, strict=True)]
    )


def _run(found: Found, label: str, baselines: Mapping[str, list[Judged]], notes: list[str]) -> RunPart:
    known, spec = found.provenance, found.spec
    with understood(found.path):
        measured = [
            ("folder", as_addressed(str(found.path))),
            ("run", text(known.get("run"))),
            *found.kind.about(found),
        ]
        opened = models(known, found.rows)
        cited = citations(found.kind.sources(found), known)
        stored = found.kind.stored(found)
        judgement = _judgement(found, baselines)
        if judgement is not None:
            notes.append(judgement.outcome)
        return RunPart(
            label=label,
            measured=_facts([*measured, *seeds(known, spec)]),
            values=[*found.kind.values(found), *found.kind.details(found)],
            stored=stored if stored.rows else None,
            judgement=judgement,
            cost=_facts(state(known, found.rows)),
            costs=found.kind.costs(found),
            provenance=[_facts(machine(known, spec, found.rows)), *([models_table(opened)] if opened else [])],
            citations="\n\n".join(entry.text for entry in cited.entries),
            uncited=cited.missing,
        )


def _judgement(found: Found, baselines: Mapping[str, list[Judged]]) -> Judgement | None:
    """The run beside the baselines that have something to compare it with; None where none has."""
    if not baselines or not found.kind.worse_is:
        return None
    metrics = {str(judged.row["metric"]) for judged in found.kind.judged_rows(found, str(found.path))}
    own = {name: rows for name, rows in baselines.items() if metrics & {str(each.row["metric"]) for each in rows}}
    if not own:
        return None
    comparison = comparing.compare(found.path, own, comparing.Rules())
    passes = exit_code(comparison.verdicts, comparison.rules) == 0
    table = comparing.table_of(comparison)
    return Judgement(passes, comparing.conclusion(comparison), table, comparing.notes(comparison))


def _with_labels(figure: Chart | HeatMap, ids: Mapping[str, str]) -> Chart | HeatMap:
    """The figure with runs called by their folders where lines are told apart by the ids of runs."""

    def named(text: str) -> str:
        for identity, label in ids.items():
            text = text.replace(f" · {identity}", f" · {label}")
        return text

    if isinstance(figure, HeatMap):
        return figure._replace(title=named(figure.title), heads=[named(head) for head in figure.heads])
    return figure._replace(lines=[line._replace(name=named(line.name)) for line in figure.lines])


def _drawn(kind: KindPart) -> bool:
    """Whether its figures need the library."""
    return any(isinstance(figure, Chart) for figure in kind.figures)


def _facts(lines: Sequence[tuple[str, str]]) -> Table:
    return listing("", ("what", ""), [(name, value) for name, value in lines if value])
