"""How a spec of any kind becomes a run on the screen: run, shown, compared, and ended with the right exit code."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lpe_eval.errors import SomeCellsFailed, SpecError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from lpe_eval.commands.compare import Comparison
    from lpe_eval.screen import Table


def run_spec(
    spec: "BaseModel",
    out: Path | None,
    overwrite: bool,
    quiet: bool,
    baselines: Sequence[str] = (),
    device: str = "auto",
    jobs: int | None = None,
    log_to: Sequence[str] = (),
) -> None:
    """Runs a spec, shows its tables, hands the run to trackers, and compares it with `baselines`.

    Raises:
        MissingExtra: a tracker is not installed.
        SomeCellsFailed: some cells have no value, by accident.
        SpecError: something that was asked for cannot be.
        LpeEvalError: whatever the run itself ends in.
    """
    from functools import partial

    from lpe_eval import console
    from lpe_eval.commands import compare
    from lpe_eval.measure.denormals import denormals_as_zero
    from lpe_eval.model.foreign.library_log import repeats_left_out
    from lpe_eval.registry import COMMANDS
    from lpe_eval.report.gate.comparable import refuse_incomparable
    from lpe_eval.report.kind import open_folder
    from lpe_eval.report.tracker import log_run, trackers
    from lpe_eval.run import Settings

    # Read before anything is measured, since a slip in a name is better told now than in an hour.
    opened = compare.open_baselines(baselines)
    chosen = trackers(log_to)
    tell = (lambda sentence: None) if quiet else console.note
    refuse = partial(refuse_incomparable, opened)
    settings = Settings(out, overwrite, partial(console.progress, quiet=quiet), tell, device, jobs, refuse)
    with denormals_as_zero(), repeats_left_out():
        outcome = COMMANDS.function(str(spec.kind), "run_spec")(spec, settings)  # pyright: ignore[reportAttributeAccessIssue]
    found = open_folder(outcome.folder)
    for table in found.kind.values(found) if found.kind.columns else []:
        console.show(table)
    for sentence in outcome.notes:
        tell(sentence)
    for sentence in log_run(found, chosen):
        console.note(sentence)
    if found.kind.worse_is and not opened:
        place = shlex.quote(str(outcome.folder))
        tell(f"next: lpe-eval show {place}, or keep it as a baseline: lpe-eval compare {place} --bless NAME")
    if opened:
        end_with(compare.compare(outcome.folder, opened, compare.Rules()))
    if outcome.failed:
        raise SomeCellsFailed(outcome.failed)
    if outcome.misfit:
        raise SpecError(outcome.misfit)


def foresee(spec: "BaseModel", quiet: bool, device: str = "auto", jobs: int | None = None) -> None:
    """Shows what `run_spec` would do and about how long it would take, and writes nothing.

    A kind of run whose command has no function `estimate` shows its spec.

    Raises:
        LpeEvalError: what is asked cannot be.
    """
    import inspect

    from lpe_eval import console
    from lpe_eval.measure.denormals import denormals_as_zero
    from lpe_eval.model.foreign.library_log import repeats_left_out
    from lpe_eval.registry import COMMANDS
    from lpe_eval.screen import listing

    kind = str(spec.kind)  # pyright: ignore[reportAttributeAccessIssue]
    tell = (lambda sentence: None) if quiet else console.note
    if not COMMANDS.has(kind, "estimate"):
        console.show(listing("planned", ("field", "value"), list(spec.model_dump(mode="json").items())))
        console.note(f"how long it would take is not known: {kind} makes no estimate")
        return
    estimate = COMMANDS.function(kind, "estimate")
    wanted = inspect.signature(estimate).parameters
    where = {name: value for name, value in {"device": device, "jobs": jobs}.items() if name in wanted}
    with denormals_as_zero(), repeats_left_out():
        found = estimate(spec, tell, **where)
    console.show(found.table)
    console.note(found.total)


def show_as(table: "Table", form: str | None, also: Sequence[str] = ()) -> None:
    """Shows a table on the screen (`table`, and by default), or prints it in a form for a page or a paper.

    Raises:
        UnknownName: there is no such form.
    """
    from lpe_eval import console
    from lpe_eval.report.markup import table_as

    if form in (None, "table"):
        console.show(table)
    else:
        console.lines(table_as(table, form, also))


def end_with(comparison: "Comparison") -> None:
    """Shows a comparison, and ends in an error where the run may not pass."""
    from lpe_eval import console
    from lpe_eval.commands import compare as comparing

    console.show(comparing.table_of(comparison))
    for sentence in comparing.notes(comparison):
        console.note(sentence)
    comparing.refuse_regression(comparison)
