"""What a checkpoint is, told without measuring it.

A checkpoint is opened as a measurement opens it, on the CPU and in float32, so what is shown is what would run.

Choices:
    * Parameters of an encoding are shown as they are stored; an encoding may clamp them in a forward pass.
    * The types on disk are read from the heads of the weight files, because loading converts.
"""

import re
from typing import NamedTuple

from torch import Tensor, nn

from lpe_eval.data.corpus import open_corpus
from lpe_eval.data.tokenizer import ENDLESS, open_tokenizer
from lpe_eval.errors import CausalLeakError, LpeEvalError, one_sentence
from lpe_eval.fetched import as_addressed
from lpe_eval.measure.plan import plan_models, split_alias
from lpe_eval.measure.probe import refuse_leak
from lpe_eval.measure.remarks import remarks
from lpe_eval.model.checkpoint import LoadOptions, Located, locate
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.screen import Table, listing
from lpe_eval.spec.ppl_spec import PerplexitySpec

_FEW = 16
"""A tensor of so many numbers is written out; of a larger one, its range."""


class Inspection(NamedTuple):
    """What was found."""

    tables: list[Table]
    notes: list[str]


def inspect_checkpoint(reference: str, spec: PerplexitySpec) -> Inspection:
    """Opens a checkpoint and tells what it is, and what `spec` would measure with it.

    Raises:
        LpeEvalError: it cannot be opened; a tokenizer or a text that is missing is only told.
    """
    options = LoadOptions(**spec.opening)
    located = locate(split_alias(reference)[1])
    model = located.load(options)
    tables = [listing("checkpoint", ("what", "value"), _facts(located, model, spec, options))]
    parameters = [_row(*found) for found in model.position_tensors()]
    if parameters:
        tables.append(
            listing("numbers of the encoding, as stored", ("where", "name", "shape", "learned", "values"), parameters)
        )
    notes: list[str] = []
    try:
        table, told = _planned(spec, options)
        tables.append(table)
        notes += told
    except LpeEvalError as error:
        notes.append(f"with the task {spec.task}, nothing could be measured yet: {error}")
    if model.mapped:
        mapped = sorted(model.mapped.items(), key=_natural)
        tables.append(listing("keys of the file and what they became", ("there", "here"), mapped))
    return Inspection(tables, notes)


def _facts(located: Located, model: LanguageModel, spec: PerplexitySpec, options: LoadOptions) -> list[tuple[str, str]]:
    facts = model.facts
    rows = [
        ("name", facts.name),
        ("format", facts.format),
        ("place", as_addressed(str(located.path))),
        *model.architecture(),
        ("vocabulary", f"{facts.vocab_size:,} symbols"),
        ("encoding", facts.encoding),
        *model.method(),
        ("train length", "the checkpoint does not say" if facts.train_length is None else f"{facts.train_length:,}"),
        ("parameters", f"{facts.n_parameters:,}"),
        ("type on disk", " and ".join(located.stored_types()) or "unknown"),
        ("causal", _causal(model)),
        ("a prefix scores as it does alone", "yes" if facts.prefix_stable else "no"),
        ("attention path", model.attention),
        ("digest", facts.digest),
        ("tokenizer", _tokenizer(facts.tokenizer, options)),
    ]
    if spec.opening:
        rows.append(("opened with", ", ".join(f"{name}={value}" for name, value in spec.opening.items())))
    return rows


def _causal(model: LanguageModel) -> str:
    """By trial, not by the model's own word."""
    if not model.facts.causal:
        return "no"
    try:
        refuse_leak(model)
    except CausalLeakError:
        return "no: a change of later tokens moves what comes before them, so it cannot be measured"
    except (LpeEvalError, RuntimeError, ValueError, IndexError) as error:
        return f"not known: {one_sentence(error)}"
    return "yes: a change of later tokens moves nothing before them"


def _tokenizer(name: str, options: LoadOptions) -> str:
    try:
        found = open_tokenizer(name, options.trust_remote_code)
    except LpeEvalError as error:
        return f"{name} (cannot be opened: {error})" if name else "none; name one with --tokenizer"
    # A function of the user's does not say how many ids it knows.
    size = "" if found.vocab_size >= ENDLESS else f"{found.vocab_size:,} symbols, "
    prefix = f", puts {' '.join(found.prefix)} before a text" if found.prefix else ""
    return f"{name} ({size}fingerprint {found.fingerprint[:12]}{prefix})"


def _row(where: str, name: str, tensor: Tensor) -> tuple[str, str, str, str, str]:
    shape = " x ".join(map(str, tensor.shape)) or "one number"
    return where, name, shape, "yes" if isinstance(tensor, nn.Parameter) else "no", _values(tensor)


def _values(tensor: Tensor) -> str:
    numbers = tensor.detach().cpu().double().flatten()
    if len(numbers) <= _FEW:
        return " ".join(f"{value:.4g}" for value in numbers.tolist())
    return f"{numbers.min():.4g} to {numbers.max():.4g}, mean {numbers.mean():.4g}"


def _planned(spec: PerplexitySpec, options: LoadOptions) -> tuple[Table, list[str]]:
    corpus = open_corpus(spec.corpus)
    (planned,) = plan_models(spec, corpus, options)
    rows = [
        (key.protocol, str(key.length), str(key.stride), f"{len(windows):,}", f"{sum(w.n_scored for w in windows):,}")
        for plan in planned.plans
        for key, windows in plan.windows.items()
    ]
    title = (
        f"what ppl would measure: task {spec.task}, {corpus.label} ({corpus.split}), "
        f"{len(planned.selection.documents)} documents"
    )
    table = listing(title, ("protocol", "length", "stride", "windows", "scored tokens"), rows)
    return table, remarks(spec, corpus, [planned])


def _natural(item: tuple[str, str]) -> list[tuple[int, str]]:
    """Sorts by what a key became, layer 2 before layer 10."""
    theirs, ours = item
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", f"{ours} {theirs}")]
