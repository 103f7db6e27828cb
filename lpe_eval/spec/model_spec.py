"""The shape of a reference transformer and of the native checkpoint that holds one."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from lpe_eval.spec.encoding_spec import EncodingSpec

CHECKPOINT_SCHEMA = 1

FOLDER = "{folder}"
"""In the name of a tokenizer that a native checkpoint holds: the checkpoint's folder, wherever it is."""


class AdaptiveSpec(BaseModel):
    """Adaptive input and softmax: frequent words get wide vectors, each further band of rare ones narrower.

    What is tied serves input and softmax alike.

    Attributes:
        cutoffs: the first words of all bands but the first.
        factor: the vectors of band i are `factor`^i times narrower than the model.
        tied_tables: whether the tables are tied.
        tied_projections: whether the projections between a table and the model are tied.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cutoffs: tuple[int, ...] = Field(min_length=1)
    factor: float = Field(default=4.0, ge=1)
    tied_tables: bool = True
    tied_projections: bool = True

    @model_validator(mode="after")
    def _bands_in_order(self) -> "AdaptiveSpec":
        if any(low >= high for low, high in zip((0, *self.cutoffs), self.cutoffs, strict=False)):
            raise ValueError(f"cutoffs {list(self.cutoffs)} do not increase from above zero")
        if self.tied_projections and not self.tied_tables:
            raise ValueError("projections can be tied only where the tables are")
        return self


class ModelSpec(BaseModel):
    """A reference transformer.

    The defaults are the shape of the released checkpoints: pre-norm, exact GELU, embeddings tied
    to the head, no dropout. The fields from `norm_eps` on serve checkpoints of other programs and the
    encoder of the algorithmic problems, and are written down only where they differ from the default.

    `layers: rope*3,none` without an `encoding` is that schedule once.

    Attributes:
        encoding: an encoding, or a schedule (an encoding and what is seen for each layer), which is repeated to the
            depth of the model.
        vocab_size: symbols of the input; a training takes it from the tokenizer where it is left out.
        width: of the vectors between layers, a multiple of `heads`.
        layers: how many.
        heads: attention heads of a layer.
        mlp_width: of the hidden layer of an MLP.
        train_length: tokens of a window in training.
        causal: whether a token sees its past alone.
        norm: layer norm before attention and MLP, or after.
        activation: of the MLP.
        tied_embeddings: whether the head has the weights of the embedding.
        norm_eps: added to the variance by layer norm.
        embedding_scale: factor of the embeddings.
        head_bias: whether the head adds a bias to its logits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoding: EncodingSpec
    vocab_size: int = Field(default=258, ge=1)
    width: int = Field(default=128, ge=1)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    mlp_width: int = Field(default=512, ge=1)
    train_length: int = Field(default=512, ge=1)
    causal: bool = True
    norm: Literal["pre", "post"] = "pre"
    activation: Literal["gelu", "relu", "gelu_tanh"] = "gelu"
    tied_embeddings: bool = True
    norm_eps: float = Field(default=1e-5, gt=0)
    final_norm: bool = True
    """Whether a pre-norm model normalises once more before the head."""
    parallel_residual: bool = False
    """x + attention(norm(x)) + mlp(norm(x)) instead of one after the other."""
    embedding_scale: float = 1.0
    adaptive: AdaptiveSpec | None = None
    """In place of one table for input and head; `tied_embeddings` then says nothing."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of numbers set to zero in training: after attention, after the MLP, and after adding absolute positions."""
    attention_bias: bool = True
    """Whether the projections to queries, keys and values and out of attention have biases."""
    head_bias: bool = False
    outputs: int | None = Field(default=None, ge=1)
    """How many symbols the head tells apart, where these are not the `vocab_size` of the input."""
    initial_weights: Literal["normal", "fan_in"] = "normal"
    """"fan_in": truncated normal of deviation 1 / sqrt(fan in), as Haiku; `Transformer.initialise` has the rest."""

    @property
    def least_weights(self) -> int:
        """How many weights it has at least: tables and matrices, without encodings, norms and biases."""
        table = 0 if self.adaptive is not None else self.vocab_size * self.width
        head = (
            0 if self.adaptive is not None or self.tied_embeddings else (self.outputs or self.vocab_size) * self.width
        )
        return table + head + self.layers * (4 * self.width + 2 * self.mlp_width) * self.width

    @model_validator(mode="before")
    @classmethod
    def _layers_are_a_schedule(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "encoding" in value:
            return value
        layers = value.get("layers")
        if isinstance(layers, list) or (isinstance(layers, str) and not layers.strip().isdigit()):
            encoding = EncodingSpec.model_validate(layers)
            return {**value, "encoding": encoding, "layers": encoding.period}
        return value

    @model_validator(mode="after")
    def _schedule_fits(self) -> "ModelSpec":
        if self.layers % self.encoding.period:
            raise ValueError(
                f"the schedule {self.encoding} has {self.encoding.period} layers and the model {self.layers}, which is "
                "no multiple of that; change the one or the other"
            )
        for each in self.encoding.layers:
            if not self.causal and (each.window or each.chunk):
                raise ValueError(f"{each} needs a causal model: windows and chunks are of the past; leave them out")
        return self

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "ModelSpec":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> "ModelSpec":
        if self.parallel_residual and self.norm == "post":
            raise ValueError("parallel_residual needs norm: pre")
        if self.adaptive is not None and self.adaptive.cutoffs[-1] >= self.vocab_size:
            raise ValueError(f"the last cutoff {self.adaptive.cutoffs[-1]} leaves no word of {self.vocab_size}")
        if (self.outputs is not None or self.head_bias) and (self.tied_embeddings or self.adaptive is not None):
            raise ValueError("outputs and head_bias need a head of its own: tied_embeddings: false and no adaptive")
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        # Names and fingerprints of runs hash this text: a field that came later must not change them.
        later = (
            *("norm_eps", "final_norm", "parallel_residual", "embedding_scale", "adaptive"),
            *("dropout", "attention_bias", "head_bias", "outputs", "initial_weights"),
        )
        unused = {name for name in later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in write(self).items() if name not in unused}


class CheckpointSpec(BaseModel):
    """`config.yaml` of a native checkpoint.

    `tokenizer` is what `--tokenizer` takes; where its files are in the checkpoint, it begins with `FOLDER`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(default=CHECKPOINT_SCHEMA, alias="schema")
    name: str
    tokenizer: str = "bytes"
    model: ModelSpec
