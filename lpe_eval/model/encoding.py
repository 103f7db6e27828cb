"""The contract of a positional encoding: eight seams, each the identity unless a member overrides it.

    positions(length)       which position each token has          randomized
    embed(x, at)            added to the token embeddings           sinusoidal, learned
    rotate(q, k, at)        turns or scales queries and keys        rope, p_rope, xpos, tempered
    features(x)             numbers of each token, for `adjust`     fox, cable, inkling, path
    bias_by_offset(offset)  a bias that depends on i - j alone      alibi, t5, kerple_*, sandwich, mep
    bias(q_at, k_at)        any other bias known from positions     fire
    adjust(scores)          anything that reads the scores          dape, dape_v2, cope, transformer_xl, fox, path
    kept(lse)               the part of the context that is kept    sinks, stick_breaking

Others add nothing; they describe a seam further, so that a path or a wrapper may compute it in another way:
    ratio_bias()            `bias` in linear pieces of a ratio      fire
    pair_network()          `adjust` as a network of each pair      dape
    level_bias()            `adjust` as a difference of levels      fox, cable
    near_bias()             `adjust` as a bias within an extent     inkling
    rotation()              `rotate` as position times frequency    rope, p_rope
    mapped_distances()      `adjust` as rotations carried on        remap

Conventions every member keeps. The logits of a query at position i and a key at position j are
    adjust(q_i . k_j / sqrt(d), bias(i, j)),   by default their sum,
so a bias is added after the scaling by sqrt(d). `offset` is i - j: zero for a token itself, positive for the past. A
member knows neither mask nor path: the future of a causal model, or what a window hides, is never looked at.

Features belong to tokens and not to positions. They are made of what a layer's queries, keys and values are made of,
the layer's input after its norm (before it in a post-norm model), once for the whole text. A path cuts them as it cuts
queries (`query_features`) and keys (`key_features`) and never looks into them. The weights of a row sum to one. What
`kept` returns multiplies the row's context afterwards: with a further logit s in the denominator and nothing in the
sum that is sigmoid(lse - s), where lse is the logarithm of what the row's weights were divided by.

Axis letters, the same in the whole code: b batch, t time (tokens), q query rows, k keys, h heads, d width of one head,
e model width, v vocabulary; n is "any number of".
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lpe_eval.errors import LengthError, SpecError
from lpe_eval.model.descriptions import LevelBias, MappedDistances, NearBias, PairNetwork, RatioBias, Rotation
from lpe_eval.model.offsets import spread_offsets
from lpe_eval.model.positions import run_on
from lpe_eval.model.scores import Capabilities, EncodingOptions, Geometry, Scores


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
    causal_only: ClassVar[bool] = False
    """There is no such form, and a model that sees the future is refused."""
    prefix_stable: ClassVar[bool] = True
    """A prefix scores as it does alone. False where a method looks at the whole length."""
    per_layer: ClassVar[bool] = False
    """Whether the released code gives each layer its own parameters."""

    def __init__(self, geometry: Geometry, options: EncodingOptions) -> None:
        super().__init__()
        if self.causal_only and not geometry.causal:
            name = type(self).__module__.rpartition(".")[2]
            raise SpecError(f"{name} reads a text from left to right and serves causal models only; take another one")
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
            features=mine.features is not Encoding.features,
            keeps=mine.kept is not Encoding.kept,
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
    def lookbehind(self) -> int:
        """Key columns before the first visible one that `bias` and `adjust` need where a layer has a window."""
        return 0

    @property
    def longest_length(self) -> int | None:
        """The length beyond which `positions` raises LengthError; None if there is no end."""
        return None

    def initialise(self, generator: torch.Generator) -> None:
        """Draws the initial parameters of this module (not of wrapped ones) from `generator`."""

    def positions(self, length: int, device: torch.device, generator: torch.Generator) -> Int[Tensor, " t"]:
        """The position of each of `length` tokens; 0 .. length-1 unless positions are sampled.

        A member that makes its own says by `noted` of `positions.py` what need not be asked of a GPU.

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

    def features(self, x: Float[Tensor, "b t e"]) -> Float[Tensor, "b h t n"] | None:
        """Numbers of each token, in float32 at least, from the input of an attention layer; None if there are none."""
        return None

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

    def kept(self, lse: Float[Tensor, "b h q"]) -> Float[Tensor, "b h q"] | None:
        """What each row's context is multiplied by, from the log-sum-exp of its logits; None for one."""
        return None

    def ratio_bias(self) -> RatioBias | None:
        """What `bias` computes, if it is a function of one ratio in linear pieces; else None."""
        return None

    def pair_network(self) -> PairNetwork | None:
        """What `adjust` computes, if it is a network of each pair by itself; else None."""
        return None

    def level_bias(self) -> LevelBias | None:
        """What `adjust` adds to the logits, if it is a difference of two tokens' levels; else None."""
        return None

    def near_bias(self) -> NearBias | None:
        """What `adjust` adds to the logits, if it comes from the query's features by offset and ends; else None."""
        return None

    def rotation(self) -> Rotation | None:
        """How `rotate` turns, if by position times fixed frequencies, whatever multiplies a row besides; else None."""
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
    inner_follows: ClassVar[bool] = True
    """Whether layers share the wrapped encoding as they share the wrapper, unless an option says otherwise."""

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
            features=inner.features or mine.features is not EncodingWrapper.features,
            keeps=inner.keeps or mine.kept is not EncodingWrapper.kept,
        )

    @property
    def embeds(self) -> bool:
        return self.inner.embeds or type(self).embed is not EncodingWrapper.embed

    @property
    def lookahead(self) -> int:
        return self.inner.lookahead

    @property
    def lookbehind(self) -> int:
        return self.inner.lookbehind

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

    def features(self, x: Float[Tensor, "b t e"]) -> Float[Tensor, "b h t n"] | None:
        return self.inner.features(x)

    def bias_by_offset(self, offset: Int[Tensor, " n"]) -> Float[Tensor, "h n"] | None:
        return self.inner.bias_by_offset(offset)

    def bias(self, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Float[Tensor, "h q k"] | None:
        return self.inner.bias(q_at, k_at)

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        return self.inner.adjust(scores)

    def kept(self, lse: Float[Tensor, "b h q"]) -> Float[Tensor, "b h q"] | None:
        return self.inner.kept(lse)

    def ratio_bias(self) -> RatioBias | None:
        return self.inner.ratio_bias() if type(self).bias is EncodingWrapper.bias else None

    def pair_network(self) -> PairNetwork | None:
        return self.inner.pair_network() if type(self).adjust is EncodingWrapper.adjust else None

    def level_bias(self) -> LevelBias | None:
        return self.inner.level_bias() if type(self).adjust is EncodingWrapper.adjust else None

    def near_bias(self) -> NearBias | None:
        return self.inner.near_bias() if type(self).adjust is EncodingWrapper.adjust else None

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
