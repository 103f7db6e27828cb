"""Can a run that is planned be compared with a baseline at all? Told before a weight is read.

The planned rows, without values, are joined with those of the baseline as finished rows are (`joining.py`), so what
differs is found by the same rules. Beside that, text that shares no document, and strings of which none is the same,
can only end as not comparable.

Choices:
    * A run is refused only if none of its rows can be compared. Where some can, their verdicts are worth having, and
      rows that are missing or not comparable are told with them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from lpe_eval import table
from lpe_eval.errors import SpecError
from lpe_eval.report.folders.ppl import Run
from lpe_eval.report.frames import typed_frame
from lpe_eval.report.gate.item_rows import item_settings, part_of
from lpe_eval.report.gate.joining import Judged, Match, join, judged_rows
from lpe_eval.report.gate.shared_text import other_text
from lpe_eval.report.numbers.statistics import summarise
from lpe_eval.table import CHE_METRICS, CellKey, Facts, Measurement

_SHOWN = 4
"""Models or lengths that a sentence names."""


class PlannedRow(NamedTuple):
    """A row that will be measured.

    Attributes:
        judged: without value and sums.
        units: digests of the documents, or of the strings, that it will score, as the sums of a finished row have them.
    """

    judged: Judged
    units: Callable[[], Iterable[str]]


def text_rows(
    keys: Iterable[CellKey],
    facts: Facts,
    spec: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Any]],
    digests: Mapping[str, Iterable[str]],
    corpus: Mapping[str, Any],
) -> list[PlannedRow]:
    """The planned rows of a perplexity run.

    Args:
        keys: its cells.
        facts: what all rows repeat.
        spec: as stored.
        models: by name, what its provenance will say.
        digests: by model, of the documents.
        corpus: what its provenance will say of the text.
    """
    cells = [Measurement(key, facts, "", (), (), None, "failed", "") for key in keys]
    rows = typed_frame(table.ROWS, [row.values() for cell in cells for row in summarise(cell, "", 0)])
    nothing = typed_frame(table.BY_DOCUMENT, [])
    run = Run(rows, nothing, nothing, nothing, dict(spec), {"models": models, "corpus": corpus})
    return [
        PlannedRow(judged, lambda name=str(judged.row["model"]): digests.get(name, ()))
        for judged in judged_rows(run, "the run")
    ]


def problem_row(
    model: str, task: str, version: int, length: int, dtype: str, units: Callable[[], Iterable[str]]
) -> PlannedRow:
    """A planned row of algorithmic problems."""
    settings = {"task": f"{task}, version {version}", "protocol": "che", "tokenizer": "", "dtype": dtype, "seed": ""}
    row = {"model": model, "task": task, "task_version": version, "length": length, "metric": "accuracy"}
    return PlannedRow(Judged({**row, "protocol": "", "stride": None}, (), settings, None, None, "the run"), units)


def item_row(
    model: str,
    length: int,
    metric: str,
    common: Facts,
    models: Mapping[str, Any],
    further: Mapping[table.Column, Any] = MappingProxyType({}),
) -> PlannedRow:
    """A planned row of a kind of run that declares no tables of its own; its items are not known beforehand.

    Args:
        model, length, metric: which.
        common: what all rows repeat.
        models: what the provenance will say of the model.
        further: what else tells its cell apart, by column.
    """
    row = {"model": model, "task": common.task, "task_version": common.task_version, "length": length,
           "metric": metric, "dtype": common.dtype, "seed": common.seed}  # fmt: skip
    row |= {column.name: value for column, value in further.items()}
    part = part_of(row, tuple(further))
    shown = {**row, "protocol": part, "stride": None}
    judged = Judged(shown, (), item_settings(row, models), None, None, "the run", part=part)
    return PlannedRow(judged, lambda: ())


def refuse_incomparable(baselines: Mapping[str, Sequence[Judged]], planned: Sequence[PlannedRow]) -> None:
    """Nothing, if at least one planned row may be compared with a baseline.

    Args:
        baselines: their rows, by the name that each was asked for with.
        planned: rows of the run.

    Raises:
        SpecError: none can, whatever is measured; the sentence says why.
    """
    old = [judged for found in baselines.values() for judged in found]
    new = [row.judged for row in planned]
    if not old or not new:
        return
    matches = join(new, old)[: len(new)]
    reasons: dict[str, None] = {}
    for row, match in zip(planned, matches, strict=True):
        if match.references:
            reason = _why_not(match, row)
            if reason is None:
                return
            reasons.setdefault(reason)
    why = "; ".join(reasons) or _disjoint(new, old)
    raise SpecError(f"nothing was measured, since no row could be compared with {', '.join(baselines)}: {why}")


def _why_not(match: Match, row: PlannedRow) -> str | None:
    reference = match.references[0]
    if match.differing:
        return "; ".join(
            f"{aspect} is {row.judged.settings[aspect]}, in the baseline {reference.settings[aspect]}"
            for aspect in match.differing
        )
    before = {block.digest for each in match.references for block in each.blocks}
    units = set(row.units()) if before else set()
    if not units or units & before:
        return None
    if row.judged.row["metric"] in CHE_METRICS:
        return "none of the strings is one of the baseline's; give its --samples and --seed, as in its spec.yaml"
    remedy = "give its text, with --data or --task and --split"
    other = other_text(row.judged.corpus, reference.corpus)
    return f"none of the documents is one of the baseline's; {other or remedy}"


def _disjoint(new: Sequence[Judged], old: Sequence[Judged]) -> str:
    """Why no row has a counterpart: the first of these in which the two sides share nothing, else all of them."""
    sides = {
        "what is measured": [[str(judged.row["metric"]) for judged in side] for side in (new, old)],
        "models": [[judged.recipe for judged in side] for side in (new, old)],
        "problems": [[judged.place[3] for judged in side] for side in (new, old)],
        "lengths": [[str(judged.row["length"]) for judged in side] for side in (new, old)],
    }
    for what, (here, there) in sides.items():
        if not set(here) & set(there):
            return f"{what}: {_some(here)}; in the baseline {_some(there)}"
    return "no model has a row at the same length on both sides"


def _some(names: Iterable[str]) -> str:
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
    return ", ".join(distinct[:_SHOWN]) + more
