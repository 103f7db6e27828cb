"""What each head of a checkpoint adds for every key, seen from one query, as tables, files and a figure.

A checkpoint is opened in float32. Texts are chosen as `ppl` chooses documents: by a seeded order, each with enough
tokens; where there are fewer documents than texts, later parts of them serve too.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

import lpe_eval
from lpe_eval.data.corpus import Corpus, open_corpus
from lpe_eval.data.selection import Selection, choose_documents
from lpe_eval.data.tokenizer import IDS, Tokenizer, open_tokenizer
from lpe_eval.errors import SpecError
from lpe_eval.measure.bias import cut, measure_bias
from lpe_eval.measure.device import placed_device
from lpe_eval.measure.facts import corpus_facts, opened_facts
from lpe_eval.measure.plan import bos_of, split_alias, tokenizer_of
from lpe_eval.measure.progress import Progress, Tell
from lpe_eval.measure.provenance import Account, publishable_name, run_facts
from lpe_eval.model.checkpoint import LoadOptions, Peek, locate
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.records import LayerBias
from lpe_eval.report.figures.bias import draw_bias, panels_of
from lpe_eval.report.folders.bias import BY_DISTANCE, ROWS, BiasFolder
from lpe_eval.report.numbers.heads import bias_rows
from lpe_eval.report.tables.bias import bias_tables
from lpe_eval.screen import Table
from lpe_eval.spec.fingerprint import run_id
from lpe_eval.spec.ppl_spec import LONGEST_EVER, PerplexitySpec
from lpe_eval.table import SCHEMA

MOST_LAYERS = 12
"""Layers that table and figure show where nobody chooses."""
_MOST_TEXTS = 1 << 12


class Asked(NamedTuple):
    """What is asked beside the checkpoint and the text.

    Attributes:
        position: where the query stands, from 0; a text has one token more.
        samples: texts.
        layers: those of table and figure; empty chooses.
        out: folder of the files; None is one below `results/bias`.
        overwrite: replace another question's files there.
    """

    position: int
    samples: int
    layers: Sequence[int]
    out: Path | None
    overwrite: bool


class Shown(NamedTuple):
    """What is shown of the answer."""

    tables: list[Table]
    notes: list[str]


def parse_layers(text: str | None) -> list[int]:
    """Layers as people write them: `0,5,11` or `0-3`.

    Raises:
        SpecError: a part is neither.
    """
    found: list[int] = []
    for part in filter(None, (part.strip() for part in (text or "").split(","))):
        span = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        if span is None or (span[2] is not None and int(span[2]) < int(span[1])):
            raise SpecError(f"--layers: {part!r} is no layer; write 0,5,11 or 0-3")
        found += range(int(span[1]), int(span[2] or span[1]) + 1)
    if text is not None and not found:
        raise SpecError("--layers names no layer; write 0,5,11 or 0-3")
    return list(dict.fromkeys(found))


def refuse_impossible(position: int, samples: int) -> None:
    """Raises SpecError for a position or a number of texts that cannot be."""
    if not 1 <= position < LONGEST_EVER:
        raise SpecError(f"--position must be between 1 and {LONGEST_EVER - 1}, not {position}")
    if not 1 <= samples <= _MOST_TEXTS:
        raise SpecError(f"--samples must be between 1 and {_MOST_TEXTS}, not {samples}")


def show_bias(spec: PerplexitySpec, asked: Asked, progress: Progress, tell: Tell) -> Shown:
    """Measures what position adds in a checkpoint, and writes and shows it.

    Args:
        spec: one model, how it is opened, the text, the seed and the device, as `ppl` has them.
        asked: what is asked of it.
        progress: opens a progress bar.
        tell: takes a sentence that the user should read.

    Raises:
        SpecError: what is asked for cannot be.
        CheckpointError: the checkpoint cannot be opened, or its logits do not show what position adds.
        DataError: no text is long enough.
        OutputError: the files cannot be written.
    """
    device = placed_device(spec.device, spec.device_map)
    options = LoadOptions(device, torch.float32, lengths=(asked.position + 1,), **spec.opening)
    alias, reference = split_alias(spec.models[0])
    located, corpus = locate(reference), open_corpus(spec.corpus)
    peek, tokenizer = _tokenizer(reference, located.peek(options), spec, corpus)
    peek = peek._replace(name=alias) if alias else peek
    selection, texts = _texts(spec, asked, corpus, tokenizer)
    if len(texts) < asked.samples:
        tell(f"the text gives {len(texts)} of the {asked.samples} texts of {asked.position + 1:,} tokens asked for")
    identity = _identity(spec, asked, peek, selection)
    folder = BiasFolder(asked.out or Path("results/bias") / identity, identity, asked.overwrite)
    account = Account(device, {})
    model = located.load_planned(options, peek)
    for sentence in model.notes():
        tell(f"{peek.name}: {sentence}")
    with progress(len(texts), "texts") as advance:
        layers = measure_bias(model, texts, spec.seed, asked.layers, advance)
    repeated = {
        "model": peek.name,
        "encoding": model.facts.encoding,
        "train_length": model.facts.train_length,
        "corpus": publishable_name(corpus.label),
        "split": corpus.split,
        "seed": spec.seed,
        "query": asked.position,
        "n_texts": len(texts),
    }
    facts = _facts(spec, asked, identity, corpus, (peek, tokenizer, selection), model)
    folder.write(bias_rows(layers, repeated), layers, account.provenance(facts))
    shown, left_out = _chosen(layers, asked.layers)
    called = dict.fromkeys([peek.name, model.facts.encoding, f"query at {asked.position}"])
    title = ", ".join(called)
    drawn = draw_bias(shown, title, folder.directory / "figures")
    where = f"{folder.directory}/{ROWS} and {BY_DISTANCE}   figure: {drawn[0]}"
    return Shown(bias_tables(shown, title), [*left_out, f"every layer and distance: {where}"])


def _tokenizer(reference: str, peek: Peek, spec: PerplexitySpec, corpus: Corpus) -> tuple[Peek, Tokenizer]:
    peek, tokenizer = tokenizer_of(reference, peek, spec, corpus, ())
    return peek, tokenizer or open_tokenizer(IDS)


def _texts(
    spec: PerplexitySpec, asked: Asked, corpus: Corpus, tokenizer: Tokenizer
) -> tuple[Selection, list[Int[Tensor, "1 t"]]]:
    bos = bos_of(spec, tokenizer)
    held = asked.position + 1 - (bos != "never")
    selection = choose_documents(
        corpus,
        corpus.split,
        tokenizer,
        longest=held - 1,
        # Twice, so that of few documents the later parts are read too.
        max_tokens=2 * held * asked.samples,
        seed=spec.seed,
        bos=bos,
        needs=f"position {asked.position}",
        remedy="lower --position, or take other text with --data",
    )
    first = None if bos == "never" else tokenizer.bos_id
    return selection, cut(selection.documents, asked.position + 1, first, asked.samples)


def _identity(spec: PerplexitySpec, asked: Asked, peek: Peek, selection: Selection) -> str:
    """What makes two answers the same; which layers are shown does not."""
    return run_id(
        {
            "spec": spec.model_dump(mode="json", exclude={"models", "lengths", "task_fingerprint"}),
            "model": [peek.name, peek.digest, selection.fingerprint],
            "asked": [asked.position, asked.samples],
            "schema": SCHEMA,
            "version": lpe_eval.__version__,
        }
    )


def _facts(
    spec: PerplexitySpec,
    asked: Asked,
    identity: str,
    corpus: Corpus,
    planned: tuple[Peek, Tokenizer, Selection],
    model: LanguageModel,
) -> dict[str, Any]:
    peek, tokenizer, selection = planned
    told = {
        "reference": spec.models[0],
        "digest": peek.digest,
        "tokenizer": peek.tokenizer,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "text_fingerprint": selection.fingerprint,
        "documents": [[each.name, each.digest, len(each.tokens)] for each in selection.documents],
        "opened": opened_facts(model),
    }
    return run_facts(
        "bias",
        identity,
        models={peek.name: told},
        seeds={"documents_and_positions": spec.seed},
        dtype="float32",
        attention=[model.attention],
        corpus={"name": corpus.label, "split": corpus.split, **corpus_facts(corpus)},
        opened_with=spec.opening,
        position=asked.position,
        samples=asked.samples,
    )


def _chosen(layers: Sequence[LayerBias], asked: Sequence[int]) -> tuple[list[LayerBias], list[str]]:
    """The layers that are shown, and a sentence where some are not and nobody chose."""
    by_number = {layer.layer: layer for layer in layers}
    numbers = list(asked) or panels_of(list(by_number), MOST_LAYERS)
    left_out = []
    if not asked and len(numbers) < len(layers):
        left_out = [f"table and figure show {len(numbers)} of {len(layers)} layers; choose others with --layers"]
    return [by_number[number] for number in numbers], left_out
