"""Perplexity from its spec to a table: a spec names models and data; we measure them; we report a table."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lpe_eval.data.corpus import Corpus, open_corpus
from lpe_eval.errors import one_sentence
from lpe_eval.measure.batches import Texts
from lpe_eval.measure.determinism import deterministic
from lpe_eval.measure.device import dtype_name, placed_device
from lpe_eval.measure.estimate import Guess, Stopwatch
from lpe_eval.measure.facts import corpus_facts, identity_of, planned_facts, row_facts
from lpe_eval.measure.heap import keep_freed_memory
from lpe_eval.measure.key_tokens import stored_key_spans
from lpe_eval.measure.model_cells import Doing, batch_tokens, measure_model
from lpe_eval.measure.optimum import Scored, plan_best, without_best
from lpe_eval.measure.pace import Pace
from lpe_eval.measure.parts import long_lengths, put_together, with_leak
from lpe_eval.measure.plan import Planned, plan_models, tokens_of, unfinished
from lpe_eval.measure.probe import tried_lengths
from lpe_eval.measure.progress import Tell
from lpe_eval.measure.provenance import Account, cost, run_facts
from lpe_eval.measure.remarks import remarks
from lpe_eval.measure.sharing import own_share, pieces_of, tokens_left, work_of_others
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.part_records import PartSums
from lpe_eval.plain import yaml_of
from lpe_eval.ranks import Others, together
from lpe_eval.report.figures.ppl import draw_perplexity
from lpe_eval.report.folders.derived import derived
from lpe_eval.report.folders.folder import SPEC
from lpe_eval.report.folders.gathering import joined_provenance, refuse_other_counts
from lpe_eval.report.folders.long_perplexity import long_perplexity_files
from lpe_eval.report.folders.parts import MissingParts
from lpe_eval.report.folders.ppl import PerplexityFolder, open_run, read_run
from lpe_eval.report.folders.shared import SharedPlan, Sharing
from lpe_eval.report.frames import read_csv, records
from lpe_eval.report.gate.comparable import PlannedRow, text_rows
from lpe_eval.report.numbers.by_length import sweeps
from lpe_eval.report.numbers.statistics import summarise
from lpe_eval.run import Estimate, Merged, Outcome, Settings, share_done
from lpe_eval.screen import duration, listing, short_count
from lpe_eval.spec.fingerprint import run_id, spec_text
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.spec.tasks import parse_spec
from lpe_eval.table import COST, CellKey


def run_spec(spec: PerplexitySpec, settings: Settings) -> Outcome:
    """Measures every model of `spec` under every protocol at every length.

    All windows are planned, and the output folder is proven writable, before a model is loaded. A
    model that cannot be opened, or that sees the future, has failed cells; the others still run.

    Args:
        spec: what to run.
        settings: how.
    """
    device = placed_device(spec.device, spec.device_map, settings.local())
    if device.type == "cpu":
        keep_freed_memory()
    spec = spec.model_copy(update={"device": device.type, "dtype": dtype_name(spec.dtype, device)})
    corpus, options, budget = open_corpus(spec.corpus), _load_options(spec, device), partial(batch_tokens, spec, device)
    models = plan_models(spec, corpus, options)
    planned = [*plan_best(spec, corpus, models), *models]
    stored = stored_key_spans(spec, corpus, models)
    identity = run_id(identity_of(spec, planned, None if stored is None else stored.fingerprint))
    order = [key for each in planned for plan in each.plans for key in plan.windows]
    settings.refuse(_planned_rows(spec, corpus, models))
    for sentence in [*remarks(spec, corpus, models), *without_best(spec, corpus, models)]:
        settings.tell(sentence)
    long = long_lengths(((each.peek.name, plan) for each in models for plan in each.plans), budget)
    mine, sharing, every_part = planned, None, long
    if settings.shard is not None:
        pieces = pieces_of(planned, long, budget)
        spans = None if stored is None else {digest: each.tolist() for digest, each in stored.spans.items()}
        sharing = settings.sharing(SharedPlan(spec.kind, identity, pieces, {"key_spans": spans}))
        mine, long = own_share(planned, long, pieces, settings.shard)
    with (
        deterministic(spec.deterministic),
        open_run(
            settings.folder(identity), spec_text(spec), identity, settings.overwrite, spec.keeps_tokens, sharing
        ) as folder,
    ):
        earlier = folder.earlier_provenance()
        todo = [each._replace(plans=unfinished(each.plans, folder.finished())) for each in mine]
        resumed = len(folder.finished() & set(order))
        if resumed:
            settings.tell(
                f"{folder.directory} already holds {resumed} of {len(order)} cells; they are not measured again"
            )
        opened: dict[str, Any] = {name: facts.get("opened") for name, facts in earlier.get("models", {}).items()}
        account = Account(device, earlier)

        def write_provenance(measured: int) -> None:
            facts = _facts(spec, identity, corpus, planned, opened, folder.directory)
            folder.write_provenance(
                account.provenance({**facts, "cells_from_an_earlier_start": resumed}, cells=measured)
            )

        if sharing is None:
            folder.collect(order)
        if resumed < len(order) or not earlier:
            write_provenance(0)
        measured, lost, tokens = 0, 0, tokens_left(todo, long, folder.parts.has)
        theirs = work_of_others(planned, mine, every_part, long) if sharing else {}
        others = Others([(folder.file_of(piece), amount) for piece, amount in theirs.items()])
        with together(
            settings.progress, settings.shard, folder.directory, sum(tokens.values()), "tokens", others
        ) as advance:
            doing = Doing(
                spec, row_facts(spec, corpus), device, options, opened, Pace(tokens, advance), order, settings.tell,
                folder.keep_tokens if spec.keeps_tokens else None, long, folder.parts.read,
                folder.parts.save_tokens if spec.keeps_tokens else None, folder.parts.tokens, sharing is None,
            )  # fmt: skip
            for each in todo:
                for found in measure_model(doing, each) if each.plans else ():
                    lost += found.status in ("failed", "error")
                    if isinstance(found, PartSums):
                        folder.parts.save(found)
                        continue
                    folder.save(found, summarise(found, identity, spec.seed))
                    if sharing is None:
                        folder.collect(order)
                    measured += 1
                    write_provenance(measured)
        if sharing is not None:
            return share_done(settings, folder.directory, lost)
        folder.forget_parts((part.name for parts in long.values() for part in parts), order)
        return outcome_of(folder, None if stored is None else stored.spans, settings.draw)


def merged(directory: Path, plan: SharedPlan, text: str) -> Merged:
    """Puts the cells of long lengths together from their parts, and makes the tables; see `commands/merge.py`."""
    spec, missing = parse_spec(yaml_of(text), PerplexitySpec, str(directory / SPEC)), []
    with open_run(directory, text, plan.run, False, spec.keeps_tokens, Sharing(plan, "")) as folder:
        finished, held = folder.finished(), set(folder.cells([]))
        for piece in plan.pieces:
            left = [key for key in (CellKey(*key) for key in piece.cells) if key not in finished]
            if piece.parts == 1 or not left:
                missing += [f"{key.model} at {key.length}, {key.protocol}" for key in left if key not in held]
                continue
            parts = folder.parts.of_length(piece)
            try:
                # One part after another: memory holds one, and the sums of the cells.
                first = next(parts)
                cells = list(put_together(chain([first], parts), left))
            except MissingParts as lacking:
                missing += [
                    f"{piece.model} at {piece.length}, part {at + 1} of {piece.parts}" for at in lacking.numbers
                ]
                continue
            for found in cells:
                if spec.keeps_tokens and found.blocks:
                    folder.keep_tokens(found.key, folder.parts.tokens(folder.parts.of_length(piece), found.key))
                found = replace(found, note=with_leak(found, first.leak))
                folder.save(found, summarise(found, plan.run, spec.seed))
        refuse_other_counts(plan, folder.counts(), directory)
        folder.collect(CellKey(*key) for key in plan.order)
        folder.write_provenance({**joined_provenance(directory), "cost": _cost(directory / "cost.csv")})
        spans = plan.more.get("key_spans")
        arrays = {digest: np.array(each, dtype=np.int64).reshape(-1, 3) for digest, each in (spans or {}).items()}
        return Merged(outcome_of(folder, None if spans is None else arrays), missing)


def outcome_of(folder: PerplexityFolder, stored: Mapping[str, Any] | None, draw: bool = True) -> Outcome:
    """What follows from the tables of a run is made, and told.

    Args:
        folder: of the run, its tables collected.
        stored: spans of key tokens that it was given.
        draw: whether figures are drawn.
    """
    run = read_run(folder.directory, by_document=False)
    # The sums of one model at a time: those of all of them may be millions.
    found = derived(run, sweeps(records(run.rows), folder.blocks_of))
    folder.add(found.files)
    folder.add(long_perplexity_files(run, found.sweeps, folder.tokens_of, stored))
    rows, out = run.rows.to_dict("records"), folder.directory
    if drawn := draw and any(row["status"] in ("ok", "error") for row in rows):
        draw_perplexity([run], out / "figures", found.changes)
    lost = {(row["model"], row["protocol"], row["length"]) for row in rows if row["status"] in ("failed", "error")}
    where = f"rows: {out}/rows.csv" + (f"   figure: {out}/figures/perplexity.png" if drawn else "")
    sentence = f"{len(lost)} of the cells have no value; their notes stand below the table" if lost else ""
    return Outcome(out, [where], sentence)


def estimate(spec: PerplexitySpec, tell: Tell = lambda sentence: None) -> Estimate:
    """What `run_spec` would do: windows and tokens of each cell, and the seconds of each length, timed.

    Args:
        spec: what would be run.
        tell: told of each model and length as soon as it is known.
    """
    device = placed_device(spec.device, spec.device_map)
    if device.type == "cpu":
        keep_freed_memory()
    rows: list[Sequence[str]] = []
    total = opening = 0.0
    options = _load_options(spec, device)
    for each in plan_models(spec, open_corpus(spec.corpus), options):
        name, began, stopwatch, why_not = each.peek.name, time.perf_counter(), None, each.why_not
        tried: Sequence[int] = ()
        if not each.why_not:
            texts = Texts(each.selection.documents, each.tokenizer.bos_id, spec.seed)
            try:
                model = each.located.load(options)
                stopwatch = Stopwatch(model, texts, partial(batch_tokens, spec, device))
                tried = tried_lengths(model, spec.lengths)
            except Exception as error:
                why_not = one_sentence(error)
        opening += time.perf_counter() - began
        for step in each.plans:
            guess = Guess(None, f"failed: {why_not}") if stopwatch is None else stopwatch.seconds_of(step)
            total += guess.seconds or 0.0
            told = guess.why_not if guess.seconds is None else duration(guess.seconds)
            tell(f"{name} at {step.length}: {short_count(tokens_of(step))} tokens to feed, {told}")
            for key, windows in step.windows.items():
                scored = sum(window.n_scored for window in windows)
                fed = sum(window.n_input for window in windows)
                rows.append((key.model, key.protocol, str(key.length), str(len(windows)), str(scored), str(fed), told))
        opening += stopwatch.seconds_to_try(tried) if stopwatch is not None else 0.0
    columns = ("model", "protocol", "length", "windows", "scored", "fed", "estimate of the length")
    parts = f"{duration(total)} in the models, {duration(opening)} to open and try them"
    sentence = (
        f"about {(total + opening) / 60:.1f} minutes in all: {parts}; protocols of one length share windows, and "
        "figures take a few seconds more"
    )
    return Estimate(listing("planned", columns, rows), sentence)


def _planned_rows(spec: PerplexitySpec, corpus: Corpus, planned: Sequence[Planned]) -> list[PlannedRow]:
    order = [key for each in planned for plan in each.plans for key in plan.windows]
    models = {each.peek.name: planned_facts(each) for each in planned}
    digests = {each.peek.name: [document.digest for document in each.selection.documents] for each in planned}
    text = {"name": corpus.label, "split": corpus.split, **corpus_facts(corpus)}
    return text_rows(order, row_facts(spec, corpus), spec.model_dump(mode="json"), models, digests, text)


def _load_options(spec: PerplexitySpec, device: torch.device) -> LoadOptions:
    dtype = getattr(torch, dtype_name(spec.dtype, device))
    return LoadOptions(device, dtype, spec.attention, lengths=spec.lengths, **spec.opening)


def _facts(
    spec: PerplexitySpec,
    identity: str,
    corpus: Corpus,
    planned: Sequence[Scored],
    opened: Mapping[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """What was measured, with what and at what cost."""
    models = {each.peek.name: {**planned_facts(each), "opened": opened.get(each.peek.name)} for each in planned}
    return run_facts(
        spec.kind,
        identity,
        models=models,
        seeds={"documents_and_positions": spec.seed},
        dtype=spec.dtype,
        attention=[facts["attention"] for facts in opened.values() if facts],
        task={"name": spec.task, "version": spec.task_version, "fingerprint": spec.task_fingerprint or None},
        corpus={"name": corpus.label, "split": corpus.split, **corpus_facts(corpus)},
        opened_with=spec.opening,
        cost=_cost(folder / "cost.csv"),
    )


def _cost(path: Path) -> dict[str, Any] | None:
    """What all cells cost together, those of earlier starts included."""
    if not path.exists():
        return None
    cells = read_csv(path, COST)
    peak = None if cells.empty else float(cells.peak_memory_mib.max())
    return cost(float(cells.n_forward_tokens.sum()), float(cells.seconds.sum()), peak)
