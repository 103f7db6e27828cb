"""A run beside its baseline: found, read, judged, told."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lpe_eval.errors import InconclusiveComparison, OutputError, RegressionFound, SpecError, UnknownName
from lpe_eval.fetched import as_addressed, here
from lpe_eval.report.folders.atomic import write_atomically
from lpe_eval.report.folders.marker import MARKER, read_marker
from lpe_eval.report.frames import UNFIT
from lpe_eval.report.gate.baseline import find_baseline, write_baseline
from lpe_eval.report.gate.joining import Judged
from lpe_eval.report.gate.judge import failing, judge
from lpe_eval.report.gate.markdown import as_markdown
from lpe_eval.report.gate.rules import ALLOWABLE, EFFECTIVE_LENGTH, GAIN, RECALLED_LENGTH, Rules, Verdict
from lpe_eval.report.gate.shared_text import other_text
from lpe_eval.report.gate.verdicts import (
    as_json,
    as_junit,
    counts,
    exit_code,
    percent,
    place,
    protocol,
    reason,
    remedy,
    sentence,
)
from lpe_eval.report.importer import as_one_model, foreign_folder, importer_of, judged_rows_at
from lpe_eval.report.kind import Found, open_folder
from lpe_eval.report.numbers.student import MOST_SIGMAS
from lpe_eval.screen import Column, Table, counted
from lpe_eval.table import CHE_METRICS

COLUMNS = ("model", "at", "baseline -> run", "change, %", "allowed", "over", "verdict")
"""Values are nats a token, lengths in tokens, or shares of right answers; `change` is relative, with its standard
error; `over` says from how many of what that was made."""

OF_RECALL = (GAIN, RECALLED_LENGTH)

_NUMBERS = ("baseline -> run", "change, %", "allowed")

_WORTH_SEEING = 0.005
"""A change of a loss that a gate should not sleep through."""


class Comparison(NamedTuple):
    """What a comparison found."""

    run: str
    baselines: tuple[str, ...]
    rules: Rules
    verdicts: list[Verdict]
    text: str = ""
    """What tells its text from that of a baseline, where a version does."""


def parse_rules(tolerance: float, sigmas: float, allow: Sequence[str], detectable: float | None = None) -> Rules:
    """Rules as people write them; each of `allow` may be several names with commas.

    Raises:
        SpecError: a number cannot be.
        UnknownName: `allow` names what cannot be allowed.
    """
    if not 0 <= tolerance < 1:
        raise SpecError(f"--tolerance is a part of the loss, at least 0 and below 1, not {tolerance}; 0.0025 is 0.25 %")
    if not 0 <= sigmas <= MOST_SIGMAS:
        raise SpecError(f"--sigmas must be between 0 and {MOST_SIGMAS:g}, not {sigmas}")
    if detectable is not None and not 0 < detectable <= 10:
        raise SpecError(f"--detectable is a part of the loss, above 0 and at most 10, not {detectable}; 0.01 is 1 %")
    names = [part.strip().lower() for each in allow for part in each.split(",") if part.strip()]
    for name in names:
        if name not in ALLOWABLE:
            raise UnknownName("--allow", name, ALLOWABLE)
    return Rules(tolerance, sigmas, frozenset(names), detectable)


def open_baselines(names: Sequence[str]) -> dict[str, list[Judged]]:
    """The rows of baselines, by the name or path that each was asked for with; one that is named twice counts once.

    A path may be that of what another program wrote (`report/importer.py`), and an address of object storage.

    Raises:
        UnknownName: there is neither a run nor a baseline of that name.
        SpecError: there is nothing at an address.
        OutputError: it cannot be read.
    """
    typed = {name: str(here(Path(name))) if "://" in name else name for name in reversed(names)}
    places = {(foreign_folder(path) or find_baseline(path)).resolve(): name for name, path in typed.items()}
    return {name: judged_rows_at(place, name) for place, name in reversed(places.items())}


def compare(folder: Path, baselines: dict[str, list[Judged]], rules: Rules) -> Comparison:
    """Judges every row of the run in `folder`.

    Raises:
        OutputError: the run cannot be read.
        SpecError: nothing was measured on both sides: no rows, or perplexity on one and problems on the other.
    """
    called = as_addressed(str(folder))
    foreign = importer_of(folder) is not None
    if not foreign and read_marker(folder) is None:
        raise OutputError(f"{folder} holds no run: it has no {MARKER}; give the folder that a run was written to")
    new = judged_rows_at(folder, called)
    sides = [as_one_model(new, found) if foreign else found for found in baselines.values()]
    old = [judged for found in sides for judged in found]
    verdicts = judge(new, old, rules)
    of_run, of_baselines = ({str(judged.row["metric"]) for judged in side} for side in (new, old))
    if not of_run & of_baselines:
        raise SpecError(f"the baseline {', '.join(baselines)} has no row to compare with")
    texts = (other_text(new[0].corpus, each.corpus) for each in old if new)
    return Comparison(called, tuple(baselines), rules, verdicts, next(filter(None, texts), ""))


def title(comparison: Comparison) -> str:
    """What the table of verdicts is of."""
    if any(each.metric in CHE_METRICS for each in comparison.verdicts):
        return "change of the accuracy on the strings that both answered"
    if any(each.metric in OF_RECALL for each in comparison.verdicts):
        return "change of what is recalled (nats gained), in parts of the baseline's at its shortest length"
    return "change of the loss on the text that both scored"


def table_of(comparison: Comparison) -> Table:
    """The table of verdicts."""
    columns = [Column(name, number=name in _NUMBERS) for name in COLUMNS]
    return Table(title(comparison), columns, shown(comparison.verdicts))


def shown(verdicts: Sequence[Verdict]) -> list[Sequence[str]]:
    """The lines of the table of verdicts, under `COLUMNS`."""
    return [
        (
            each.model,
            place(each),
            _values(each),
            _change(each),
            percent(each.allowed, ""),
            _over(each),
            each.verdict,
        )
        for each in verdicts
    ]


def notes(comparison: Comparison) -> list[str]:
    """What the table does not say: how many of each verdict, what was left out, why, and what could not be seen."""
    verdicts = comparison.verdicts
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts(verdicts).items() if count)
    found = [f"{len(verdicts)} rows: {summary}"]
    seen = sorted(each.detectable for each in verdicts if math.isfinite(each.detectable))
    if seen:
        among = " to ".join(dict.fromkeys(percent(each, "") for each in (seen[0], seen[-1])))
        found.append(f"a change of {among}, by row, would be caught 95 times in 100")
    shared = min((each.common for each in verdicts if not math.isnan(each.common)), default=1.0)
    if shared < 1:
        found.append(f"the run shares at least {math.floor(1000 * shared) / 10:g} % of the baseline's scored tokens")
    changed, vanished = (max(getattr(each, name) for each in verdicts) for name in ("changed", "vanished"))
    if changed or vanished:
        why = f": {comparison.text}" if comparison.text else ""
        found.append(
            f"{counted(changed, 'document')} changed and {vanished} vanished since the baseline; they are left out{why}"
        )
    reasons: dict[str, list[Verdict]] = {}
    for each in verdicts:
        if reason(each) and each.verdict not in ("missing", "new"):
            reasons.setdefault(f"{each.verdict}: {reason(each)}", []).append(each)
    found += [f"{_places(those)}: {why}" for why, those in reasons.items()]
    if remedy(verdicts):
        found.append(f"{remedy(verdicts)} decide what is inconclusive, or a wider --detectable")
    of_loss = [each for each in verdicts if each.metric not in (*CHE_METRICS, *OF_RECALL)]
    blind = [each for each in of_loss if each.verdict == "same" and each.detectable > _WORTH_SEEING]
    if blind:
        found.append(
            f"{_places(blind)}: a change of {percent(_WORTH_SEEING, '')} may go unseen there; measure more text with "
            "--max-tokens, or more trainings"
        )
    return found


def write_reports(comparison: Comparison, json: Path | None, junit: Path | None, markdown: Path | None = None) -> None:
    """Writes the reports that were asked for.

    Raises:
        OutputError: one cannot be written.
    """
    of_all = comparison.verdicts, comparison.rules, comparison.run, comparison.baselines
    reports = (
        (json, lambda: as_json(*of_all)),
        (junit, lambda: as_junit(*of_all)),
        (markdown, lambda: _page(comparison)),
    )
    for path, report in reports:
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, report())
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror}; choose another path") from error


def bless(folder: Path, name: str, overwrite: bool) -> Path:
    """Makes the run in `folder` the baseline `name`.

    Raises:
        OutputError: the run cannot be read, or the baseline not written.
        SpecError: the run is not fit to be a baseline, or the name is taken.
    """
    found = open_folder(folder)
    _refuse_unfit(found)
    found.kind.judged_rows(found, str(folder))
    return write_baseline(found.path, found.kind.baseline(found), name, overwrite)


def refuse_regression(comparison: Comparison) -> None:
    """Nothing, if the run may pass.

    Raises:
        RegressionFound: a row is worse or missing; the sentence names each.
        SpecError: a row is not comparable.
        InconclusiveComparison: a row can see too little; the sentence says what decides.
    """
    code, outcome = exit_code(comparison.verdicts, comparison.rules), conclusion(comparison)
    if code == RegressionFound.exit_code:
        raise RegressionFound(outcome)
    if code == SpecError.exit_code:
        raise SpecError(f"{outcome}; what may differ all the same is said with --allow")
    if code == InconclusiveComparison.exit_code:
        raise InconclusiveComparison(f"{outcome}; {remedy(comparison.verdicts)} decide")


def conclusion(comparison: Comparison) -> str:
    """How a comparison ended, in one sentence that names every row that keeps the run from passing."""
    verdicts = comparison.verdicts
    kinds = ["worse", "missing"] if failing(verdicts, comparison.rules) else []
    outcome = [
        f"{kind}: {where}" for kind in (*kinds, "not comparable", "inconclusive") if (where := sentence(verdicts, kind))
    ]
    return f"{comparison.run} against {', '.join(comparison.baselines)}: {'; '.join(outcome) or 'passes'}"


def _page(comparison: Comparison) -> bytes:
    code = exit_code(comparison.verdicts, comparison.rules)
    outcome = f"{conclusion(comparison)} (exit code {code})"
    rows = [[str(cell) for cell in row] for row in shown(comparison.verdicts)]
    return as_markdown(title(comparison), outcome, COLUMNS, rows, notes(comparison))


def _refuse_unfit(found: Found) -> None:
    folder, rows = found.path, found.rows
    if not rows:
        raise SpecError(f"{folder} has no rows to compare with; run it to its end first")
    try:
        key, cells = found.kind.cells(found)
    except UNFIT as error:
        raise OutputError(f"{folder / 'spec.yaml'} does not say what the run measures; measure anew") from error
    there = len({tuple(row[name] for name in key) for row in rows})
    if there < cells:
        raise SpecError(f"{folder} has {there} of {cells} cells; run it to its end before it becomes a baseline")
    failed = next((row for row in rows if row["status"] == "failed"), None)
    if failed is not None:
        where = f"{failed['model']} failed at {failed['length']} ({failed['note']})"
        raise SpecError(f"{folder} cannot be a baseline: {where}; run it again")


def _values(verdict: Verdict) -> str:
    digits = 0 if verdict.metric in (EFFECTIVE_LENGTH, RECALLED_LENGTH) else 4
    before, now = ("-" if math.isnan(each) else f"{each:.{digits}f}" for each in (verdict.baseline, verdict.value))
    return "-" if before == now == "-" else f"{before} -> {now}"


def _change(verdict: Verdict) -> str:
    change = "-" if math.isnan(verdict.change) else f"{100 * verdict.change:+.2f}"
    return change if math.isnan(verdict.stderr) else f"{change} ± {100 * verdict.stderr:.2f}"


def _over(verdict: Verdict) -> str:
    nouns = {"blocks": "blocks", "documents": "docs"} | {
        each: each for each in ("strings", "prompts", "pieces", "trainings")
    }
    noun = next((short for noun, short in nouns.items() if noun in verdict.method), None)
    return "-" if noun is None else f"{verdict.units} {noun}"


def _places(verdicts: Sequence[Verdict]) -> str:
    found: dict[tuple[str, str], list[str]] = {}
    for each in verdicts:
        found.setdefault((each.model, protocol(each)), []).append(str(each.length))
    return "; ".join(f"{model}, {name} at {', '.join(lengths)}" for (model, name), lengths in found.items())
