"""What a speed measurement is: encodings, lengths, and the shape of the model that holds them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lpe_eval.errors import SpecError
from lpe_eval.spec.encoding_spec import EncodingSpec, split_outside
from lpe_eval.spec.model_spec import ModelSpec
from lpe_eval.spec.ppl_spec import LONGEST_EVER
from lpe_eval.spec.train_spec import refuse_huge

Mode = Literal["forward", "train"]


class SpeedSpec(BaseModel):
    """One `lpe-eval speed`.

    Every encoding is timed in the same model: the shape of the released checkpoints unless it is
    given, a vocabulary of bytes, an MLP four times as wide as the model.

    Attributes:
        kind: `speed`.
        encodings: what is timed, each a name, `dape(kerple_log)`, or a schedule of layers.
        lengths: tokens of the windows.
        modes: `forward` scores without gradients, `train` takes a loss and its gradient.
        width, layers, heads: shape of the model.
        batch_tokens: tokens of a pass: as many windows as fit, and one where a single window is longer.
        rounds: rounds that the medians are over.
        device: `cpu`, `cuda`, `mps`; `auto` takes CUDA where there is one, else the CPU.
        dtype: of weights and products; `auto` is float32 on a CPU and bfloat16 on CUDA.
        attention: a path from `list attentions`, or `auto`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["speed"] = "speed"
    encodings: tuple[EncodingSpec, ...] = Field(min_length=1)
    lengths: tuple[int, ...] = Field(min_length=1)
    modes: tuple[Mode, ...] = Field(default=("forward", "train"), min_length=1)
    width: int = Field(default=128, ge=1)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    batch_tokens: int = Field(default=2048, ge=1)
    rounds: int = Field(default=5, ge=5)
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: str = "auto"

    @field_validator("encodings", "modes")
    @classmethod
    def _each_once(cls, given: tuple) -> tuple:
        return tuple(each for place, each in enumerate(given) if each not in given[:place])

    @field_validator("lengths")
    @classmethod
    def _sorted_and_sane(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        for length in lengths:
            if not 1 <= length <= LONGEST_EVER:
                raise ValueError(f"a length must be between 1 and {LONGEST_EVER}, not {length}")
        return tuple(sorted(set(lengths)))

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "SpeedSpec":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        for encoding in self.encodings:
            refuse_huge(self.model_with(encoding))
        return self

    def model_with(self, encoding: EncodingSpec) -> ModelSpec:
        """The model in which an encoding is measured."""
        return ModelSpec(
            encoding=encoding, width=self.width, layers=self.layers, heads=self.heads, mlp_width=4 * self.width
        )


def parse_encodings(given: list[str]) -> list[EncodingSpec]:
    """Encodings as people write them: several `--encoding`, each one name or several with commas.

    Raises:
        SpecError: a name is none, or there is none.
    """
    names = [name.strip() for each in given for name in split_outside(each) if name.strip()]
    if not names:
        raise SpecError("--encoding names none; write alibi, or dape(kerple_log), or several with commas")
    return [EncodingSpec.parse(name) for name in names]


def parse_modes(text: str) -> list[str]:
    """Modes as people write them: `forward,train`.

    Raises:
        SpecError: a mode does not exist, or there is none.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in ("forward", "train"):
            raise SpecError(f"--mode: there is no {name!r}; known: forward, train")
    if not names:
        raise SpecError("--mode names none; known: forward, train")
    return names
