"""What a checkpoint is, told without measuring it.

A checkpoint is opened as a measurement opens it, on the CPU and in float32, so what is shown is what would run.

Choices:
    * Parameters of an encoding are shown as they are stored; an encoding may clamp them in a forward pass.
    * The types on disk are read from the heads of the weight files, because loading converts.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lpe_eval.data.corpus import open_corpus
from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.errors import CheckpointError, LpeEvalError
from lpe_eval.measure.plan import plan_models, split_alias
from lpe_eval.model.checkpoint import LoadOptions, Located, locate
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.foreign.neox_files import find_step
from lpe_eval.model.foreign.pickles import texts_in
from lpe_eval.model.foreign.rope_override import rotary_modules
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.model.reference import split_settings
from lpe_eval.model.transformer_model import TransformerModel
from lpe_eval.spec.ppl_spec import PerplexitySpec

_FEW = 16
"""A tensor of so many numbers is written out; of a larger one, its range."""
_WEIGHT_FILES = (
    "*.safetensors",
    "layer_*-model_states.pt",
    "mp_rank_*_model_states.pt",
    "*.bin",
    "*.pt",
)
_STORED_AS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "torch DoubleStorage": "float64", "torch FloatStorage": "float32",
    "torch HalfStorage": "float16", "torch BFloat16Storage": "bfloat16",
}  # fmt: skip
_OF_POSITIONS = re.compile(r"wpe\.|position|relative_attention|alibi", re.IGNORECASE)

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, columns, rows."""


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
    tables: list[Table] = [("checkpoint", ("what", "value"), _facts(located, model, spec))]
    parameters = list(_position_tensors(model))
    if parameters:
        tables.append(
            ("numbers of the encoding, as stored", ("where", "name", "shape", "learned", "values"), parameters)
        )
    notes: list[str] = []
    try:
        tables.append(_planned(spec, options))
    except LpeEvalError as error:
        notes.append(f"with the task {spec.task}, nothing could be measured yet: {error}")
    if isinstance(model, TransformerModel) and model.mapped:
        mapped = sorted(model.mapped.items(), key=_natural)
        tables.append(("keys of the file and what they became", ("there", "here"), mapped))
    return Inspection(tables, notes)


def _facts(located: Located, model: LanguageModel, spec: PerplexitySpec) -> list[tuple[str, str]]:
    facts = model.facts
    rows = [
        ("name", facts.name),
        ("format", facts.format),
        ("place", str(located.path)),
        *_shape(model),
        ("vocabulary", f"{facts.vocab_size:,} symbols"),
        ("encoding", facts.encoding),
        *_encoding(model),
        ("train length", "the checkpoint does not say" if facts.train_length is None else f"{facts.train_length:,}"),
        ("parameters", f"{facts.n_parameters:,}"),
        ("type on disk", " and ".join(stored_types(located)) or "unknown"),
        ("causal", "yes, by its own word; every measurement tries it" if facts.causal else "no"),
        ("a prefix scores as it does alone", "yes" if facts.prefix_stable else "no"),
        ("attention path", model.attention),
        ("digest", facts.digest),
        ("tokenizer", _tokenizer(facts.tokenizer)),
    ]
    if spec.opening:
        rows.append(("opened with", ", ".join(f"{name}={value}" for name, value in spec.opening.items())))
    return rows


def _shape(model: LanguageModel) -> list[tuple[str, str]]:
    if isinstance(model, TransformerModel):
        shape = model.spec.model
        head = "adaptive" if shape.adaptive else "tied to the input" if shape.tied_embeddings else "its own"
        norm = f"{shape.norm}-norm" + (" without a final one" if shape.norm == "pre" and not shape.final_norm else "")
        residual = ", attention and MLP in parallel" if shape.parallel_residual else ""
        return [
            ("architecture", f"reference transformer, {'causal' if shape.causal else 'bidirectional'}"),
            ("shape", _sizes(shape.layers, shape.width, shape.heads) + f", MLP {shape.mlp_width} ({shape.activation})"),
            ("layer", f"{norm}, eps {shape.norm_eps:g}{residual}"),
            ("head", head),
        ]
    inner = getattr(model, "model", model)
    rows = [("architecture", type(inner).__name__)]
    config = getattr(inner, "config", None)
    sizes = [getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads")]
    if all(isinstance(size, int) for size in sizes):
        rows.append(("shape", _sizes(*(int(size or 0) for size in sizes))))
    return rows


def _sizes(layers: int, width: int, heads: int) -> str:
    return f"{layers} layers, width {width}, {heads} heads of {width // heads}"


def _encoding(model: LanguageModel) -> list[tuple[str, str]]:
    if not isinstance(model, TransformerModel):
        return []
    first = model.model.layer_encodings[0]
    method = next((each for each in (first, *first.modules()) if isinstance(each, Encoding) and each.paper), first)
    options = model.spec.model.encoding.model_dump()
    rows = [("method", f"{method.title} ({method.paper})")] if method.paper else []
    if len(options) > 1:
        rows.append(("options of the encoding", json.dumps(options)))
    if first.longest_length is not None:
        rows.append(("longest text", f"{first.longest_length:,} tokens"))
    return rows


def _tokenizer(name: str) -> str:
    try:
        found = open_tokenizer(name)
    except LpeEvalError as error:
        return f"{name} (cannot be opened: {error})"
    return f"{name} ({found.vocab_size:,} symbols, fingerprint {found.fingerprint[:12]})"


def stored_types(located: Located) -> list[str]:
    """The floating types of a local checkpoint's weight files, sorted; empty where there are no such files.

    Nothing is loaded: of a safetensors file the header is read, of a pickle the names of storages.

    Raises:
        CheckpointError: a safetensors file is damaged.
    """
    place = Path(split_settings(str(located.path)).address)
    if place.is_dir():
        step = find_step(place)
        folder = place if step is None else step.folder
        found = [sorted(folder.glob(pattern)) for pattern in _WEIGHT_FILES]
        files = next((each for each in found if each), [])
    else:
        files = [place] if place.suffix == ".pt" and place.is_file() else []
    named = {name for file in files for name in (_header(file) if file.suffix == ".safetensors" else texts_in(file))}
    return sorted({_STORED_AS[name] for name in named if name in _STORED_AS})


def _header(file: Path) -> set[str]:
    try:
        with safe_open(file, framework="pt") as weights:
            names = list(weights.keys())
            return {weights.get_slice(name).get_dtype() for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is not a readable safetensors file: {error}") from error


def _position_tensors(model: LanguageModel) -> Iterator[tuple[str, str, str, str, str]]:
    if isinstance(model, TransformerModel):
        layers = model.model.layer_encodings
        distinct = list(dict.fromkeys(layers))
        for encoding in distinct:
            where = "all layers" if len(distinct) == 1 else f"layer {layers.index(encoding)}"
            for name, tensor in (*encoding.named_parameters(), *encoding.named_buffers()):
                yield _row(where, name, tensor)
        return
    inner = getattr(model, "model", None)
    if not isinstance(inner, nn.Module):
        return
    for module in rotary_modules(inner):
        for name, tensor in module.named_buffers(recurse=False):
            yield _row(type(module).__name__, name, tensor)
    for name, tensor in inner.named_parameters():
        if _OF_POSITIONS.search(name):
            yield _row("model", name, tensor)


def _row(where: str, name: str, tensor: Tensor) -> tuple[str, str, str, str, str]:
    shape = " x ".join(map(str, tensor.shape)) or "one number"
    return where, name, shape, "yes" if isinstance(tensor, nn.Parameter) else "no", _values(tensor)


def _values(tensor: Tensor) -> str:
    numbers = tensor.detach().double().flatten()
    if len(numbers) <= _FEW:
        return " ".join(f"{value:.4g}" for value in numbers.tolist())
    return f"{numbers.min():.4g} to {numbers.max():.4g}, mean {numbers.mean():.4g}"


def _planned(spec: PerplexitySpec, options: LoadOptions) -> Table:
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
    return title, ("protocol", "length", "stride", "windows", "scored tokens"), rows


def _natural(item: tuple[str, str]) -> list[tuple[int, str]]:
    """Sorts by what a key became, layer 2 before layer 10."""
    theirs, ours = item
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", f"{ours} {theirs}")]
