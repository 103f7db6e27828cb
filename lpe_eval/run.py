"""The sentence in code: a spec names models and data; we measure them; we report a table."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
import yaml
from pydantic import BaseModel

import lpe_eval
from lpe_eval.data.corpus import Corpus, open_corpus
from lpe_eval.data.selection import Selection, choose_documents
from lpe_eval.data.tokenizer import Tokenizer, open_tokenizer
from lpe_eval.errors import LengthError, LpeEvalError, OutputError, SpecError
from lpe_eval.measure.by_length import measure
from lpe_eval.measure.estimate import seconds_for
from lpe_eval.measure.plan import Planned, plan_models, unfinished, work, work_per_token
from lpe_eval.measure.probe import refuse_leak
from lpe_eval.measure.provenance import environment
from lpe_eval.measure.train import Trainer, TrainingStateError, TrainingStep
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.report import plots
from lpe_eval.report.statistics import summarise
from lpe_eval.report.store import Run, open_run, read_run
from lpe_eval.report.training_folder import LogRow, TrainingFolder
from lpe_eval.spec.fingerprint import run_id
from lpe_eval.spec.model_spec import CheckpointSpec
from lpe_eval.spec.run_spec import PerplexitySpec
from lpe_eval.spec.train_spec import TrainSpec
from lpe_eval.table import SCHEMA, Facts, Measurement

_LOG_EVERY = 20
_ALL_TEXT = 1 << 40
_BATCH_TOKENS = 16384
"""Token budget of a batch unless --batch-size says otherwise."""


Advance = Callable[..., None]
"""advance(done, description=None): how much more is done, and what is being done now."""

Tell = Callable[[str], None]
"""Takes a sentence that the user should read."""

Progress = Callable[[int, str], AbstractContextManager[Advance]]
"""Opens a progress bar over a total of some unit."""


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one.

    Raises:
        SpecError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SpecError(f"--device {name}: no such device on this machine; use cpu or auto") from error
    return device


def spec_text(spec: BaseModel) -> str:
    """The resolved spec as YAML."""
    return yaml.safe_dump(spec.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


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
    spec = spec.model_copy(update={"device": device.type, "dtype": _dtype_name(spec.dtype, device)})
    corpus = open_corpus(spec.corpus)
    planned = plan_models(spec, corpus, _load_options(spec, device))
    identity = run_id(_identity(spec, planned))
    order = [key for each in planned for plan in each.plans for key in plan.windows]
    with open_run(out or Path("results/runs") / identity, spec_text(spec), identity, overwrite) as store:
        began = time.monotonic()
        todo = [each._replace(plans=unfinished(each.plans, store.finished())) for each in planned]
        resumed = len(store.finished() & set(order))
        if resumed:
            tell(f"{store.directory} already holds {resumed} of {len(order)} cells; they are not measured again")
        total = sum(work(plan) for each in todo for plan in each.plans)
        with progress(total, "work") as advance:
            for each in todo:
                if each.plans:
                    for measurement in _measure_model(spec, corpus, each, device, advance):
                        store.save(measurement, summarise(measurement, identity, spec.seed))
                        store.collect(order)
        store.collect(order)
        store.write_provenance(
            {
                "run": identity,
                "environment": environment(device),
                "corpus": {"name": corpus.label, "split": corpus.split, **corpus.describe()},
                "models": {each.peek.name: _model_provenance(each) for each in planned},
                "opened_with": spec.opening,
                "seconds": round(time.monotonic() - began, 1),
                "cells_from_an_earlier_start": resumed,
            }
        )
        run = read_run(store.directory)
        draw(run, store.directory / "figures")
        rows = run.rows.to_dict("records")
        failed = {
            (row["model"], row["protocol"], row["length"]) for row in rows if row["status"] in ("failed", "error")
        }
        return Outcome(store.directory, rows, len(failed), _n_tokenizers([run]))


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


def draw_runs(folders: Sequence[Path], out: Path) -> list[Path]:
    """Draws several runs in one figure, and the figures of a single run as when it was made."""
    runs = [read_run(folder) for folder in folders]
    if len(runs) == 1:
        return draw(runs[0], out)
    return _draw_lengths(runs, out)


def draw(run: Run, folder: Path) -> list[Path]:
    """Draws every figure of a run: perplexity by length, and loss by context where it was kept.

    Where models have different tokenizers, bits per byte are drawn too.
    """
    written = _draw_lengths([run], folder)
    if len(run.by_position):
        written += plots.save(plots.position_figure(run.by_position, run.rows), folder, "loss_by_context")
    return written


def _draw_lengths(runs: Sequence[Run], folder: Path) -> list[Path]:
    rows = pd.concat([run.rows for run in runs])
    metrics = ["perplexity"] if _n_tokenizers(runs) < 2 else ["perplexity", "bits_per_byte"]
    return [path for each in metrics for path in plots.save(plots.perplexity_figure(rows, each), folder, each)]


def _n_tokenizers(runs: Sequence[Run]) -> int:
    models = [model for run in runs for model in run.provenance.get("models", {}).values()]
    # What decides is the ids of the text: one vocabulary may come in two formats.
    return len({model.get("ids_fingerprint", model["tokenizer_fingerprint"]) for model in models})


def _measure_model(
    spec: PerplexitySpec, corpus: Corpus, planned: Planned, device: torch.device, advance: Advance
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
    for each in planned.plans:
        advance(0, f"{planned.peek.name} at {each.length}")
        per_token = work_per_token(each.length)
        batch_tokens = _BATCH_TOKENS if spec.batch_size == "auto" else spec.batch_size * each.length
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


def _dtype_name(name: str, device: torch.device) -> str:
    if name != "auto":
        return name
    return "bfloat16" if device.type == "cuda" else "float32"


def _load_options(spec: PerplexitySpec, device: torch.device) -> LoadOptions:
    return LoadOptions(device, getattr(torch, _dtype_name(spec.dtype, device)), spec.attention, **spec.opening)


def _identity(spec: PerplexitySpec, planned: Sequence[Planned]) -> dict[str, Any]:
    """What makes two runs the same: not the batch size, which changes no value."""
    return {
        "spec": spec.model_dump(mode="json", exclude={"batch_size", "models"}),
        "models": [[each.peek.name, each.peek.digest, each.selection.fingerprint] for each in planned],
        "schema": SCHEMA,
        "version": lpe_eval.__version__,
    }


def _model_provenance(planned: Planned) -> dict[str, Any]:
    selection = planned.selection
    return {
        "reference": planned.reference,
        "digest": planned.peek.digest,
        "tokenizer": planned.peek.tokenizer,
        "tokenizer_fingerprint": planned.tokenizer.fingerprint,
        "text_fingerprint": selection.fingerprint,
        "ids_fingerprint": hashlib.sha256(b"".join(each.tokens.tobytes() for each in selection.documents)).hexdigest(),
        "documents": [[each.name, each.digest, len(each.tokens)] for each in selection.documents],
        "documents_seen": selection.n_seen,
    }


def train(spec: TrainSpec, out: Path | None, device_name: str, overwrite: bool, progress: Progress) -> Path:
    """Trains the model of `spec`, resuming where an earlier run of it stopped, and writes a native checkpoint.

    Args:
        spec: the recipe.
        out: folder of the checkpoint and its log; None is `results/runs/train-<id>`.
        device_name: where to train.
        overwrite: start anew over what the folder holds.
        progress: opens a progress bar.

    Returns:
        The folder.
    """
    out = out or Path("results/runs") / f"train-{run_id(spec.model_dump(mode='json'))}"
    device = pick_device(device_name)
    folder = TrainingFolder(out, spec_text(spec), overwrite)
    tokenizer = open_tokenizer(spec.tokenizer)
    corpus = open_corpus(spec.corpus)
    text = {split: _packed(corpus, split, tokenizer, spec) for split in ("train", "valid")}
    streams = {split: torch.from_numpy(each.documents[0].tokens).to(torch.int32) for split, each in text.items()}
    trainer = Trainer(spec, streams["train"], streams["valid"], device)
    rows = _resume(trainer, folder)
    spent = rows[-1].seconds if rows else 0.0
    began = time.monotonic()
    pending: list[TrainingStep] = []
    with progress(spec.steps, "steps") as advance:
        advance(trainer.step, spec.name)
        for step in trainer.run():
            pending.append(step)
            if step.step % _LOG_EVERY == 0 or step.valid_nll_nats is not None:
                rows.append(_log_row(pending, spent + time.monotonic() - began))
                pending.clear()
            if step.valid_nll_nats is not None and step.step < spec.steps:
                folder.save(rows, trainer.snapshot())
            advance(1, f"{spec.name}  loss {rows[-1].train_nll_nats:.3f}" if rows else None)
    checkpoint = CheckpointSpec(schema=1, name=spec.name, tokenizer=spec.tokenizer, model=spec.model)
    Native.save(trainer.model, checkpoint, out, getattr(torch, spec.weights_dtype))
    folder.finish(
        rows,
        {
            "environment": environment(device),
            "corpus": {"describe": corpus.describe(), **{split: each.fingerprint for split, each in text.items()}},
            "tokens_seen": spec.steps * spec.batch_tokens,
            "seconds": rows[-1].seconds if rows else 0.0,
        },
    )
    return out


def _packed(corpus: Corpus, split: str, tokenizer: Tokenizer, spec: TrainSpec) -> Selection:
    return choose_documents(corpus, split, tokenizer, spec.model.train_length, _ALL_TEXT, seed=0, pack=True)


def _resume(trainer: Trainer, folder: TrainingFolder) -> list[LogRow]:
    saved = folder.saved_state()
    if saved is None:
        return []
    try:
        trainer.restore(saved)
    except TrainingStateError as error:
        raise OutputError(f"{folder.directory / 'training_state.pt'} is damaged; delete it to start anew") from error
    return folder.read_log(up_to_step=trainer.step)


def _log_row(steps: list[TrainingStep], seconds: float) -> LogRow:
    last = steps[-1]
    return LogRow(
        last.step,
        sum(step.train_nll_nats for step in steps) / len(steps),
        sum(step.gradient_norm for step in steps) / len(steps),
        last.learning_rate,
        last.valid_nll_nats,
        round(seconds, 1),
    )
