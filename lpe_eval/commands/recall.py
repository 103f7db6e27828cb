"""Recall from its spec to a table: which prompts, how each model answers them, and what that says of far context."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from lpe_eval.data.corpus import Corpus, open_corpus
from lpe_eval.errors import CheckpointError, LengthError, SpecError, one_sentence
from lpe_eval.measure.batches import release
from lpe_eval.measure.determinism import deterministic, is_not_deterministic
from lpe_eval.measure.device import dtype_name, placed_device
from lpe_eval.measure.facts import corpus_facts, opened_facts, planned_facts
from lpe_eval.measure.heap import keep_freed_memory
from lpe_eval.measure.plan import Planned, plan_models, work_per_token
from lpe_eval.measure.probe import allowed_leak
from lpe_eval.measure.progress import Advance, Tell
from lpe_eval.measure.recall.planning import tokens_of_text, trials_of, with_bos, work_of
from lpe_eval.measure.recall.scoring import fed, score
from lpe_eval.measure.recall.trial import Found, Trial
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.records import Cell, ItemCell, ItemKey, key_of
from lpe_eval.report.folders.recall import RECALL_UNITS
from lpe_eval.report.kinds.recall import Recall
from lpe_eval.run import Estimate, Outcome, Settings, run_cells
from lpe_eval.run import Planned as PlannedCells
from lpe_eval.screen import listing, short_count
from lpe_eval.spec.recall_spec import RecallSpec
from lpe_eval.table import Facts

_VERSION = 1
"""Of every test; it grows with a change that moves a value."""

_BATCH_TOKENS, _BATCH_TOKENS_CPU = 16384, 4096
"""Token budget of a batch unless --batch-size says otherwise, as for perplexity."""


class _Plan(NamedTuple):
    """Everything that is decided before a weight is read."""

    spec: RecallSpec
    options: LoadOptions
    models: dict[str, tuple[Planned, list[Trial]]]
    common: Facts
    corpus: Corpus
    opened: dict[str, Any]


def run_spec(spec: RecallSpec, settings: Settings) -> Outcome:
    """Measures every model of `spec` on every test at every length.

    All prompts are made before a model is loaded. A model that cannot be opened, or that sees the future, has failed
    cells; the others still run.

    Args:
        spec: what to run.
        settings: how.

    Raises:
        SpecError: a prompt fits into a length for no model.
    """
    plan = _planned(spec, settings.local())
    _refuse_what_never_fits(plan)
    models = [
        PlannedCells(name, planned_facts(each), _work(plan, each, trials))
        for name, (each, trials) in plan.models.items()
    ]  # fmt: skip
    text = {"name": plan.corpus.label, "split": plan.corpus.split, **corpus_facts(plan.corpus)}
    more = {"corpus": text, "opened_with": plan.spec.text_spec(1).opening}
    with deterministic(plan.spec.deterministic):
        return run_cells(
            plan.spec, settings, models, plan.common, partial(_measure, plan, settings), {}, plan.opened, more
        )


def estimate(spec: RecallSpec, tell: Tell) -> Estimate:
    """What `run_spec` would feed: windows and tokens of each model and test, as a table and a sentence."""
    plan = _planned(spec)
    rows, total = [], 0
    for name, (each, trials) in plan.models.items():
        bos = bool(not each.why_not and with_bos(plan.spec, each.tokenizer))
        for task in dict.fromkeys(trial.task for trial in trials):
            own = [trial for trial in trials if trial.task == task]
            tokens = sum(fed(window, bos) for trial in own for window in trial.windows)
            why = "; ".join(f"{trial.length}: {trial.why_not}" for trial in own if trial.why_not)
            rows.append((name, task, sum(len(trial.windows) for trial in own), short_count(tokens), why))
            total += tokens
    table = listing("planned", ("model", "test", "windows", "tokens fed", "does not fit"), rows)
    return Estimate(table, f"about {short_count(total)} tokens in all; those of long windows take longer")


def _planned(spec: RecallSpec, local: int | None = None) -> _Plan:
    device = placed_device(spec.device, spec.device_map, local)
    if device.type == "cpu":
        keep_freed_memory()
    spec = spec.model_copy(update={"device": device.type, "dtype": dtype_name(spec.dtype, device)})
    text = spec.text_spec(tokens_of_text(spec))
    options = LoadOptions(device, getattr(torch, spec.dtype), spec.attention, lengths=spec.lengths, **text.opening)
    corpus = open_corpus(text.corpus)
    known: dict[str, list[Trial]] = {}
    models = {each.peek.name: (each, trials_of(spec, each, known)) for each in plan_models(text, corpus, options)}
    common = Facts("", None, "recall", _VERSION, corpus.label, corpus.split, spec.seed, spec.dtype, device.type)
    return _Plan(spec, options, models, common, corpus, {})


def _refuse_what_never_fits(plan: _Plan) -> None:
    """Raises SpecError where no model has a prompt of a test at a length: nothing is ever cut to fit."""
    trials = [[*trials] for each, trials in plan.models.values() if not each.why_not]
    for same in zip(*trials, strict=True):
        if all(each.why_not for each in same):
            raise SpecError(f"{same[0].task} at length {same[0].length}: {same[0].why_not}; ask for other --lengths")


def _cell(trial: Trial, place: int) -> Cell:
    return (trial.length, trial.task, *trial.places[place])


def _work(plan: _Plan, each: Planned, trials: Sequence[Trial]) -> dict[Cell, int]:
    """Work by cell; that of a trial counts for the first of its cells, since all are measured together."""
    bos = bool(not each.why_not and with_bos(plan.spec, each.tokenizer))
    return {
        _cell(trial, place): work_of(trial, bos) if place == 0 else 0
        for trial in trials
        for place in range(len(trial.places))
    }


def _measure(plan: _Plan, settings: Settings, name: str, cells: Sequence[Cell], advance: Advance) -> Iterator[ItemCell]:
    """The cells of one model that are asked for, trial by trial."""
    each, trials = plan.models[name]
    if each.why_not:
        raise CheckpointError(each.why_not)
    model = each.located.load_planned(plan.options, each.peek)
    leak = allowed_leak(model, plan.spec.lengths, plan.spec.allow_leak)
    plan.opened[name] = opened_facts(model) | ({"leak": leak} if leak else {})
    for sentence in [*model.notes(), *([leak] if leak else [])]:
        settings.tell(f"{name}: {sentence}")
    facts = replace(plan.common, encoding=model.facts.encoding, train_length=model.facts.train_length)
    bos_id = each.tokenizer.bos_id if with_bos(plan.spec, each.tokenizer) else None
    for trial in trials:
        asked = {_cell(trial, place): place for place in range(len(trial.places))}
        wanted = [cell for cell in asked if cell in cells]
        if not wanted:
            continue
        work = [work_of(trial, bos_id is not None)]
        advance(0, f"{name}: {trial.task} at {trial.length}")

        def told(tokens: int, length: int = trial.length, left: list[int] = work) -> None:
            done = min(left[0], round(tokens * work_per_token(length)))
            left[0] -= done
            advance(done)

        found, status, note = _asked(plan, model, trial, bos_id, told)
        for cell in wanted:
            key = key_of(name, cell)
            if found:
                yield _filled(key, facts, found[asked[cell]], model, leak)
            else:
                yield ItemCell(
                    key, facts, dict.fromkeys(Recall.metrics(key), ()), RECALL_UNITS, _attention(model), status, note
                )
        advance(work[0])


def _filled(key: ItemKey, facts: Facts, found: Found, model: LanguageModel, leak: str) -> ItemCell:
    bad = sum(not math.isfinite(item.total) for items in found.items.values() for item in items)
    status, note = ("error", f"{bad} of the sums are not finite") if bad else ("ok", leak)
    return ItemCell(key, facts, found.items, RECALL_UNITS, _attention(model), status, note, found.chance)


def _asked(
    plan: _Plan, model: LanguageModel, trial: Trial, bos_id: int | None, advance: Advance
) -> tuple[list[Found], str, str]:
    """What was found in a trial; or nothing, with a status and a note."""
    if trial.why_not:
        return [], "n/a", trial.why_not
    try:
        scored = score(
            model, trial.windows, bos_id=bos_id, batch_tokens=_batch_tokens(plan, trial.length),
            seed=plan.spec.seed + trial.length, advance=advance,
        )  # fmt: skip
        return trial.read(scored, model.facts.vocab_size), "ok", ""
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        # Encodings and kernels may be anybody's, and may raise a class of their own; it costs this trial alone.
        if is_not_deterministic(error):
            raise
        status, why = ("n/a" if isinstance(error, LengthError) else "failed"), one_sentence(error)
        if out_of_memory(error):
            why = f"out of memory with a single window of {trial.length} tokens"
    release(model.device)
    return [], status, why


def _attention(model: LanguageModel) -> str:
    """The attention path, of a model that may have failed in saying it."""
    try:
        return model.attention
    except Exception:
        return ""


def _batch_tokens(plan: _Plan, length: int) -> int:
    if plan.spec.batch_size != "auto":
        return plan.spec.batch_size * length
    return _BATCH_TOKENS_CPU if plan.options.device.type == "cpu" else _BATCH_TOKENS
