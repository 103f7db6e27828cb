"""The shape of a reference transformer and of the native checkpoint that holds one."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lpe_eval.spec.encoding_spec import EncodingSpec

CHECKPOINT_SCHEMA = 1


class ModelSpec(BaseModel):
    """A reference transformer.

    The defaults are the shape of the released checkpoints: pre-norm, exact GELU, embeddings tied
    to the head, no dropout.
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
    activation: Literal["gelu", "relu"] = "gelu"
    tied_embeddings: bool = True

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "ModelSpec":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        return self


class CheckpointSpec(BaseModel):
    """`config.yaml` of a native checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(default=CHECKPOINT_SCHEMA, alias="schema")
    name: str
    tokenizer: str = "bytes"
    model: ModelSpec
