"""A reference transformer behind the language-model contract, and how it is filled with weights."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.errors import CheckpointError
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.language_model import LanguageModel, LastQuery, ModelFacts, PositionTensor, shape_in_words
from lpe_eval.model.last_query import reading, refuse_unreadable
from lpe_eval.model.transformer import Transformer
from lpe_eval.spec.model_spec import CheckpointSpec


class TransformerModel(LanguageModel):
    """A filled transformer that can be measured.

    Args:
        model: the transformer, on its device.
        spec: what a native checkpoint of it would say.
        digest: sha256 over weights and config.
        options: how it was opened.
        format: the checkpoint format that opened it.
        mapped: for another program's checkpoint, each of its keys and what it became here.
    """

    def __init__(
        self,
        model: Transformer,
        spec: CheckpointSpec,
        digest: str,
        options: LoadOptions,
        format: str,
        mapped: Mapping[str, str] | None = None,
    ) -> None:
        self.model, self.spec, self.mapped = model, spec, dict(mapped or {})
        self.device, self.dtype = options.device, options.dtype
        schedule = spec.model.encoding
        self.facts = ModelFacts(
            name=spec.name,
            format=format,
            encoding=str(schedule) if schedule.layers else model.layer_encodings[0].label,
            train_length=spec.model.train_length,
            vocab_size=spec.model.vocab_size,
            tokenizer=spec.tokenizer,
            n_parameters=sum(each.numel() for each in model.parameters()),
            digest=digest,
            causal=spec.model.causal,
            prefix_stable=all(each.prefix_stable for each in model.layer_encodings),
        )

    @property
    def attention(self) -> str:
        return "+".join(self.model.path_names())

    def least_bytes(self, length: int) -> int:
        shape, item = self.spec.model, self.dtype.itemsize
        # Hidden states and keys; of the last layer only some rows may be wanted.
        dense = 4 * shape.heads * length**2 if self.attention == "dense" and shape.layers > 1 else 0
        return 2 * item * length * shape.width + dense

    def architecture(self) -> list[tuple[str, str]]:
        shape = self.spec.model
        head = "adaptive" if shape.adaptive else "tied to the input" if shape.tied_embeddings else "its own"
        norm = f"{shape.norm}-norm" + (" without a final one" if shape.norm == "pre" and not shape.final_norm else "")
        residual = ", attention and MLP in parallel" if shape.parallel_residual else ""
        sizes = shape_in_words(shape.layers, shape.width, shape.heads)
        return [
            ("architecture", f"reference transformer, {'causal' if shape.causal else 'bidirectional'}"),
            ("shape", f"{sizes}, MLP {shape.mlp_width} ({shape.activation})"),
            ("layer", f"{norm}, eps {shape.norm_eps:g}{residual}"),
            ("head", head),
        ]

    def method(self) -> list[tuple[str, str]]:
        layers = list(dict.fromkeys(self.model.layer_encodings))
        methods = [next((each for each in layer.modules() if isinstance(each, Encoding) and each.paper), layer)
                   for layer in layers]  # fmt: skip
        told = dict.fromkeys(f"{method.title} ({method.paper})" for method in methods if method.paper)
        options = self.spec.model.encoding.model_dump()
        rows = [("method", " and ".join(told))] if told else []
        if len(options) > 1 or isinstance(options, list):
            rows.append(("options of the encoding", json.dumps(options)))
        longest = [each.longest_length for each in layers if each.longest_length is not None]
        if longest:
            rows.append(("longest text", f"{min(longest):,} tokens"))
        return rows

    def position_tensors(self) -> Iterator[PositionTensor]:
        layers = self.model.layer_encodings
        distinct = list(dict.fromkeys(layers))
        for encoding in distinct:
            where = "all layers" if len(distinct) == 1 else f"layer {layers.index(encoding)}"
            for name, tensor in (*encoding.named_parameters(), *encoding.named_buffers()):
                yield PositionTensor(where, name, tensor)

    def hidden(self, tokens: Int[Tensor, "b t"], rows: int, generator: torch.Generator) -> Float[Tensor, "b r e"]:
        return self.model(tokens, generator, rows)

    def last_query(
        self, tokens: Int[Tensor, "1 t"], generator: torch.Generator, take: Callable[[LastQuery], None]
    ) -> None:
        refuse_unreadable(self.model.layer_encodings, self.facts.name)
        with reading(self.model, take):
            self.model(tokens, generator, 1)

    def logits(self, hidden: Float[Tensor, "n e"]) -> Float[Tensor, "n v"]:
        return self.model.logits(hidden)


def state_of(model: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, one that several modules share only once."""
    persistent = model.state_dict().keys()
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor for name, tensor in named.items() if name in persistent}


def fill(
    model: Transformer, weights: Mapping[str, Tensor], path: Path, foreign: Mapping[str, str] | None = None
) -> None:
    """Copies weights into the model: all that it has, and nothing else.

    Args:
        model: what is filled.
        weights: by the model's own names.
        path: where they come from, for messages.
        foreign: what a weight is called there, for messages.

    Raises:
        CheckpointError: a weight is missing, unexpected, or of another shape.
    """
    wanted = state_of(model)
    called = foreign or {}
    missing, unexpected = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if missing or unexpected:
        faults = [f"{kind}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}" for kind, names in
                (("missing", missing), ("unexpected", unexpected)) if names]  # fmt: skip
        raise CheckpointError(f"{path} does not fit its config; {'; '.join(faults)}")
    for name, tensor in wanted.items():
        if tensor.shape != weights[name].shape:
            raise CheckpointError(
                f"{path}: {called.get(name, name)} has shape {list(weights[name].shape)}, "
                f"the config makes it {list(tensor.shape)}"
            )
        with torch.no_grad():
            tensor.copy_(weights[name])
