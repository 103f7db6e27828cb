"""A training from its spec to a native checkpoint, with everything needed to go on after a kill."""

import time
from pathlib import Path

import torch

from lpe_eval.data.corpus import Corpus, open_corpus
from lpe_eval.data.selection import Selection, choose_documents
from lpe_eval.data.tokenizer import Tokenizer, open_tokenizer
from lpe_eval.errors import OutputError, SpecError
from lpe_eval.measure.by_length import peak_memory_mib
from lpe_eval.measure.determinism import deterministic
from lpe_eval.measure.device import pick_device
from lpe_eval.measure.facts import corpus_facts
from lpe_eval.measure.progress import Progress
from lpe_eval.measure.provenance import begin, cost, end, publishable
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.report.folders.train import LogRow, TrainingFolder
from lpe_eval.spec.fingerprint import run_id, spec_text
from lpe_eval.spec.model_spec import CheckpointSpec
from lpe_eval.spec.train_spec import TrainSpec
from lpe_eval.train.text import Trainer, TrainingStateError, TrainingStep

_LOG_EVERY = 20
_ALL_TEXT = 1 << 40


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
    with deterministic(spec.deterministic):
        return _train(spec, out, pick_device(device_name), overwrite, progress)


def _train(spec: TrainSpec, out: Path, device: torch.device, overwrite: bool, progress: Progress) -> Path:
    with TrainingFolder(out, spec_text(spec), overwrite) as folder:
        # Seeds decide everything, so training once more would end at the same weights.
        if not folder.ended:
            _train_in(folder, spec, device, progress)
    return out


def _train_in(folder: TrainingFolder, spec: TrainSpec, device: torch.device, progress: Progress) -> None:
    out = folder.directory
    tokenizer = open_tokenizer(spec.tokenizer)
    corpus = open_corpus(spec.corpus)
    text = {split: _packed(corpus, split, tokenizer, spec) for split in ("train", "valid")}
    streams = {split: torch.from_numpy(each.documents[0].tokens).to(torch.int32) for split, each in text.items()}
    trainer = _trainer(spec, streams["train"], streams["valid"], device)
    rows = _resume(trainer, folder)
    spent = rows[-1].seconds if rows else 0.0
    start, resumed_from, began = begin(device), trainer.step, time.monotonic()
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
    seconds, tokens = rows[-1].seconds if rows else 0.0, spec.steps * spec.batch_tokens
    facts = {
        "kind": spec.kind,
        "checkpoint_digest": Native.peek(out, LoadOptions()).digest,
        "n_parameters": sum(each.numel() for each in trainer.model.parameters()),
        "corpus": {"describe": corpus_facts(corpus), **{split: each.fingerprint for split, each in text.items()}},
        "dtype": {"weights": spec.weights_dtype, "compute": spec.compute_dtype},
        "attention": trainer.model.path_names(),
        "seeds": {"weights_and_order": spec.seed},
        "tokens_seen": tokens,
        "seconds": seconds,
        "cost": cost(tokens, seconds, peak_memory_mib(device)),
    }
    spent = end(start, time.monotonic() - began, resumed_from_step=resumed_from)
    folder.finish(rows, publishable({**facts, **spent}))


def _trainer(spec: TrainSpec, tokens: torch.Tensor, validation: torch.Tensor, device: torch.device) -> Trainer:
    try:
        return Trainer(spec, tokens, validation, device)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)):
            raise
        raise SpecError(f"the model of {spec.name} does not fit into memory; lower --width or --layers") from error


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
