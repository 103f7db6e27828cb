"""How a spec of any kind becomes a run on the screen: run, shown, compared, and ended with the right exit code."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from lpe_eval.errors import SomeCellsFailed, SpecError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from lpe_eval.commands.compare import Comparison
    from lpe_eval.engine import Engine
    from lpe_eval.measure.progress import Tell
    from lpe_eval.report.gate.joining import Judged
    from lpe_eval.report.tracker import Tracker
    from lpe_eval.run import Outcome
    from lpe_eval.screen import Table


_ALONE = ("speed", "train", "study")
"""Kinds of run whose work cannot be shared out among processes."""

NO_TRACKER: "Mapping[str, type[Tracker]]" = MappingProxyType({})


def run_spec(
    spec: "BaseModel",
    out: Path | None,
    overwrite: bool,
    quiet: bool,
    baselines: Sequence[str] = (),
    device: str = "auto",
    jobs: int | None = None,
    log_to: Sequence[str] = (),
    shard: str | None = None,
    engine: "Engine | None" = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Runs a spec, or a share of its work, shows its tables, hands them to trackers, and compares with `baselines`.

    A shard shows no tables. Of ranks that torchrun started, the first merges once the others have ended, and shows
    them. Of ranks that share models, the first runs all of it, and the others follow.

    Raises:
        MissingExtra: a tracker is not installed.
        SomeCellsFailed: some cells have no value, by accident.
        SpecError: something that was asked for cannot be.
        LpeEvalError: whatever the run itself ends in.
    """
    import os
    from functools import partial

    from lpe_eval import console

    environ = os.environ if environ is None else environ
    if getattr(spec, "tensor_parallel", False) and environ:
        from lpe_eval.cli.sharing import shared

        if engine is not None:
            raise SpecError("--engine shares work out; --tensor-parallel is for ranks of torchrun, so leave one out")
        with shared(spec, shard, environ) as leads:
            if leads:
                run_spec(spec, out, overwrite, quiet, baselines, device, jobs, log_to, environ={})
        return
    from lpe_eval.addresses import address_of, as_path
    from lpe_eval.storage import staged

    out = None if out is None else as_path(out)
    if (address := address_of(out)) is not None:
        with staged(out) as folder:
            run_spec(spec, folder, overwrite, quiet, baselines, device, jobs, log_to, shard, engine, environ)
            if not quiet:
                console.note(f"stored at {address}" + ("" if shard is None else ", which is what to give to merge"))
        return
    from lpe_eval.commands import compare
    from lpe_eval.measure.denormals import denormals_as_zero
    from lpe_eval.model.foreign.library_log import repeats_left_out
    from lpe_eval.registry import COMMANDS
    from lpe_eval.report.gate.comparable import refuse_incomparable
    from lpe_eval.report.tracker import trackers
    from lpe_eval.run import Settings
    from lpe_eval.shard import asked_shard

    kind = str(spec.kind)  # pyright: ignore[reportAttributeAccessIssue]
    part = asked_shard(shard, environ)
    if part is not None and kind in _ALONE:
        raise SpecError(f"the work of {kind} is not shared out among processes; start it by itself")
    if part is not None and baselines and not part.is_rank:
        raise SpecError("--baseline: a shard has no tables to compare; compare after lpe-eval merge")
    if part is not None and log_to and not part.is_rank:
        raise SpecError("--log-to: a shard has no tables to hand to a tracker; leave it out")
    quiet = quiet or (part is not None and part.is_rank and not part.leads)
    if engine is not None and (part is not None or out is None or overwrite or kind in _ALONE):
        raise SpecError("--engine needs an --out of its own, and goes with neither --shard nor --overwrite")
    # Read before anything is measured, since a slip in a name is better told now than in an hour.
    opened = compare.open_baselines(baselines)
    chosen = trackers(log_to)
    tell = (lambda sentence: None) if quiet else console.note
    refuse = partial(refuse_incomparable, opened)
    settings = Settings(out, overwrite, partial(console.progress, quiet=quiet), tell, device, jobs, refuse, shard=part)
    if engine is not None and out is not None:
        from lpe_eval.engine import run_on

        show_outcome(run_on(engine, spec, out, settings.progress, tell), opened, tell, chosen)
        return
    with denormals_as_zero(), repeats_left_out():
        outcome = COMMANDS.function(kind, "run_spec")(spec, settings)
    if part is not None and part.is_rank:
        if not part.leads:
            # What it lacks is told by the first; torchrun would end all others for an exit code of this one.
            return
        from lpe_eval.commands.merge import merge

        outcome = merge([outcome.folder], None, tell)
    show_outcome(outcome, opened, tell, chosen)


def asked_engine(name: str | None, workers: int | None, gpus: float, cpus: float) -> "Engine | None":
    """The engine that flags ask for; None where they ask for none.

    Raises:
        SpecError: there is no such engine, or flags of one were given without it.
    """
    if name is None:
        if workers is not None or gpus != 0.0 or cpus != 1.0:
            raise SpecError("--workers, --gpus-per-worker and --cpus-per-worker belong to --engine ray")
        return None
    from lpe_eval.engine import parse_engine

    return parse_engine(name, workers, gpus, cpus)


def show_outcome(
    outcome: "Outcome",
    opened: "dict[str, list[Judged]]",
    tell: "Tell",
    chosen: "Mapping[str, type[Tracker]]" = NO_TRACKER,
) -> None:
    """Shows the tables of a run, hands it to the trackers `chosen`, compares it with baselines, and ends as it went.

    Raises:
        SomeCellsFailed: some cells have no value, by accident.
        SpecError: something that was asked for cannot be.
        LpeEvalError: the comparison ends so.
    """
    from lpe_eval import console
    from lpe_eval.commands import compare
    from lpe_eval.report.kind import open_folder
    from lpe_eval.report.tracker import log_run

    found = open_folder(outcome.folder) if outcome.merged else None
    for table in found.kind.values(found) if found is not None and found.kind.columns else []:
        console.show(table)
    for sentence in outcome.notes:
        tell(sentence)
    for sentence in log_run(found, chosen) if found is not None else ():
        console.note(sentence)
    if found is not None and found.kind.worse_is and not opened:
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
    if getattr(spec, "tensor_parallel", False):
        raise SpecError("--dry-run opens models in one process; leave --tensor-parallel out of it")
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
