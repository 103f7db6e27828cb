"""What a measurement of accuracy is asked: which models, which text, which lengths."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AccuracySpec(BaseModel):
    """How often a model's first guess of the next token is right, at several lengths."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["accuracy"] = "accuracy"
    models: tuple[str, ...] = Field(min_length=1, description="As `ppl -m` takes them.")
    lengths: tuple[int, ...] = Field(default=(128, 512), description="Tokens per window.")
    data: str = Field(default="python-stdlib", description="Text, as `ppl --data` takes it.")
    max_tokens: int = Field(default=20_000, ge=1, description="Tokens of text at every length.")
    seed: int = Field(default=0, description="Of the choice of documents.")
    device: str = Field(default="cpu", description="cpu, cuda, or auto.")
