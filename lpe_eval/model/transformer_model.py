"""A reference transformer behind the language-model contract, and how it is filled with weights."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.errors import CheckpointError
from lpe_eval.model.checkpoint import LoadOptions
from lpe_eval.model.language_model import LanguageModel, ModelFacts
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
        encoding = model.layer_encodings[0]
        self.facts = ModelFacts(
            name=spec.name,
            format=format,
            encoding=encoding.label,
            train_length=spec.model.train_length,
            vocab_size=spec.model.vocab_size,
            tokenizer=spec.tokenizer,
            n_parameters=sum(each.numel() for each in model.parameters()),
            digest=digest,
            causal=spec.model.causal,
            prefix_stable=encoding.prefix_stable,
        )

    @property
    def attention(self) -> str:
        return "+".join(self.model.path_names())

    def hidden(self, tokens: Int[Tensor, "b t"], rows: int, generator: torch.Generator) -> Float[Tensor, "b r e"]:
        return self.model(tokens, generator, rows)

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
        told = [f"{kind}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}" for kind, names in
                (("missing", missing), ("unexpected", unexpected)) if names]  # fmt: skip
        raise CheckpointError(f"{path} does not fit its config; {'; '.join(told)}")
    for name, tensor in wanted.items():
        if tensor.shape != weights[name].shape:
            raise CheckpointError(
                f"{path}: {called.get(name, name)} has shape {list(weights[name].shape)}, "
                f"the config makes it {list(tensor.shape)}"
            )
        with torch.no_grad():
            tensor.copy_(weights[name])
