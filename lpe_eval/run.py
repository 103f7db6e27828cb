"""What all kinds of run share: how one is asked for, what it leaves behind, and the loop over cells of items.

`commands/<kind>.py` has a function `run_spec(spec, settings)` that gives an `Outcome`. A kind whose cells are a model
at a length and whose values are made of items hands its cells to `run_cells`, and inherits a folder that survives
kills, resuming, provenance, tables, figures, comparison and baselines.
"""

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel

import lpe_eval
from lpe_eval.errors import LengthError, SpecError, one_sentence
from lpe_eval.measure.determinism import is_not_deterministic
from lpe_eval.measure.device import pick_device
from lpe_eval.measure.progress import Advance, Progress, Tell
from lpe_eval.measure.provenance import Account, publishable_name, run_facts
from lpe_eval.measure.sharing import own_parts
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.part_records import Piece
from lpe_eval.ranks import Others, together
from lpe_eval.records import Cell, ItemCell, ItemKey, key_of
from lpe_eval.registry import KINDS
from lpe_eval.report.folders.gathering import joined_provenance
from lpe_eval.report.folders.items import ItemFolder, flat_key
from lpe_eval.report.folders.shared import SharedPlan, Sharing
from lpe_eval.report.gate.comparable import PlannedRow, item_row
from lpe_eval.report.kind import open_folder
from lpe_eval.screen import Table
from lpe_eval.shard import Shard
from lpe_eval.spec.fingerprint import run_id, spec_text
from lpe_eval.table import SCHEMA, Facts


class Settings(NamedTuple):
    """How a spec is run.

    Attributes:
        out: folder of the results, used exactly; None is one below `results/runs`, named by the run's id.
        overwrite: discard another run that the folder holds.
        progress: opens a progress bar.
        tell: takes a sentence that the user should read.
        device: of a training or a study, whose specs do not name one: where it is trained decides no number.
        jobs: of a study: trainings at once.
        refuse: takes the rows that will be measured before anything is; raises where a comparison that was asked for
            can never be made.
        draw: whether figures are drawn.
        shard: which part of the work this process does; None where it does all.
    """

    out: Path | None
    overwrite: bool
    progress: Progress
    tell: Tell
    device: str = "auto"
    jobs: int | None = None
    refuse: Callable[[Sequence[PlannedRow]], None] = lambda planned: None
    draw: bool = True
    shard: Shard | None = None

    def local(self) -> int | None:
        """Number of a rank on its machine; None for a process that is no rank."""
        return None if self.shard is None else self.shard.local

    def sharing(self, plan: SharedPlan) -> Sharing | None:
        """How this process takes part in a run; None where it does all of it.

        Raises:
            SpecError: shards would discard what others did.
        """
        if self.shard is None:
            return None
        if self.overwrite:
            raise SpecError("--overwrite: a shard would discard what others did; remove the folder before you start")
        return Sharing(plan, f"{self.shard.number}-of-{self.shard.total}")

    def folder(self, name: str) -> Path:
        """Where the results go."""
        return self.out or Path("results/runs") / name


class Outcome(NamedTuple):
    """What a run leaves behind.

    Attributes:
        folder: where it is.
        notes: where to look, and what to do next.
        failed: a sentence where some cells have no value by accident; "" where none.
        misfit: a sentence where something that was asked for cannot be; "" where nothing.
        merged: whether the tables are there; of a shard they are not.
    """

    folder: Path
    notes: Sequence[str] = ()
    failed: str = ""
    misfit: str = ""
    merged: bool = True


class Merged(NamedTuple):
    """What merging shards gives: an outcome, and what is missing of the plan, in words."""

    outcome: Outcome
    missing: Sequence[str]


def share_done(settings: Settings, directory: Path, lost: int) -> Outcome:
    """What a shard leaves behind: no tables yet.

    Args:
        settings: of the shard.
        directory: of the run.
        lost: how many of its cells have no value.
    """
    sentence = f"shard {settings.shard} is done; once all are: lpe-eval merge {shlex.quote(str(directory))}"
    failed = f"{lost} of the cells or parts of shard {settings.shard} have no value; merging tells why" if lost else ""
    return Outcome(directory, [sentence], failed, merged=False)


class Estimate(NamedTuple):
    """What a run would do, told before it: a table of the work, and in one sentence how long it would take."""

    table: Table
    total: str


class Planned(NamedTuple):
    """A model of a run of items, before it is opened.

    Attributes:
        name: as tables show it.
        facts: of it, for the provenance: digest, tokenizer and the like.
        work: how much there is to do at each length, in the unit of the progress bar. Of a kind that tells cells apart
            by more than the length, a cell is a tuple of the length and what is further.
    """

    name: str
    facts: Mapping[str, Any]
    work: Mapping[Any, int]


Measure = Callable[[str, Sequence[Any], Advance], Iterator[ItemCell]]
"""measure(model, lengths, advance): opens a model and yields each of its cells when it is finished.

`lengths` are the keys of its `Planned.work` that are left."""

_COLLECTED_EVERY = 1.0
"""Seconds between two writings of the tables, where cells are finished sooner; a cell is on disk at once."""


def run_cells(
    spec: BaseModel,
    settings: Settings,
    models: Sequence[Planned],
    common: Facts,
    measure: Measure,
    decides: Mapping[str, Any],
    opened: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Outcome:
    """Measures every model in each of its cells into a folder of items, and goes on where an earlier start stopped.

    Whatever a model raises costs the length at which it does, with one sentence; the model is opened again for the
    others. What it raises twice in the same words costs all that are left of it. Other models go on.

    Args:
        spec: the resolved spec; its `kind` names the record.
        settings: how it is run.
        models: what is measured.
        common: what every row repeats; encoding and train length are told by the cells.
        measure: yields the cells of one model.
        decides: beside the spec and the models' facts, what makes two runs the same.
        opened: what `measure` found of models on opening them, by name; it is read again and again.
        more: what else the provenance says.
    """
    common = replace(common, corpus=publishable_name(common.corpus))
    kind = KINDS.load(str(spec.kind))  # pyright: ignore[reportAttributeAccessIssue]
    facts_of = {each.name: each.facts for each in models}
    decided = {"spec": spec.model_dump(mode="json", exclude={"device_map"}), "models": [*map(list, facts_of.items())]}
    run = run_id({**decided, **decides, "schema": SCHEMA, "version": lpe_eval.__version__})
    order = [key_of(each.name, cell) for each in models for cell in each.work]
    settings.refuse(
        [
            item_row(key.model, key.length, metric, common, facts_of[key.model],
                     dict(zip(kind.further, key.further, strict=True)))
            for key in order
            for metric in kind.judged_metrics(key)
        ]
    )  # fmt: skip
    work = {key_of(each.name, cell): each.work[cell] for each in models for cell in each.work}
    pieces = [Piece(key.model, key.length, [flat_key(key)], [None], 1, "", [work[key]]) for key in order]
    own = None if settings.shard is None else own_parts(pieces, settings.shard)
    mine = order if own is None else [key for key, numbers in zip(order, own, strict=True) if numbers]
    with ItemFolder(
        settings.folder(f"{kind.name}-{run}"), kind.name, run, spec_text(spec), settings.overwrite, kind.columns,
        kind.further, kind.made, settings.sharing(SharedPlan(kind.name, run, pieces)),
    ) as folder:  # fmt: skip
        earlier = folder.earlier_provenance()
        account = Account(pick_device(common.device), earlier)
        measured, lost, collected = 0, 0, 0.0

        def write_provenance() -> None:
            known = {name: facts.get("opened") for name, facts in earlier.get("models", {}).items()} | dict(opened)
            told = {name: {**facts, **({"opened": known[name]} if known.get(name) else {})}
                    for name, facts in facts_of.items()}  # fmt: skip
            paths = [each["attention"] for each in known.values() if each]
            facts = run_facts(kind.name, run, models=told, seeds={"seed": common.seed}, dtype=common.dtype,
                              attention=paths, **more)  # fmt: skip
            folder.write_provenance(account.provenance(facts, cells=measured))

        def collect() -> None:
            nonlocal collected
            if not folder.shared:
                folder.collect(order)
            write_provenance()
            collected = time.monotonic()

        done = folder.done()
        if held := len(done & set(order)):
            settings.tell(f"{folder.directory} already holds {held} of {len(order)} cells; they are not measured again")
        collect()
        wanted = set(mine) - done
        left = {each.name: [cell for cell in each.work if key_of(each.name, cell) in wanted] for each in models}
        others = Others([(folder.cell_file(flat_key(key)), work[key]) for key in set(order) - set(mine)])
        total = sum(map(work.__getitem__, wanted))
        with together(settings.progress, settings.shard, folder.directory, total, "tokens", others) as advance:
            try:
                for each in models:
                    for cell in _cells(each, left[each.name], common, measure, kind.metrics, advance):
                        folder.save(cell)
                        measured, lost = measured + 1, lost + (cell.status in ("failed", "error"))
                        if time.monotonic() - collected >= _COLLECTED_EVERY:
                            collect()
            finally:
                collect()
        if folder.shared:
            return share_done(settings, folder.directory, lost)
        return outcome_of_items(folder, settings.draw)


def merged_items(directory: Path, plan: SharedPlan, text: str) -> Merged:
    """Makes the tables of a run of items from what shards left in its folder; `commands/merge.py` has the contract."""
    kind = KINDS.load(plan.kind)
    shape = kind.columns, kind.further, kind.made
    with ItemFolder(directory, kind.name, plan.run, text, False, *shape, Sharing(plan, "")) as folder:
        order = [key_of(model, (length, *further) if further else length) for model, length, *further in plan.order]
        held = set(folder.cells([]))
        folder.collect(order)
        folder.write_provenance(joined_provenance(directory))
        missing = [" ".join(map(str, flat_key(key))) for key in order if flat_key(key) not in held]
        return Merged(outcome_of_items(folder), missing)


def outcome_of_items(folder: ItemFolder, draw: bool = True) -> Outcome:
    """What follows from the tables of a run of items is made, and told."""
    found = open_folder(folder.directory)
    folder.add(found.kind.further_files(found))
    if draw:
        found.kind.draw([found], folder.directory / "figures")
    failed = sum(row["status"] in ("failed", "error") for row in found.rows)
    sentence = f"{failed} of the values are missing; their notes stand below the table" if failed else ""
    return Outcome(folder.directory, [f"rows: {folder.directory / found.kind.table()}"], sentence)


def _cells(
    model: Planned,
    cells: Sequence[Cell],
    common: Facts,
    measure: Measure,
    metrics: Callable[[ItemKey], Sequence[str]],
    advance: Advance,
) -> Iterator[ItemCell]:
    left, before = list(cells), ""
    while left:
        try:
            for cell in measure(model.name, tuple(left), advance):
                left.remove(cell.key.place)
                before = ""
                yield cell
            return
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if is_not_deterministic(error):
                raise
            status = "n/a" if isinstance(error, LengthError) else "failed"
            note = "out of memory" if out_of_memory(error) else one_sentence(error)
            # Lengths are measured in their order. What fails twice in the same words will not get better.
            lost = left if note == before else left[:1]
            left, before = left[len(lost) :], note
            for place in lost:
                key = key_of(model.name, place)
                yield ItemCell(key, common, dict.fromkeys(metrics(key), ()), status=status, note=note)
            advance(sum(model.work[place] for place in lost))
