"""The Chomsky-hierarchy evaluation from its spec to a table: encoders are trained or opened, then scored.

A cell is one model (an encoding that is trained, or a folder of encoders) on one task. Names are looked up before
anything is made. A cell that cannot be made later says why in its rows, and the others go on.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import lpe_eval
from lpe_eval.errors import LengthError, SpecError, one_sentence
from lpe_eval.measure.che_plan import PlannedCell, config_of, plan_cells
from lpe_eval.measure.device import pick_device, placed_device, slow_products
from lpe_eval.measure.heap import keep_freed_memory
from lpe_eval.measure.problem_rows import ScoredRows, cell_row, rows_without_value, stored_rows
from lpe_eval.measure.progress import Advance, Tell
from lpe_eval.measure.provenance import Account, run_facts
from lpe_eval.measure.score_problem import digest_of_test_set, problem_test_set
from lpe_eval.measure.sharing import own_parts
from lpe_eval.model import encoder_folder as stored
from lpe_eval.model.needed_memory import TRAINED_WEIGHT, WEIGHT, model_shortfall
from lpe_eval.model.unchanged import Stamps
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.part_records import Piece
from lpe_eval.plain import yaml_of
from lpe_eval.ranks import Others, together
from lpe_eval.records import CheRow
from lpe_eval.report.figures.che import draw_che
from lpe_eval.report.folders.che import CheCell, CheFolder, slug_of
from lpe_eval.report.folders.gathering import joined_provenance
from lpe_eval.report.folders.shared import SharedPlan, Sharing
from lpe_eval.report.gate.che_rows import unit_of
from lpe_eval.report.gate.comparable import PlannedRow, problem_row
from lpe_eval.report.numbers.che_summary import che_frame
from lpe_eval.run import Estimate, Merged, Outcome, Settings, share_done
from lpe_eval.screen import duration, listing, short_count
from lpe_eval.spec.che_spec import CheSpec, TestSet
from lpe_eval.spec.fingerprint import run_id
from lpe_eval.table import SCHEMA
from lpe_eval.train.encoders import Log, Trained, Validated, train_encoders
from lpe_eval.train.estimate import seconds_to_score, seconds_to_train_on

_SLOWER = "the same results, more slowly, because steps were not replayed"


def run_spec(spec: CheSpec, settings: Settings) -> Outcome:
    """Trains and scores, or scores, every model of `spec` on every task.

    Args:
        spec: what to run.
        settings: how.

    Raises:
        UnknownName: a task or an encoding does not exist, or no checkpoint has the task.
        SpecError: the device does not exist.
        CheckpointError: a folder holds no encoders.
        OutputError: the results cannot be written.
    """
    device = placed_device(spec.device, None, settings.local())
    spec = spec.model_copy(update={"device": device.type})
    if spec.encodings and device.type == "cpu":
        keep_freed_memory()
    cells = plan_cells(spec)
    _refuse_unfit(cells, device)
    if spec.encodings and (slow := slow_products(cells[0].protocol.compute_dtype, device)):
        settings.tell(f"{slow} in a protocol of your own")
    places = {cell.name[0]: cell.place for cell in cells if cell.place is not None}
    planned = {model: stored.digest_and_stamps(place) for model, place in places.items()}
    digests = {model: digest for model, (digest, _) in planned.items()}
    run = run_id(_identity(spec, digests))
    order = [cell.name for cell in cells]
    settings.refuse([row for cell in cells for row in _planned_rows(cell, spec)])
    asked = {**spec.model_dump(mode="json"), "tasks": list(dict.fromkeys(cell.task.name for cell in cells))}
    pieces = [Piece(cell.name[0], 0, [list(cell.name)], [None], 1, "", [cell.work]) for cell in cells]
    own = None if settings.shard is None else own_parts(pieces, settings.shard)
    mine = cells if own is None else [cell for cell, numbers in zip(cells, own, strict=True) if numbers]
    sharing = settings.sharing(SharedPlan(spec.kind, run, pieces))
    with CheFolder(settings.folder(f"che-{run}"), asked, run, settings.overwrite, sharing) as folder:
        account = Account(device, folder.earlier_provenance())
        held = folder.finished()
        todo = [cell for cell in mine if cell.name not in held]
        if kept := sum(cell.name in held for cell in cells):
            settings.tell(f"{folder.directory} already holds {kept} of {len(cells)} cells; they are kept")
        facts = _facts(spec, run, cells, digests)
        folder.write_provenance(account.provenance(facts, cells=0))
        theirs = {cell.name for cell in cells} - {cell.name for cell in mine}
        others = Others([(folder.cell_file(cell.name), cell.work) for cell in cells if cell.name in theirs])
        total, unit = sum(cell.work for cell in todo), "steps" if spec.encodings else "lengths"
        with together(settings.progress, settings.shard, folder.directory, total, unit, others) as advance:
            for cell in todo:
                saved = folder.snapshot(cell.name)
                for event in _events(cell, spec, run, device, saved, advance, planned.get(cell.name[0])):
                    _keep(event, cell, folder, settings.tell)
                if sharing is None:
                    folder.collect(order)
        if sharing is None:
            outcome = outcome_of(folder, order, settings.draw)
        else:
            outcome = share_done(settings, folder.directory, len({cell.name for cell in mine} - folder.finished()))
        paths = [row.attention for cell in folder.cells(order).values() for row in cell.rows]
        folder.write_provenance(account.provenance({**facts, "attention": _once(paths)}, cells=len(todo)))
        return outcome


def outcome_of(folder: CheFolder, order: Sequence[tuple[str, str]], draw: bool = True) -> Outcome:
    """The tables and figures of a run, whose cells have that order, are made and told; figures if `draw`."""
    rows = folder.collect(order)
    folder.collect_strings(order)
    if draw:
        draw_che(che_frame(rows), folder.directory / "figures")
    held = {name: cell for name, cell in folder.cells(order).items() if name in order}
    failed = [f"{model} on {task}: {cell.rows[0].note}" for (model, task), cell in held.items() if cell.failed]
    misfits = _misfits(row for cell in held.values() for row in cell.rows)
    more = f"; {len(failed) - 1} more, whose notes stand in che.csv" if len(failed) > 1 else ""
    return Outcome(
        folder.directory,
        [f"rows: {folder.directory / 'che.csv'}   figures: {folder.directory / 'figures'}"],
        f"there is no value for {failed[0]}{more}" if failed else "",
        f"not every model could be asked everything: {'; '.join(misfits)}" if misfits else "",
    )


def merged(directory: Path, plan: SharedPlan, text: str) -> Merged:
    """Makes tables and checkpoints of what shards left in a folder; the contract is in `commands/merge.py`."""
    spec = CheSpec.model_validate(yaml_of(text))
    with CheFolder(directory, spec.model_dump(mode="json"), plan.run, False, Sharing(plan, "")) as folder:
        order = [(str(model), str(task)) for model, task in plan.order]
        held = folder.cells(order)
        # Each shard knew of its own tasks alone.
        for model, cell in {cell.name[0]: cell for cell in plan_cells(spec)}.items() if spec.encodings else ():
            if chosen := folder.chosen(model):
                folder.save_config(slug_of(model), config_of(cell, chosen))
        folder.write_provenance(joined_provenance(directory))
        return Merged(
            outcome_of(folder, order), [f"{model} on {task}" for model, task in order if (model, task) not in held]
        )


def estimate(spec: CheSpec, tell: Tell) -> Estimate:
    """What `run_spec` would do, and how long it would take.

    Args:
        spec: what would be run.
        tell: told of each model as soon as it is known.

    Raises:
        LpeEvalError: as `run_spec`, but for what is written.
    """
    device = pick_device(spec.device)
    if spec.encodings and device.type == "cpu":
        keep_freed_memory()
    cells = plan_cells(spec)
    _refuse_unfit(cells, device)

    def test(cell: PlannedCell) -> TestSet:
        return spec.test_set(cell.protocol, cell.task.problem.shortest_length)

    rows, total = [], 0.0
    for model in dict.fromkeys(cell.name[0] for cell in cells):
        own = [cell for cell in cells if cell.name[0] == model]
        try:
            seconds = (seconds_to_train_on if spec.encodings else seconds_to_score)(own, test, device)
            took = duration(seconds)
        except (SpecError, LengthError) as error:
            seconds, took = 0.0, f"n/a: {error}"
        total += seconds
        tell(f"{model}: {took}")
        strings = sum(test(cell).samples * len(test(cell).lengths) for cell in own)
        trained = f"{own[0].work:,} x {len(own[0].protocol.runs)}" if spec.encodings else "-"
        rows.append((model, str(len(own)), trained, short_count(strings), took))
    columns = ("model", "problems", "steps x runs", "strings scored", "estimate")
    most = "at most " if spec.encodings and cells[0].protocol.solved_at is not None else ""
    sentence = f"about {most}{duration(total)} for {len(cells)} cells; what the folder holds already is not done again"
    return Estimate(listing("planned", columns, rows), sentence)


def _planned_rows(cell: PlannedCell, spec: CheSpec) -> list[PlannedRow]:
    (model, name), problem = cell.name, cell.task.problem
    test = spec.test_set(cell.protocol, problem.shortest_length)

    def strings(length: int) -> list[str]:
        digest = digest_of_test_set(problem_test_set(problem, length, test.samples, test.seed))
        return [unit_of(digest, place) for place in range(test.samples)]

    return [
        problem_row(model, name, cell.task.version, length, "float32", partial(strings, length))
        for length in test.lengths
    ]


def _facts(spec: CheSpec, run: str, cells: Sequence[PlannedCell], digests: Mapping[str, str]) -> dict[str, Any]:
    models: dict[str, dict[str, Any]] = {}
    for cell in cells:
        model, encoding = cell.name[0], cell.encoding
        opened = {"encoding": str(encoding), "encoding_options": encoding.model_dump(mode="json")}
        models[model] = {"digest": digests.get(model), "opened": opened}
    protocol = cells[0].protocol
    seeds = {"strings": protocol.test_seed if spec.seed is None else spec.seed, "weights": list(protocol.seeds)}
    return run_facts(spec.kind, run, models=models, seeds=seeds, dtype="float32")


def _refuse_unfit(cells: Sequence[PlannedCell], device: torch.device) -> None:
    """Raises SpecError where the runs of a protocol, which are trained together, do not fit into memory."""
    each = TRAINED_WEIGHT if device.type == "cpu" else WEIGHT
    for protocol in {id(cell.protocol): cell.protocol for cell in cells if cell.place is None}.values():
        bare = protocol.encoder(cells[0].encoding, 1, 1, 1)
        if shortfall := model_shortfall(bare, each, len(protocol.runs)):
            together = f"protocol {protocol.name}: training its {len(protocol.runs)} runs together {shortfall}"
            raise SpecError(f"{together}; lower its width, its layers or its number of seeds")


def _once(values: Iterable[str]) -> list[str]:
    return [each for each in dict.fromkeys(values) if each]


def _events(
    cell: PlannedCell,
    spec: CheSpec,
    run: str,
    device: torch.device,
    saved: tuple[Log, bytes] | None,
    advance: Advance,
    planned: tuple[str, Stamps] | None,
) -> Iterator[Validated | Trained | ScoredRows]:
    """A cell while it is made: its validations if it is trained, and in the end its rows, or rows that say why not."""
    row, test = cell_row(cell, run, device), spec.test_set(cell.protocol, cell.task.problem.shortest_length)
    advanced = 0

    def counted(done: int, description: str | None = None) -> None:
        nonlocal advanced
        advanced += done
        advance(done, description)

    dropout = spec.deepmind_compat
    try:
        if cell.place is None:
            yield from train_encoders(
                cell, row, test, device=device, keep_dropout=dropout, saved=saved, advance=counted
            )
        else:
            assert planned is not None
            yield stored_rows(
                cell, cell.place, row, test, planned, device=device, keep_dropout=dropout, advance=counted
            )
        return
    except (SpecError, LengthError) as error:
        status, note = "n/a", str(error)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        # Problems, encodings and kernels may be anybody's; whatever they raise costs this cell alone.
        status, note = "failed", "out of memory" if out_of_memory(error) else one_sentence(error)
    advance(cell.work - advanced)
    yield ScoredRows(rows_without_value(row, test.lengths, status, note), [])


def _keep(event: Validated | Trained | ScoredRows, cell: PlannedCell, folder: CheFolder, tell: Tell) -> None:
    """Writes what an event brings."""
    match event:
        case Validated():
            if event.snapshot is not None:
                folder.save_snapshot(cell.name, event.log, event.snapshot)
        case Trained():
            if event.why_not_replayed is not None:
                tell(f"{cell.title}: {_SLOWER}: {event.why_not_replayed}")
            _save_checkpoint(cell, folder, event)
            chosen = event.chosen.model_dump(mode="json")
            folder.save(cell.name, CheCell(event.rows, event.log, chosen, event.strings))
        case ScoredRows():
            folder.save(cell.name, CheCell(event.rows, [], None, event.strings))


def _save_checkpoint(cell: PlannedCell, folder: CheFolder, trained: Trained) -> None:
    """The weights of the run that is kept, and a config that names all tasks of this encoding that are done."""
    model, task = cell.name
    config = config_of(cell, {**folder.chosen(model), task: trained.chosen.model_dump(mode="json")})
    folder.save_checkpoint(slug_of(model), task, trained.weights, config)


def _identity(spec: CheSpec, models: dict[str, str]) -> dict[str, Any]:
    """What makes two runs the same: not the encodings and tasks, so that a folder can grow by more of them."""
    decides = spec.model_dump(mode="json", exclude={"encodings", "models", "tasks"})
    return {"spec": decides, "models": models, "schema": SCHEMA, "version": lpe_eval.__version__}


def _misfits(rows: Iterable[CheRow]) -> list[str]:
    """For each model with status `n/a` somewhere: the first reason, and how many places it has no value at."""
    found: dict[str, list[CheRow]] = {}
    for row in rows:
        if row.status == "n/a" and row.metric == "accuracy" and row.run_index == 0:
            found.setdefault(row.model, []).append(row)
    return [
        f"{model} has no value at {len(own)} of its lengths, at {own[0].length} of {own[0].task} because {own[0].note}"
        for model, own in found.items()
    ]
