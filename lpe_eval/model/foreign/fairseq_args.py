"""The flags of a fairseq language model, as they stand in its checkpoint.

Source: `models/transformer_lm.py` and `trainer.py` of fairseq in ofirpress/attention_with_linear_biases at
4b92f28. Older checkpoints hold one `argparse.Namespace` under "args"; newer ones hold None there and groups of
settings under "cfg", of which "model" is a mapping or a Namespace. Settings that one group takes from another
are stored as "${task.tokens_per_sample}".

Choices:
    * Only flags that decide what the model computes are read; defaults are those of `base_lm_architecture`.
    * What the reference transformer cannot compute is refused by name.
    * As in fairseq, checkpoints from before the final norm (decoder version 2, or the flag
      no_tie_adaptive_proj) have none.
"""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lpe_eval.errors import CheckpointError
from lpe_eval.spec.model_spec import AdaptiveSpec


def _cutoffs(value: Any) -> Any:
    # "20000,60000" on the command line; a list where a program wrote it.
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Cutoffs = Annotated[list[int] | None, BeforeValidator(_cutoffs)]


class FairseqArgs(BaseModel):
    """The part of a fairseq configuration that a forward pass depends on."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    decoder_embed_dim: int = Field(default=512, ge=1)
    decoder_input_dim: int | None = None
    decoder_output_dim: int | None = None
    decoder_ffn_embed_dim: int = Field(default=2048, ge=1)
    decoder_layers: int = Field(default=6, ge=1)
    decoder_attention_heads: int = Field(default=8, ge=1)
    tokens_per_sample: int = Field(ge=1)
    max_target_positions: int | None = None
    activation_fn: str = "relu"
    adaptive_input: bool = False
    adaptive_input_cutoff: Cutoffs = None
    adaptive_input_factor: float = 4.0
    adaptive_softmax_cutoff: Cutoffs = None
    adaptive_softmax_factor: float = 4.0
    tie_adaptive_weights: bool = False
    tie_adaptive_proj: bool = False
    no_tie_adaptive_proj: bool | None = None
    share_decoder_input_output_embed: bool = False
    no_decoder_final_norm: bool = False
    decoder_final_norm: bool | None = None
    no_scale_embedding: bool = False
    layernorm_embedding: bool = False
    character_embeddings: bool = False
    base_layers: int | None = 0
    decoder_layers_to_keep: str | None = None

    @property
    def activation(self) -> Literal["gelu", "relu", "gelu_tanh"]:
        """The reference transformer's name of the activation."""
        match self.activation_fn:
            case "relu" | "gelu":
                return self.activation_fn
            case _:
                return "gelu_tanh"

    @property
    def final_norm(self) -> bool:
        """Whether there is a norm after the last layer."""
        if self.no_tie_adaptive_proj is not None:
            return False
        return self.decoder_final_norm if self.decoder_final_norm is not None else not self.no_decoder_final_norm

    @property
    def adaptive(self) -> AdaptiveSpec | None:
        """The bands of the vocabulary; None where there is one table."""
        if self.adaptive_input_cutoff is None or not self.adaptive_input:
            return None
        tied = self.tie_adaptive_proj if self.no_tie_adaptive_proj is None else not self.no_tie_adaptive_proj
        return AdaptiveSpec(
            cutoffs=tuple(self.adaptive_input_cutoff),
            factor=self.adaptive_input_factor,
            tied_tables=self.tie_adaptive_weights,
            tied_projections=self.tie_adaptive_weights and tied,
        )


def read_args(state: Mapping[str, Any], path: Path) -> FairseqArgs:
    """The flags in the content of a checkpoint.

    Raises:
        CheckpointError: there are none, one has a wrong value, or one asks for what cannot be computed.
    """
    groups = [_plain(state.get("args"))]
    configuration = _plain(state.get("cfg"))
    groups += [_plain(configuration.get(name)) for name in ("model", "task")]
    merged: dict[str, Any] = {}
    for group in groups:
        for key, value in group.items():
            if not (isinstance(value, str) and value.startswith("${")):
                merged.setdefault(key, value)
    if "decoder_layers" not in merged and "tokens_per_sample" not in merged:
        raise CheckpointError(f"{path} holds no flags of a fairseq language model, in `args` or in `cfg`")
    try:
        args = FairseqArgs.model_validate({key: value for key, value in merged.items() if value is not None})
        _refuse_unsupported(args, path)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{path}, flag {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return args


def _plain(group: Any) -> Mapping[str, Any]:
    if isinstance(group, Namespace):
        return vars(group)
    return group if isinstance(group, dict) else {}


def _refuse_unsupported(args: FairseqArgs, path: Path) -> None:
    width = args.decoder_embed_dim
    bands = args.adaptive
    softmax = (args.adaptive_softmax_cutoff, args.adaptive_softmax_factor)
    reasons = {
        "an activation " + args.activation_fn: args.activation_fn not in ("relu", "gelu", "gelu_fast", "gelu_accurate"),
        "embeddings of another width than the model": any(
            each not in (None, width) for each in (args.decoder_input_dim, args.decoder_output_dim)
        ),
        "adaptive input or softmax alone": (bands is None) != (args.adaptive_softmax_cutoff is None),
        "different bands for input and softmax": bands is not None and softmax != ([*bands.cutoffs], bands.factor),
        "character_embeddings": args.character_embeddings,
        "layernorm_embedding": args.layernorm_embedding,
        "base_layers": bool(args.base_layers),
        "decoder_layers_to_keep": bool(args.decoder_layers_to_keep),
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise CheckpointError(f"{path} has {found[0]}, which the reference transformer cannot compute")
