"""What all kinds of run share: how one is asked for, what it leaves behind, and the loop over cells of items.

`commands/<kind>.py` has a function `run_spec(spec, settings)` that gives an `Outcome`. A kind whose cells are a model
at a length and whose values are made of items hands its cells to `run_cells`, and inherits a folder that survives
kills, resuming, provenance, tables, figures, comparison and baselines.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel

import lpe_eval
from lpe_eval.errors import LengthError, one_sentence
from lpe_eval.measure.determinism import is_not_deterministic
from lpe_eval.measure.device import pick_device
from lpe_eval.measure.progress import Advance, Progress, Tell
from lpe_eval.measure.provenance import Account, publishable_name, run_facts
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.records import Cell, ItemCell, ItemKey, key_of
from lpe_eval.registry import KINDS
from lpe_eval.report.folders.items import ItemFolder
from lpe_eval.report.gate.comparable import PlannedRow, item_row
from lpe_eval.report.kind import open_folder
from lpe_eval.screen import Table
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
    """

    out: Path | None
    overwrite: bool
    progress: Progress
    tell: Tell
    device: str = "auto"
    jobs: int | None = None
    refuse: Callable[[Sequence[PlannedRow]], None] = lambda planned: None
    draw: bool = True

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
    """

    folder: Path
    notes: Sequence[str] = ()
    failed: str = ""
    misfit: str = ""


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
    decided = {"spec": spec.model_dump(mode="json"), "models": [[each.name, each.facts] for each in models]}
    run = run_id({**decided, **decides, "schema": SCHEMA, "version": lpe_eval.__version__})
    order = [key_of(each.name, cell) for each in models for cell in each.work]
    facts_of = {each.name: each.facts for each in models}
    settings.refuse(
        [
            item_row(key.model, key.length, metric, common, facts_of[key.model],
                     dict(zip(kind.further, key.further, strict=True)))
            for key in order
            for metric in kind.judged_metrics(key)
        ]
    )  # fmt: skip
    with ItemFolder(
        settings.folder(f"{kind.name}-{run}"), kind.name, run, spec_text(spec), settings.overwrite, kind.columns,
        kind.further, kind.made,
    ) as folder:  # fmt: skip
        earlier = folder.earlier_provenance()
        account = Account(pick_device(common.device), earlier)
        measured, collected = 0, 0.0

        def write_provenance() -> None:
            known = {name: facts.get("opened") for name, facts in earlier.get("models", {}).items()} | dict(opened)
            told = {name: {**facts, **({"opened": known[name]} if known.get(name) else {})}
                    for name, facts in facts_of.items()}  # fmt: skip
            paths = [each["attention"] for each in known.values() if each]
            facts = run_facts(
                kind.name, run, models=told, seeds={"seed": common.seed}, dtype=common.dtype, attention=paths, **more
            )
            folder.write_provenance(account.provenance(facts, cells=measured))

        def collect() -> None:
            nonlocal collected
            folder.collect(order)
            write_provenance()
            collected = time.monotonic()

        done = folder.done()
        if done & set(order):
            sentence = f"{len(done & set(order))} of {len(order)} cells; they are not measured again"
            settings.tell(f"{folder.directory} already holds {sentence}")
        collect()
        left = {each.name: [cell for cell in each.work if key_of(each.name, cell) not in done] for each in models}
        total = sum(each.work[cell] for each in models for cell in left[each.name])
        with settings.progress(total, "tokens") as advance:
            try:
                for each in models:
                    for cell in _cells(each, left[each.name], common, measure, kind.metrics, advance):
                        folder.save(cell)
                        measured += 1
                        if time.monotonic() - collected >= _COLLECTED_EVERY:
                            collect()
            finally:
                collect()
        found = open_folder(folder.directory)
        folder.add(kind.further_files(found))
        if settings.draw:
            kind.draw([found], folder.directory / "figures")
        failed = sum(row["status"] in ("failed", "error") for row in found.rows)
    sentence = f"{failed} of the values are missing; their notes stand below the table" if failed else ""
    return Outcome(folder.directory, [f"rows: {folder.directory / kind.table()}"], sentence)


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
