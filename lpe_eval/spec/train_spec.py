"""What a training run is: a model, a corpus, and an optimiser's schedule."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from lpe_eval.screen import visible
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.model_spec import ModelSpec
from lpe_eval.spec.tasks import LARGEST_SEED

_MOST_WEIGHTS, _MOST_LAYERS = 10**12, 10**5
"""Models with more of them are taken for a slip of the keyboard."""


class TrainSpec(BaseModel):
    """Trains a language model on a corpus.

    The defaults are the recipe of the released checkpoints: AdamW (0.9, 0.95), weight decay 0.1 on
    matrices, gradients clipped to norm 1, linear warm-up, cosine decay to a tenth.

    Attributes:
        kind: `train`.
        name: of the model, in tables.
        model: its shape and its encoding.
        corpus: the text, with a train and a valid split: `python-stdlib`, a path, `hub:org/name`, or the fields below.
        tokenizer: `bytes`, `char:FILE`, `hf:PATH`, `bpe:tokenizer.json`; kept inside the checkpoint.
        steps: optimiser steps.
        batch_tokens: tokens of a step, a multiple of the model's `train_length`.
        learning_rate: the peak of the schedule.
        final_rate: what part of the peak is left at the last step.
        warmup_steps: steps in which the rate rises to its peak.
        weight_decay: on matrices.
        clip_norm: norm at which gradients are clipped.
        seed: of weights and of the order of the text.
        validate_every: steps between two validations.
        validation_tokens: how much of the valid split a validation reads.
        weights_dtype: what the checkpoint stores.
        compute_dtype: of products; weights, optimiser, norms, softmax and loss are float32.
        attention: a path from `list attentions`, or `auto`.
        deterministic: the same bits on CUDA too; changes nothing on a CPU, where a training repeats anyway.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["train"] = "train"
    name: str = Field(min_length=1)
    model: ModelSpec
    corpus: CorpusSpec
    tokenizer: str = "bytes"
    steps: int = Field(default=1000, ge=1)
    batch_tokens: int = Field(default=8192, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0, allow_inf_nan=False)
    final_rate: float = Field(default=0.1, ge=0, le=1)
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.1, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    seed: int = Field(default=1, ge=-LARGEST_SEED, le=LARGEST_SEED)
    validate_every: int = Field(default=100, ge=1)
    validation_tokens: int = Field(default=65536, ge=1)
    weights_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    attention: str = "auto"
    deterministic: bool = False

    @model_serializer(mode="wrap")
    def _without_unused(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        # A training that was begun before this field came goes on: its folder holds this text.
        return {name: value for name, value in write(self).items() if name != "deterministic" or value}

    @model_validator(mode="after")
    def _whole_windows(self) -> "TrainSpec":
        if self.batch_tokens % self.model.train_length:
            raise ValueError(
                f"batch_tokens {self.batch_tokens} is not a multiple of train_length {self.model.train_length}"
            )
        refuse_huge(self.model)
        if visible(self.name) != self.name:
            raise ValueError(f"the name {visible(self.name)} has characters that cannot be printed; choose another one")
        return self


def refuse_huge(model: ModelSpec) -> None:
    """Raises ValueError where a shape has more weights than any machine holds."""
    if model.least_weights > _MOST_WEIGHTS or model.layers > _MOST_LAYERS:
        size = f"{min(model.layers, 10**30):.1e} layers and {min(model.least_weights, 10**30):.1e} weights"
        raise ValueError(f"a model of {size} cannot be held; lower its width or its number of layers")
