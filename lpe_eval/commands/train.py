"""A training from its spec to a native checkpoint, with everything needed to go on after a kill."""

import torch

from lpe_eval.data.corpus import Corpus, open_corpus
from lpe_eval.data.selection import Selection, choose_documents
from lpe_eval.data.tokenizer import Tokenizer, open_tokenizer
from lpe_eval.errors import OutputError, SpecError
from lpe_eval.measure.determinism import deterministic
from lpe_eval.measure.device import pick_device, slow_products
from lpe_eval.measure.facts import corpus_facts
from lpe_eval.measure.heap import keep_freed_memory
from lpe_eval.measure.memory import peak_memory_mib
from lpe_eval.measure.progress import Progress, Tell
from lpe_eval.measure.provenance import Account, cost, run_facts
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.falling_back import taken
from lpe_eval.model.needed_memory import TRAINED_WEIGHT, WEIGHT, model_shortfall
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.records import LogRow
from lpe_eval.report.folders.train import TrainingFolder
from lpe_eval.run import Estimate, Outcome, Settings
from lpe_eval.screen import duration, listing, short_count
from lpe_eval.spec.fingerprint import run_id, spec_text
from lpe_eval.spec.model_spec import CheckpointSpec
from lpe_eval.spec.train_spec import TrainSpec
from lpe_eval.train.estimate import seconds_of_training
from lpe_eval.train.snapshot import SnapshotError
from lpe_eval.train.text import Trainer, train_text

_ALL_TEXT = 1 << 40


def run_spec(spec: TrainSpec, settings: Settings) -> Outcome:
    """Trains the model of `spec`, resuming where an earlier start stopped, and writes a native checkpoint.

    Args:
        spec: the recipe.
        settings: how it is run.

    Raises:
        SpecError: the device does not exist, or the model does not fit into memory.
        DataError: there is too little text.
        DivergedError: the loss is no longer finite.
        OutputError: the folder cannot be used.
    """
    spec = resolved(spec)
    device, run = pick_device(settings.device), run_id(spec.model_dump(mode="json"))
    _refuse_unfit(spec, device)
    if slow := slow_products(spec.compute_dtype, device):
        settings.tell(slow)
    with (
        deterministic(spec.deterministic),
        TrainingFolder(settings.folder(f"train-{run}"), run, spec_text(spec), settings.overwrite) as folder,
    ):
        # Seeds decide everything, so training once more would end at the same weights.
        if not folder.ended:
            keep_freed_memory()
            _train_in(folder, spec, device, settings.progress)
    sentence = f"checkpoint: {folder.directory}   measure it: lpe-eval ppl -m {folder.directory}"
    return Outcome(folder.directory, [sentence])


def estimate(spec: TrainSpec, tell: Tell, device: str) -> Estimate:
    """What `run_spec` would do, and how long it would take; no text is read.

    Args:
        spec: the recipe.
        tell: takes sentences that the user should read.
        device: where it would be trained.

    Raises:
        SpecError: the device or the encoding does not exist, or the model does not fit into memory.
        DataError: the tokenizer or the text is not there.
    """
    spec, place = resolved(spec), pick_device(device)
    _refuse_unfit(spec, place)
    open_corpus(spec.corpus)
    if slow := slow_products(spec.compute_dtype, place):
        tell(slow)
    seconds = seconds_of_training(spec, place)
    facts = [
        ("model", f"{spec.name}: {spec.model.encoding}, {spec.model.layers} layers, width {spec.model.width}"),
        ("text", f"{spec.corpus}, train and valid, as {spec.tokenizer}"),
        (
            "steps",
            f"{spec.steps:,} of {spec.batch_tokens:,} tokens, {short_count(spec.steps * spec.batch_tokens)} in all",
        ),
        ("validations", f"{-(-spec.steps // spec.validate_every)} of {spec.validation_tokens:,} tokens"),
        ("device", place.type),
    ]
    sentence = (
        f"about {duration(seconds)} on this machine as it is now, from two steps, and some seconds to read the text"
    )
    return Estimate(listing("planned", ("what", "of it"), facts), sentence)


def resolved(spec: TrainSpec) -> TrainSpec:
    """The recipe with the size of the tokenizer's vocabulary, where it does not name one.

    Raises:
        SpecError: it names one that is too small.
        DataError: the tokenizer cannot be opened.
    """
    size = open_tokenizer(spec.tokenizer).vocab_size
    if "vocab_size" not in spec.model.model_fields_set:
        return spec.model_copy(update={"model": spec.model.model_copy(update={"vocab_size": size})})
    if spec.model.vocab_size < size:
        raise SpecError(
            f"the model of {spec.name} has a vocab_size of {spec.model.vocab_size}, and its tokenizer "
            f"{spec.tokenizer} has {size:,} symbols; leave vocab_size out, or raise it"
        )
    return spec


def _refuse_unfit(spec: TrainSpec, device: torch.device) -> None:
    # On a GPU the weights are drawn in main memory, and trained elsewhere.
    if shortfall := model_shortfall(spec.model, TRAINED_WEIGHT if device.type == "cpu" else WEIGHT):
        raise SpecError(f"the training of {spec.name} {shortfall}; lower --width or --layers")


def _train_in(folder: TrainingFolder, spec: TrainSpec, device: torch.device, progress: Progress) -> None:
    out = folder.directory
    tokenizer = open_tokenizer(spec.tokenizer)
    named, files = tokenizer.stored()
    folder.keep_tokenizer(files)
    corpus = open_corpus(spec.corpus)
    text = {split: _packed(corpus, split, tokenizer, spec) for split in ("train", "valid")}
    streams = {split: torch.from_numpy(each.documents[0].tokens).to(torch.int32) for split, each in text.items()}
    trainer = _trainer(spec, streams["train"], streams["valid"], device)
    rows = _resume(trainer, folder)
    spent = rows[-1].seconds if rows else 0.0
    account, resumed_from = Account(device, folder.earlier_provenance()), trainer.step
    known = run_facts(
        spec.kind,
        folder.run,
        models={spec.name: {"tokenizer": spec.tokenizer}},
        seeds={"weights_and_order": spec.seed},
        dtype={"weights": spec.weights_dtype, "compute": spec.compute_dtype},
        attention=trainer.model.path_names(),
        corpus={"describe": corpus_facts(corpus), **{split: each.fingerprint for split, each in text.items()}},
    )
    folder.write_provenance(account.provenance(known, resumed_from_step=resumed_from))
    with progress(spec.steps, "steps") as advance:
        advance(trainer.step, spec.name)
        with taken() as paths:
            for row, snapshot in train_text(trainer, spent, advance):
                rows.append(row)
                if snapshot is not None:
                    folder.save(rows, snapshot)
    checkpoint = CheckpointSpec(schema=1, name=spec.name, tokenizer=named, model=spec.model)
    Native.save(trainer.model, checkpoint, out, getattr(torch, spec.weights_dtype))
    seconds, tokens = rows[-1].seconds if rows else 0.0, spec.steps * spec.batch_tokens
    digest = Native.peek(out, LoadOptions()).digest
    weights = sum(each.numel() for each in trainer.model.parameters())
    opened = {"format": "native", "encoding": str(spec.model.encoding), "train_length": spec.model.train_length}
    opened |= {"encoding_options": spec.model.encoding.model_dump(mode="json"), "n_parameters": weights}
    used = {"attention": paths.paths("+".join(trainer.model.path_names())).split("+")}
    facts = {
        **known,
        **used,
        **({"attention_note": paths.note} if paths.note else {}),
        "models": {spec.name: {"digest": digest, "tokenizer": spec.tokenizer, "opened": opened}},
        "checkpoint_digest": digest,
        "n_parameters": weights,
        "tokens_seen": tokens,
        "seconds": seconds,
        "cost": cost(tokens, seconds, peak_memory_mib(device)),
    }
    folder.finish(rows, account.provenance(facts, resumed_from_step=resumed_from))


def _trainer(spec: TrainSpec, tokens: torch.Tensor, validation: torch.Tensor, device: torch.device) -> Trainer:
    try:
        return Trainer(spec, tokens, validation, device)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise SpecError(f"the model of {spec.name} does not fit into memory; lower --width or --layers") from error


def _packed(corpus: Corpus, split: str, tokenizer: Tokenizer, spec: TrainSpec) -> Selection:
    longest = spec.model.train_length
    return choose_documents(
        corpus, split, tokenizer, longest=longest, max_tokens=_ALL_TEXT, seed=0, pack=True, ends=True
    )


def _resume(trainer: Trainer, folder: TrainingFolder) -> list[LogRow]:
    saved = folder.saved_state()
    if saved is None:
        return []
    try:
        trainer.restore(saved)
    except SnapshotError as error:
        raise OutputError(f"{folder.directory / 'training_state.pt'} is damaged; delete it to start anew") from error
    return folder.read_log(up_to_step=trainer.step)
