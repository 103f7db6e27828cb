"""The sentence in code: a spec names models and data; we measure them; we report a table."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

import lpe_eval
from lpe_eval.data.corpus import Corpus, open_corpus
from lpe_eval.errors import LengthError, LpeEvalError
from lpe_eval.measure.by_length import measure
from lpe_eval.measure.determinism import deterministic
from lpe_eval.measure.device import dtype_name, pick_device
from lpe_eval.measure.estimate import seconds_for
from lpe_eval.measure.facts import corpus_facts, opened_facts, planned_facts
from lpe_eval.measure.heap import keep_freed_memory
from lpe_eval.measure.plan import Planned, plan_models, unfinished, work, work_per_token
from lpe_eval.measure.probe import refuse_leak
from lpe_eval.measure.progress import Advance, Progress, Tell
from lpe_eval.measure.provenance import begin, cost, end, publishable
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.plain import json_of
from lpe_eval.report.figures.together import draw_perplexity, n_tokenizers
from lpe_eval.report.folders.ppl import open_run, read_run
from lpe_eval.report.folders.reading import read_csv
from lpe_eval.report.numbers.statistics import summarise
from lpe_eval.spec.fingerprint import run_id, spec_text
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.table import COST, SCHEMA, Facts, Measurement

_BATCH_TOKENS, _BATCH_TOKENS_CPU = 16384, 4096
"""Token budget of a batch unless --batch-size says otherwise. What a processor's cache cannot hold makes it slower."""


class Estimate(NamedTuple):
    """A plan as a table, and a sentence."""

    columns: Sequence[str]
    rows: list[Sequence[str]]
    total: str


class Outcome(NamedTuple):
    """What a perplexity run leaves behind."""

    folder: Path
    rows: list[dict[str, Any]]
    """Every row of `rows.csv`, in its order."""
    failed: int
    """Cells that failed; `n/a` is an answer and not counted."""
    tokenizers: int
    """How many different ones there are; with several, perplexities per token do not compare."""


def perplexity(spec: PerplexitySpec, out: Path | None, overwrite: bool, progress: Progress, tell: Tell) -> Outcome:
    """Measures every model of `spec` under every protocol at every length.

    All windows are planned, and the output folder is proven writable, before a model is loaded. A
    model that cannot be opened, or that sees the future, has failed cells; the others still run.

    Args:
        spec: what to run.
        out: folder of the results, used exactly; None is `results/runs/<id>`.
        overwrite: discard another run that the folder holds.
        progress: opens a progress bar.
        tell: takes a sentence that the user should read.
    """
    device = pick_device(spec.device)
    if device.type == "cpu":
        keep_freed_memory()
    spec = spec.model_copy(update={"device": device.type, "dtype": dtype_name(spec.dtype, device)})
    corpus = open_corpus(spec.corpus)
    planned = plan_models(spec, corpus, _load_options(spec, device))
    identity = run_id(_identity(spec, planned))
    order = [key for each in planned for plan in each.plans for key in plan.windows]
    with (
        deterministic(spec.deterministic),
        open_run(out or Path("results/runs") / identity, spec_text(spec), identity, overwrite) as store,
    ):
        began, earlier = time.monotonic(), _earlier(store.directory)
        todo = [each._replace(plans=unfinished(each.plans, store.finished())) for each in planned]
        resumed = len(store.finished() & set(order))
        if resumed:
            tell(f"{store.directory} already holds {resumed} of {len(order)} cells; they are not measured again")
        opened: dict[str, Any] = {name: facts.get("opened") for name, facts in earlier.get("models", {}).items()}
        start = begin(device, earlier)

        def account(measured: int) -> None:
            facts = _provenance(spec, identity, corpus, planned, opened, store.directory)
            spent = end(start, time.monotonic() - began, cells=measured)
            store.write_provenance(publishable({**facts, **spent, "cells_from_an_earlier_start": resumed}))

        store.collect(order)
        if resumed < len(order) or not earlier:
            account(0)
        measured = 0
        total = sum(work(plan) for each in todo for plan in each.plans)
        with progress(total, "work") as advance:
            for each in todo:
                if each.plans:
                    for measurement in _measure_model(spec, corpus, each, device, opened, advance):
                        store.save(measurement, summarise(measurement, identity, spec.seed))
                        store.collect(order)
                        measured += 1
                        account(measured)
        run = read_run(store.directory)
        draw_perplexity([run], store.directory / "figures")
        rows = run.rows.to_dict("records")
        failed = {
            (row["model"], row["protocol"], row["length"]) for row in rows if row["status"] in ("failed", "error")
        }
        return Outcome(store.directory, rows, len(failed), n_tokenizers([run]))


def estimate(spec: PerplexitySpec) -> Estimate:
    """What `perplexity` would do: windows and tokens of each cell, and a timed guess of the seconds of each model."""
    device = pick_device(spec.device)
    rows: list[Sequence[str]] = []
    total = 0.0
    options = _load_options(spec, device)
    for each in plan_models(spec, open_corpus(spec.corpus), options):
        model = each.located.load(options)
        for step in each.plans:
            try:
                seconds = seconds_for(model, [step])
                told = f"{seconds:.0f} s"
                total += seconds
            except LengthError as error:
                told = f"n/a: {error}"
            for key, windows in step.windows.items():
                scored = sum(window.n_scored for window in windows)
                fed = sum(window.n_input for window in windows)
                rows.append((key.model, key.protocol, str(key.length), str(len(windows)), str(scored), str(fed), told))
    columns = ("model", "protocol", "length", "windows", "scored", "fed", "estimate of the length")
    return Estimate(columns, rows, f"about {total / 60:.1f} minutes in all; protocols of one length share windows")


def _measure_model(
    spec: PerplexitySpec,
    corpus: Corpus,
    planned: Planned,
    device: torch.device,
    opened: dict[str, Any],
    advance: Advance,
) -> Iterator[Measurement]:
    facts = Facts(
        encoding="",
        train_length=None,
        task=spec.task,
        task_version=spec.task_version,
        corpus=corpus.label,
        split=corpus.split,
        seed=spec.seed,
        dtype=spec.dtype,
        device=device.type,
    )
    keys = [key for plan in planned.plans for key in plan.windows]
    try:
        model = planned.located.load(_load_options(spec, device))
        refuse_leak(model)
    except LpeEvalError as error:
        advance(sum(work(plan) for plan in planned.plans))
        yield from (Measurement(key, facts, "", (), (), None, "failed", str(error)) for key in keys)
        return
    facts = replace(facts, encoding=model.facts.encoding, train_length=model.facts.train_length)
    opened[planned.peek.name] = opened_facts(model)
    budget = _BATCH_TOKENS_CPU if device.type == "cpu" else _BATCH_TOKENS
    for each in planned.plans:
        advance(0, f"{planned.peek.name} at {each.length}")
        per_token = work_per_token(each.length)
        batch_tokens = budget if spec.batch_size == "auto" else spec.batch_size * each.length
        yield from measure(
            model,
            planned.selection.documents,
            [each],
            facts,
            planned.tokenizer.bos_id,
            batch_tokens,
            spec.seed,
            lambda done, per_token=per_token: advance(round(done * per_token)),
        )


def _load_options(spec: PerplexitySpec, device: torch.device) -> LoadOptions:
    return LoadOptions(device, getattr(torch, dtype_name(spec.dtype, device)), spec.attention, **spec.opening)


def _identity(spec: PerplexitySpec, planned: Sequence[Planned]) -> dict[str, Any]:
    """What makes two runs the same: not the batch size, which changes no value."""
    return {
        "spec": spec.model_dump(mode="json", exclude={"batch_size", "models", "task_fingerprint"}),
        "models": [[each.peek.name, each.peek.digest, each.selection.fingerprint] for each in planned],
        "schema": SCHEMA,
        "version": lpe_eval.__version__,
    }


def _provenance(
    spec: PerplexitySpec,
    identity: str,
    corpus: Corpus,
    planned: Sequence[Planned],
    opened: Mapping[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """What was measured, with what and at what cost; where and when is added by `begin` and `end`."""
    models = {each.peek.name: {**planned_facts(each), "opened": opened.get(each.peek.name)} for each in planned}
    return {
        "kind": spec.kind,
        "run": identity,
        "task": {"name": spec.task, "version": spec.task_version, "fingerprint": spec.task_fingerprint or None},
        "corpus": {"name": corpus.label, "split": corpus.split, **corpus_facts(corpus)},
        "models": models,
        "opened_with": spec.opening,
        "dtype": spec.dtype,
        "attention": list(dict.fromkeys(facts["attention"] for facts in opened.values() if facts)),
        "seeds": {"documents_and_positions": spec.seed},
        "cost": _cost(folder / "cost.csv"),
    }


def _cost(path: Path) -> dict[str, Any] | None:
    """What all cells cost together, those of earlier starts included."""
    if not path.exists():
        return None
    cells = read_csv(path, COST)
    peak = None if cells.empty else float(cells.peak_memory_mib.max())
    return cost(float(cells.n_forward_tokens.sum()), float(cells.seconds.sum()), peak)


def _earlier(folder: Path) -> dict[str, Any]:
    """The provenance of the start that this one goes on with; empty if there is none that can be read."""
    try:
        found = json_of((folder / "provenance.json").read_bytes())
    except (OSError, ValueError):
        return {}
    shaped = isinstance(found, dict) and all(isinstance(each, dict) for each in _items(found))
    return found if shaped else {}


def _items(provenance: Mapping[str, Any]) -> list[Any]:
    """The parts of a provenance that another start reads: each must be a mapping."""
    models, starts = provenance.get("models", {}), provenance.get("starts", [])
    inside = list(models.values()) if isinstance(models, dict) else []
    return [models, *inside, *(starts if isinstance(starts, list) else [None])]
