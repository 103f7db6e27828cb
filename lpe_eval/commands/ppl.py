"""Perplexity from its spec to a table: a spec names models and data; we measure them; we report a table."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lpe_eval.data.corpus import Corpus, open_corpus
from lpe_eval.errors import CheckpointError, one_sentence
from lpe_eval.measure.batches import Plan, Texts
from lpe_eval.measure.by_length import measure
from lpe_eval.measure.determinism import deterministic, is_not_deterministic
from lpe_eval.measure.device import dtype_name, pick_device
from lpe_eval.measure.estimate import Guess, Stopwatch
from lpe_eval.measure.facts import corpus_facts, identity_of, opened_facts, planned_facts, row_facts
from lpe_eval.measure.heap import keep_freed_memory
from lpe_eval.measure.key_tokens import stored_key_spans
from lpe_eval.measure.optimum import Best, Scored, measure_best, plan_best, without_best
from lpe_eval.measure.pace import Pace
from lpe_eval.measure.plan import Planned, plan_models, tokens_of, unfinished
from lpe_eval.measure.probe import allowed_leak, tried_lengths
from lpe_eval.measure.progress import Tell
from lpe_eval.measure.provenance import Account, cost, run_facts
from lpe_eval.measure.remarks import remarks
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.transformer_model import TransformerModel
from lpe_eval.records import KeepTokens
from lpe_eval.report.figures.ppl import draw_perplexity
from lpe_eval.report.folders.derived import derived_files
from lpe_eval.report.folders.long_perplexity import long_perplexity_files
from lpe_eval.report.folders.ppl import open_run, read_run
from lpe_eval.report.frames import read_csv
from lpe_eval.report.gate.comparable import PlannedRow, text_rows
from lpe_eval.report.numbers.statistics import summarise
from lpe_eval.run import Estimate, Outcome, Settings
from lpe_eval.screen import duration, listing, short_count
from lpe_eval.spec.fingerprint import run_id, spec_text
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.table import COST, CellKey, Measurement

_BATCH_TOKENS, _BATCH_TOKENS_CPU = 16384, 4096
"""Token budget of a batch unless --batch-size says otherwise. What a processor's cache cannot hold makes it slower."""


def run_spec(spec: PerplexitySpec, settings: Settings) -> Outcome:
    """Measures every model of `spec` under every protocol at every length.

    All windows are planned, and the output folder is proven writable, before a model is loaded. A
    model that cannot be opened, or that sees the future, has failed cells; the others still run.

    Args:
        spec: what to run.
        settings: how.
    """
    device = pick_device(spec.device)
    if device.type == "cpu":
        keep_freed_memory()
    spec = spec.model_copy(update={"device": device.type, "dtype": dtype_name(spec.dtype, device)})
    corpus = open_corpus(spec.corpus)
    models = plan_models(spec, corpus, _load_options(spec, device))
    planned = [*plan_best(spec, corpus, models), *models]
    stored = stored_key_spans(spec, corpus, models)
    identity = run_id(identity_of(spec, planned, None if stored is None else stored.fingerprint))
    order = [key for each in planned for plan in each.plans for key in plan.windows]
    settings.refuse(_planned_rows(spec, corpus, models))
    for sentence in [*remarks(spec, corpus, models), *without_best(spec, corpus, models)]:
        settings.tell(sentence)
    with (
        deterministic(spec.deterministic),
        open_run(settings.folder(identity), spec_text(spec), identity, settings.overwrite, spec.keeps_tokens) as folder,
    ):
        earlier = folder.earlier_provenance()
        todo = [each._replace(plans=unfinished(each.plans, folder.finished())) for each in planned]
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

        folder.collect(order)
        if resumed < len(order) or not earlier:
            write_provenance(0)
        measured, tokens = 0, {(each.peek.name, plan.length): tokens_of(plan) for each in todo for plan in each.plans}
        with settings.progress(sum(tokens.values()), "tokens") as advance:
            at = _Where(Pace(tokens, advance), order, settings.tell)
            for each in todo:
                if each.plans:
                    keep = folder.keep_tokens if spec.keeps_tokens else None
                    for measurement in _measure_model(spec, corpus, each, device, opened, at, keep):
                        folder.save(measurement, summarise(measurement, identity, spec.seed))
                        folder.collect(order)
                        measured += 1
                        write_provenance(measured)
        run = read_run(folder.directory)
        folder.add(derived_files(run))
        folder.add(long_perplexity_files(run, folder.tokens_of, None if stored is None else stored.spans))
        rows = run.rows.to_dict("records")
        out = folder.directory
        if drawn := settings.draw and any(row["status"] in ("ok", "error") for row in rows):
            draw_perplexity([run], out / "figures")
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
    device = pick_device(spec.device)
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
                stopwatch = Stopwatch(model, texts, partial(_batch_tokens, spec, device))
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


class _Where(NamedTuple):
    """Where a run has got to, and who is told of it."""

    pace: Pace
    order: Sequence[CellKey]
    tell: Tell

    def begin(self, model: str, plan: Plan) -> None:
        """A model is measured at a length from now on."""
        cell = f"cell {self.order.index(next(iter(plan.windows))) + 1} of {len(self.order)}"
        self.pace.begin(model, plan.length, f"{model} at {plan.length}, {cell}")


def _measure_model(
    spec: PerplexitySpec,
    corpus: Corpus,
    planned: Scored,
    device: torch.device,
    opened: dict[str, Any],
    at: _Where,
    keep: KeepTokens | None,
) -> Iterator[Measurement]:
    facts, name = row_facts(spec, corpus), planned.peek.name
    if isinstance(planned, Best):
        yield from measure_best(planned, facts, partial(at.begin, name), partial(at.pace.pass_over, name))
        return
    try:
        if planned.why_not:
            raise CheckpointError(planned.why_not)
        model = planned.located.load_planned(_load_options(spec, device), planned.peek)
        leak = allowed_leak(model, spec.lengths, spec.allow_leak)
        facts = replace(facts, encoding=model.facts.encoding, train_length=model.facts.train_length)
        opened[name] = opened_facts(model) | ({"leak": leak} if leak else {})
        for sentence in [*model.notes(), *([leak] if leak else [])]:
            at.tell(f"{name}: {sentence}")
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        # Whatever foreign code raises costs the cells of its own model.
        if is_not_deterministic(error):
            raise
        at.tell(f"{name} cannot be measured: {one_sentence(error)}")
        for plan in planned.plans:
            at.pace.pass_over(name, plan.length)
            yield from (
                Measurement(key, facts, "", (), (), None, "failed", one_sentence(error)) for key in plan.windows
            )
        return
    adapt = spec.batch_size == "auto" and not spec.deterministic and not isinstance(model, TransformerModel)
    for each in planned.plans:
        at.begin(name, each)
        for measurement in measure(
            model,
            planned.selection.documents,
            [each],
            facts,
            bos_id=planned.tokenizer.bos_id,
            batch_tokens=_batch_tokens(spec, device, each.length),
            seed=spec.seed,
            advance=at.pace.done,
            adapt=adapt,
            keep=keep,
        ):
            if measurement.cost is None:
                at.pace.pass_over(name, each.length)
            notes = (leak, measurement.note) if measurement.status == "ok" else (measurement.note,)
            yield replace(measurement, note="; ".join(filter(None, notes)))


def _batch_tokens(spec: PerplexitySpec, device: torch.device, length: int) -> int:
    if spec.batch_size != "auto":
        return spec.batch_size * length
    return _BATCH_TOKENS_CPU if device.type == "cpu" else _BATCH_TOKENS


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
