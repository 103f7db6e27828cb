"""Scalings of RoPE's frequencies, so that a model reaches further than it was trained.

They follow, formula by formula, huggingface/transformers 5.23 (`modeling_rope_utils.py`) and jquesnelle/yarn at
995db5b (`scaled_rope/`); each class names its own source.

Choices:
    * `original_length` is the length the model was trained on before scaling. When it is not given,
      the geometry's train length is used.
    * The two releases state the dynamic NTK rule differently (from L0 on, or max(L, L0)), but it is
      one function, so there is one class. Both also remember the longest input they have seen and
      keep its frequencies for shorter ones later; here the frequencies depend on the input alone.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from lpe_eval.errors import SpecError
from lpe_eval.model.rotary import Frequencies, inverse_frequencies


class Scaling(BaseModel, ABC):
    """A rule that changes RoPE's frequencies so that a model reaches further than it was trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depends_on_length: ClassVar[bool] = False
    """Whether the frequencies change with the length of the input."""

    original_length: int | None = Field(default=None, ge=1)

    @abstractmethod
    def frequencies(self, dims: int, base: float, original: int, length: int) -> Frequencies:
        """The scaled frequencies.

        Args:
            dims: number of rotated channels, twice the number of frequencies.
            base: RoPE's base.
            original: the length before scaling, `original_length` or what stands in for it.
            length: number of positions in use, the largest position plus one.

        Raises:
            SpecError: the options do not fit `dims`.
        """


class Linear(Scaling):
    """Position interpolation: every frequency divided by `factor` (Chen et al. 2023, arXiv 2306.15595)."""

    type: Literal["linear"] = "linear"
    factor: float = Field(gt=0)

    def frequencies(self, dims: int, base: float, original: int, length: int) -> Frequencies:
        return Frequencies(inverse_frequencies(dims, base) / self.factor)


class Ntk(Scaling):
    """NTK-aware scaling: the base times alpha^(D / (D - 2)) (bloc97 2023; `LlamaNTKScaledRotaryEmbedding`)."""

    type: Literal["ntk"] = "ntk"
    alpha: float = Field(gt=0)

    def frequencies(self, dims: int, base: float, original: int, length: int) -> Frequencies:
        return Frequencies(inverse_frequencies(dims, _ntk_base(dims, base, self.alpha)))


class DynamicNtk(Scaling):
    """NTK-aware scaling whose alpha is f * L / L0 - (f - 1) once the input is longer than L0.

    With `factor` 1 this is not RoPE: beyond L0 the base still grows by L / L0.
    """

    depends_on_length: ClassVar[bool] = True

    type: Literal["dynamic_ntk"] = "dynamic_ntk"
    factor: float = Field(gt=0)

    def frequencies(self, dims: int, base: float, original: int, length: int) -> Frequencies:
        alpha = self.factor * max(length, original) / original - (self.factor - 1)
        return Frequencies(inverse_frequencies(dims, _ntk_base(dims, base, alpha)))


class Yarn(Scaling):
    """YaRN (Peng et al. 2023, arXiv 2309.00071): slow channels interpolated, fast ones kept, a ramp between.

    `mscale` and `mscale_all_dim` are DeepSeek's: given both, the attention factor is the quotient of
    the two magnitudes. `attention_factor` overrides either rule. `truncate` rounds the ends of the
    ramp outwards to whole channels, as all code did before it became an option.
    """

    type: Literal["yarn"] = "yarn"
    factor: float = Field(gt=0)
    beta_fast: float = Field(default=32.0, gt=0)
    beta_slow: float = Field(default=1.0, gt=0)
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None

    def frequencies(self, dims: int, base: float, original: int, length: int) -> Frequencies:
        kept = _kept(dims, base, original, self.beta_fast, self.beta_slow, self.truncate)
        plain = inverse_frequencies(dims, base)
        return Frequencies(plain / self.factor * (1 - kept) + plain * kept, self._magnitude())

    def _magnitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return _yarn_magnitude(self.factor, self.mscale) / _yarn_magnitude(self.factor, self.mscale_all_dim)
        return _yarn_magnitude(self.factor)


class DynamicYarn(Scaling):
    """YaRN with the factor L / L0 once the input is longer than L0 (`LlamaDynamicYaRNScaledRotaryEmbedding`)."""

    depends_on_length: ClassVar[bool] = True

    type: Literal["dynamic_yarn"] = "dynamic_yarn"
    beta_fast: float = Field(default=32.0, gt=0)
    beta_slow: float = Field(default=1.0, gt=0)

    def frequencies(self, dims: int, base: float, original: int, length: int) -> Frequencies:
        now = Yarn(factor=max(1.0, length / original), beta_fast=self.beta_fast, beta_slow=self.beta_slow)
        return now.frequencies(dims, base, original, length)


class NtkByParts(Scaling):
    """NTK-by-parts: linear for slow channels, NTK-aware between, unchanged for fast ones.

    Source: `LlamaPartNTKScaledRotaryEmbedding`. `beta` and `gamma` are rotations over the original
    length between which the first pair and the second pair of rules are blended.
    """

    type: Literal["ntk_by_parts"] = "ntk_by_parts"
    factor: float = Field(gt=0)
    beta: tuple[float, float] = (1.25, 0.75)
    gamma: tuple[float, float] = (16.0, 2.0)

    def frequencies(self, dims: int, base: float, original: int, length: int) -> Frequencies:
        plain = inverse_frequencies(dims, base)
        ntk = inverse_frequencies(dims, _ntk_base(dims, base, self.factor))
        kept = _kept(dims, base, original, *self.beta)
        inverse = plain / self.factor * (1 - kept) + ntk * kept
        kept = _kept(dims, base, original, *self.gamma)
        return Frequencies(inverse * (1 - kept) + plain * kept)


class Llama3(Scaling):
    """Llama 3.1: wavelengths beyond L0 / low divided by `factor`, below L0 / high kept, smooth between."""

    type: Literal["llama3"] = "llama3"
    factor: float = Field(gt=0)
    low_freq_factor: float = Field(default=1.0, gt=0)
    high_freq_factor: float = Field(default=4.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "Llama3":
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError("high_freq_factor must be greater than low_freq_factor")
        return self

    def frequencies(self, dims: int, base: float, original: int, length: int) -> Frequencies:
        plain = inverse_frequencies(dims, base)
        turns = original * plain / (2 * math.pi)
        kept = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return Frequencies(plain / self.factor * (1 - kept) + plain * kept)


class LongRope(Scaling):
    """LongRoPE (Ding et al. 2024, arXiv 2402.13753) as transformers runs it: one divisor for each frequency.

    `short_factor` serves inputs up to L0, `long_factor` longer ones. The attention factor is
    sqrt(1 + ln f / ln L0) of `factor`, unless given.
    """

    depends_on_length: ClassVar[bool] = True

    type: Literal["longrope"] = "longrope"
    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    factor: float | None = Field(default=None, gt=0)
    attention_factor: float | None = None

    @model_validator(mode="after")
    def _magnitude_is_known(self) -> "LongRope":
        if self.factor is None and self.attention_factor is None:
            raise ValueError("give factor (the extended length over the original one) or attention_factor")
        return self

    def frequencies(self, dims: int, base: float, original: int, length: int) -> Frequencies:
        for name, divisors in (("short_factor", self.short_factor), ("long_factor", self.long_factor)):
            if len(divisors) != dims // 2:
                raise SpecError(
                    f"longrope's {name} has {len(divisors)} numbers; {dims} rotated channels need {dims // 2}"
                )
        divisors = torch.tensor(self.long_factor if length > original else self.short_factor, dtype=torch.float64)
        return Frequencies(inverse_frequencies(dims, base) / divisors, self._magnitude(original))

    def _magnitude(self, original: int) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        assert self.factor is not None
        return 1.0 if self.factor <= 1 else math.sqrt(1 + math.log(self.factor) / math.log(original))


AnyScaling = Annotated[
    Linear | Ntk | DynamicNtk | Yarn | DynamicYarn | NtkByParts | Llama3 | LongRope, Field(discriminator="type")
]


_YARN_BIBTEX = """
    @misc{peng2023yarn,
      title = {{YaRN: Efficient Context Window Extension of Large Language Models}},
      author = {Peng, Bowen and Quesnelle, Jeffrey and Fan, Honglu and Shippole, Enrico},
      year = {2023},
      eprint = {2309.00071},
      archivePrefix = {arXiv},
    }
"""

SCALING_BIBTEX: Mapping[str, str] = {
    "linear": """
        @misc{chen2023interpolation,
          title = {{Extending Context Window of Large Language Models via Positional Interpolation}},
          author = {Chen, Shouyuan and Wong, Sherman and Chen, Liangjian and Tian, Yuandong},
          year = {2023},
          eprint = {2306.15595},
          archivePrefix = {arXiv},
        }
    """,
    "ntk": _YARN_BIBTEX,
    "dynamic_ntk": _YARN_BIBTEX,
    "dynamic": _YARN_BIBTEX,
    "ntk_by_parts": _YARN_BIBTEX,
    "yarn": _YARN_BIBTEX,
    "dynamic_yarn": _YARN_BIBTEX,
    "longrope": """
        @misc{ding2024longrope,
          title = {{LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens}},
          author = {Ding, Yiran and Zhang, Li Lyna and Zhang, Chengruidong and Xu, Yuanyuan and Shang, Ning
            and Xu, Jiahang and Yang, Fan and Yang, Mao},
          year = {2024},
          eprint = {2402.13753},
          archivePrefix = {arXiv},
        }
    """,
}
"""The paper of each scaling, by our name and transformers'; the NTK rules, published as posts, are told in YaRN's."""


def _ntk_base(dims: int, base: float, alpha: float) -> float:
    if dims <= 2:
        raise SpecError(f"NTK scaling divides by D - 2 and needs more than {dims} rotated channels")
    return base * alpha ** (dims / (dims - 2))


def _kept(
    dims: int, base: float, original: int, fast: float, slow: float, truncate: bool = True
) -> Float[Tensor, " f"]:
    """How much of each frequency is left alone: 1 above `fast` turns over the original length, 0 below `slow`."""

    def channel(turns: float) -> float:
        return dims * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = channel(fast), channel(slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    if low == high:
        high += 0.001
    return 1 - ((torch.arange(dims // 2, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)


def _yarn_magnitude(factor: float, mscale: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
