"""The contract of a positional encoding: six seams, each the identity unless a member overrides it.

    positions(length)       which position each token has          randomized
    embed(x, at)            added to the token embeddings           sinusoidal, learned
    rotate(q, k, at)        turns queries and keys                  rope, xpos
    bias_by_offset(offset)  a bias that depends on i - j alone      alibi, t5, kerple_*, sandwich, mep
    bias(q_at, k_at)        any other bias known from positions     fire
    adjust(scores)          anything that reads the scores          dape, dape_v2, cope, transformer_xl

Others describe a seam further, so that a path may compute it in another way:
    ratio_bias()            `bias` in linear pieces of a ratio      fire
    pair_network()          `adjust` as a network of each pair      dape
    rotation()              `rotate` as position times frequency    rope
    mapped_distances()      `adjust` as rotations carried on        remap

Conventions every member keeps. The logits of a query at position i and a key at position j are
    adjust(q_i . k_j / sqrt(d), bias(i, j)),   by default their sum,
so a bias is added after the scaling by sqrt(d). `offset` is i - j: zero for a token itself, positive for the past. A
member knows neither the mask nor the attention path: what lies in the future of a causal model is never looked at.

Axis letters, the same in the whole code: b batch, t time (tokens), q query rows, k keys, h heads, d width of one head,
e model width, v vocabulary; n is "any number of".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from lpe_eval.errors import LengthError, SpecError
from lpe_eval.model.descriptions import MappedDistances, PairNetwork, RatioBias, Rotation
from lpe_eval.model.offsets import spread_offsets
from lpe_eval.model.positions import run_on


@dataclass(frozen=True)
class Geometry:
    """What an encoding may know of the model it serves.

    Attributes:
        heads: number of attention heads.
        head_width: width d of one head.
        width: model width e.
        train_length: tokens per training window.
        causal: whether a query sees only its past and itself.
    """

    heads: int
    head_width: int
    width: int
    train_length: int
    causal: bool = True


class EncodingOptions(BaseModel):
    """Options that every encoding has; members subclass it inside their class as `Options`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    per_layer: bool | None = None
    """A copy of the parameters for each layer, or one for all; None follows the released code."""


class Scores(NamedTuple):
    """What attention knows about one block of query rows, before the mask.

    `keys` may stop before the end of the sequence: a causal path passes the keys up to the block's last query plus the
    encoding's `lookahead`. Rows may come in any order; backwards, biases by offset need no copy (`spread_offsets`).
    """

    logits: Float[Tensor, "b h q k"]
    """q . k / sqrt(d), rotation included, bias not."""
    bias: Float[Tensor, "h q k"] | None
    queries: Float[Tensor, "b h q d"]
    keys: Float[Tensor, "b h k d"]
    visible: Bool[Tensor, "q k"]
    q_at: Int[Tensor, " q"]
    k_at: Int[Tensor, " k"]


class Capabilities(NamedTuple):
    """Which seams an encoding uses; the attention path is chosen by these, never by name."""

    rotates: bool
    offset_bias: bool
    general_bias: bool
    adjusts: bool


class Encoding(nn.Module):
    """A positional encoding that does nothing: the seams' defaults.

    Args:
        geometry: the model's shape.
        options: an instance of the class's own `Options`.

    Raises:
        SpecError: the options do not fit the geometry.
    """

    Options: ClassVar[type[EncodingOptions]] = EncodingOptions
    title: ClassVar[str] = ""
    """Display name in tables and plots."""
    paper: ClassVar[str] = ""
    """Where the method comes from: authors, year, arXiv id."""
    bibtex: ClassVar[str] = ""
    """The same as BibTeX, for `show --cite`; may hold several entries."""
    bibtex_with: ClassVar[Mapping[str, str]] = {}
    """Further BibTeX, by the option's value (or a text inside it) that brings it in: `{"yarn": "@misc{...}"}`."""
    bidirectional: ClassVar[Literal["published", "ours"]] = "ours"
    """Whether the form used when `geometry.causal` is false comes from the authors."""
    prefix_stable: ClassVar[bool] = True
    """A prefix scores as it does alone. False where a method looks at the whole length."""
    per_layer: ClassVar[bool] = False
    """Whether the released code gives each layer its own parameters."""

    def __init__(self, geometry: Geometry, options: EncodingOptions) -> None:
        super().__init__()
        self.geometry = geometry
        self.options = options

    @property
    def label(self) -> str:
        """Name in tables: `alibi`, `dape(kerple_log)`."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def capabilities(self) -> Capabilities:
        """The seams this encoding overrides."""
        mine = type(self)
        return Capabilities(
            rotates=mine.rotate is not Encoding.rotate,
            offset_bias=mine.bias_by_offset is not Encoding.bias_by_offset,
            general_bias=mine.bias is not Encoding.bias,
            adjusts=mine.adjust is not Encoding.adjust,
        )

    @property
    def embeds(self) -> bool:
        """Whether it adds to the token embeddings, which happens once and not in each layer."""
        return type(self).embed is not Encoding.embed

    @property
    def lookahead(self) -> int:
        """Key columns past the last visible one that `adjust` needs to see."""
        return 0

    @property
    def longest_length(self) -> int | None:
        """The length beyond which `positions` raises LengthError; None if there is no end."""
        return None

    def initialise(self, generator: torch.Generator) -> None:
        """Draws the initial parameters of this module (not of wrapped ones) from `generator`."""

    def positions(self, length: int, device: torch.device, generator: torch.Generator) -> Int[Tensor, " t"]:
        """The position of each of `length` tokens; 0 .. length-1 unless positions are sampled.

        A member that makes its own and knows something of them says it by `noted` of `positions.py`; what is known
        need not be asked of a GPU.

        Raises:
            LengthError: the encoding has no position for some of the tokens.
        """
        if self.longest_length is not None and length > self.longest_length:
            raise LengthError(f"{self.label} has positions for {self.longest_length} tokens, not {length}")
        return run_on(length, device)

    def embed(self, x: Float[Tensor, "b t e"], at: Int[Tensor, " t"]) -> Float[Tensor, "b t e"]:
        """Token embeddings with positions added."""
        return x

    def rotate(
        self, q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], at: Int[Tensor, " t"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b h t d"]]:
        """Queries and keys turned by their positions."""
        return q, k

    def bias_by_offset(self, offset: Int[Tensor, " n"]) -> Float[Tensor, "h n"] | None:
        """The bias at each offset i - j; None if there is none."""
        return None

    def bias(self, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Float[Tensor, "h q k"] | None:
        """The bias between queries at `q_at` and keys at `k_at`; None if there is none."""
        if not self.capabilities.offset_bias:
            return None
        return spread_offsets(self.bias_by_offset, q_at, k_at)

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        """The logits that go to the mask and the softmax; without gradients, called from several threads at once."""
        return scores.logits if scores.bias is None else scores.logits + scores.bias

    def ratio_bias(self) -> RatioBias | None:
        """What `bias` computes, if it is a function of one ratio in linear pieces; else None."""
        return None

    def pair_network(self) -> PairNetwork | None:
        """What `adjust` computes, if it is a network of each pair by itself; else None."""
        return None

    def rotation(self) -> Rotation | None:
        """How `rotate` turns, if by position times frequencies that no length changes; else None."""
        return None

    def mapped_distances(self) -> MappedDistances | None:
        """What `adjust` computes, if it is RoPE at other distances and nothing else; else None."""
        return None


class EncodingWrapper(Encoding):
    """An encoding around another one; forwards every seam, so a subclass overrides only what it changes.

    Args:
        geometry, options: as for `Encoding`.
        inner: the wrapped encoding.
    """

    goes_around: ClassVar[str] = "alibi"
    """An encoding that it can wrap."""

    def __init__(self, geometry: Geometry, options: EncodingOptions, inner: Encoding) -> None:
        super().__init__(geometry, options)
        self.inner = inner

    @property
    def label(self) -> str:
        return f"{super().label}({self.inner.label})"

    @property
    def capabilities(self) -> Capabilities:
        mine, inner = type(self), self.inner.capabilities
        return Capabilities(
            rotates=inner.rotates or mine.rotate is not EncodingWrapper.rotate,
            offset_bias=inner.offset_bias or mine.bias_by_offset is not EncodingWrapper.bias_by_offset,
            general_bias=inner.general_bias or mine.bias is not EncodingWrapper.bias,
            adjusts=inner.adjusts or mine.adjust is not EncodingWrapper.adjust,
        )

    @property
    def embeds(self) -> bool:
        return self.inner.embeds or type(self).embed is not EncodingWrapper.embed

    @property
    def lookahead(self) -> int:
        return self.inner.lookahead

    @property
    def longest_length(self) -> int | None:
        return self.inner.longest_length

    @property
    def prefix_stable(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.prefix_stable

    def positions(self, length: int, device: torch.device, generator: torch.Generator) -> Int[Tensor, " t"]:
        return self.inner.positions(length, device, generator)

    def embed(self, x: Float[Tensor, "b t e"], at: Int[Tensor, " t"]) -> Float[Tensor, "b t e"]:
        return self.inner.embed(x, at)

    def rotate(
        self, q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], at: Int[Tensor, " t"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b h t d"]]:
        return self.inner.rotate(q, k, at)

    def bias_by_offset(self, offset: Int[Tensor, " n"]) -> Float[Tensor, "h n"] | None:
        return self.inner.bias_by_offset(offset)

    def bias(self, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Float[Tensor, "h q k"] | None:
        return self.inner.bias(q_at, k_at)

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        return self.inner.adjust(scores)

    def ratio_bias(self) -> RatioBias | None:
        return self.inner.ratio_bias() if type(self).bias is EncodingWrapper.bias else None

    def pair_network(self) -> PairNetwork | None:
        return self.inner.pair_network() if type(self).adjust is EncodingWrapper.adjust else None

    def rotation(self) -> Rotation | None:
        return self.inner.rotation() if type(self).rotate is EncodingWrapper.rotate else None

    def mapped_distances(self) -> MappedDistances | None:
        return self.inner.mapped_distances() if type(self).adjust is EncodingWrapper.adjust else None


def reset_linear(layer: nn.Linear | nn.Conv2d, generator: torch.Generator) -> None:
    """PyTorch's default initialisation, drawn from a generator: uniform within 1 / sqrt(fan in)."""
    bound = layer.weight[0].numel() ** -0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        if layer.bias is not None:
            layer.bias.uniform_(-bound, bound, generator=generator)


def require_even_width(width: int, what: str) -> None:
    """Raises SpecError where a method pairs channels and the width is odd."""
    if width % 2:
        raise SpecError(f"{what} pairs channels and cannot serve an odd width ({width})")
