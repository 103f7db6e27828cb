"""Randomized positions: an ordered random subset of a longer range stands in for 0 .. T-1.

Source: Ruoss et al. 2023, "Randomized Positional Encodings Boost Length Generalization" (arXiv 2305.16843);
google-deepmind/randomized_positional_encodings at e8c6474. It wraps any encoding.

What is drawn (`draw`):
    * "positions": T of 0 .. max_length-1 without replacement, ascending, used as the positions. The
      authors do that for sinusoidal, learned and rotary encodings, and McLeish et al. for FIRE.
    * "distances": T-1 of 1 .. max_length-1 without replacement, ascending; the key n tokens away is at the
      n-th drawn distance, the token itself at 0. The authors do that for ALiBi and Transformer-XL.
    * "auto": distances where the wrapped encoding depends on i - j alone, positions elsewhere.

Deviations and choices:
    * `at_evaluation`: "draw" is the authors' code, which draws at evaluation as well, so a result depends on
      the seed; "plain" uses 0 .. T-1 when the module is not in training mode, as McLeish et al. do.
    * `max_length` 2048 is the authors' (`experiments/example.py`). A longer input raises LengthError while
      positions are drawn; McLeish et al. fall back to 0 .. T-1 instead.
    * `both_sides` draws past and future distances separately (the authors' `randomize_both_sides`).
    * The draw is shared by a batch and all heads. The authors draw anew in every layer; so does every
      call of `positions`, and who calls it decides.
    * The authors' noisy Transformer-XL reads past the end of its table, so that the token itself and all
      future keys share its last row, and a past key at distance x gets row max_length - x. Here it is what
      their comments describe, the signed distance, unless `one_sided` asks for what their code computes:
      randomized(transformer_xl) with the base's distance "future", whose row r stands for a key r tokens ahead.
    * Their random stream is not reproduced, only its distribution.

How distances travel stands in `model/drawn_distances.py`.
"""

import sys
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from lpe_eval.errors import LengthError, SpecError
from lpe_eval.model.drawn_distances import draw_ascending, drawn_offsets, one_row, two_sides
from lpe_eval.model.encoding import Encoding, EncodingOptions, EncodingWrapper
from lpe_eval.model.positions import copied
from lpe_eval.model.scores import Capabilities, Geometry, Scores


class Randomized(EncodingWrapper):
    """See the module's docstring."""

    class Options(EncodingOptions):
        max_length: int = Field(default=2048, ge=1)
        draw: Literal["auto", "positions", "distances"] = "auto"
        at_evaluation: Literal["draw", "plain"] = "draw"
        both_sides: bool = False
        one_sided: bool = False

    title = "Randomized positions"
    paper = "Ruoss et al. 2023, arXiv 2305.16843"
    bibtex: ClassVar[str] = r"""
        @misc{ruoss2023randomized,
          title = {{Randomized Positional Encodings Boost Length Generalization of Transformers}},
          author = {Ruoss, Anian and Del{\'e}tang, Gr{\'e}goire and Genewein, Tim and Grau-Moya, Jordi and
            Csord{\'a}s, R{\'o}bert and Bennani, Mehdi and Legg, Shane and Veness, Joel},
          year = {2023},
          eprint = {2305.16843},
          archivePrefix = {arXiv},
        }
    """
    bidirectional: ClassVar[Literal["published", "ours"]] = "published"

    def __init__(self, geometry: Geometry, options: Options, inner: Encoding) -> None:
        super().__init__(geometry, options, inner)
        self.options: Randomized.Options = options
        uses = inner.capabilities
        needs_positions = inner.embeds or uses.rotates or uses.general_bias
        by_distance = (uses.offset_bias or uses.adjusts) and not needs_positions
        if options.draw == "distances" and needs_positions:
            raise SpecError(
                f"{inner.label} needs positions, so randomized cannot draw distances for it; use draw: positions"
            )
        self.draws_distances = options.draw == "distances" or (options.draw == "auto" and by_distance)
        if options.both_sides and not self.draws_distances:
            raise SpecError("randomized has two sides only when it draws distances; leave out both_sides")
        if options.one_sided and (geometry.causal or not (self.draws_distances and uses.adjusts)):
            raise SpecError(
                "randomized is one_sided only as the released code is: over transformer_xl, where the future is visible"
            )
        if inner.longest_length is not None and inner.longest_length < options.max_length:
            raise SpecError(
                f"randomized draws positions up to {options.max_length - 1}, but {inner.label} has "
                f"{inner.longest_length}; make it longer or lower max_length"
            )

    @property
    def draws_now(self) -> bool:
        """Whether the next positions are random."""
        return self.training or self.options.at_evaluation == "draw"

    @property
    def capabilities(self) -> Capabilities:
        inner = self.inner.capabilities
        return Capabilities(
            rotates=inner.rotates,
            offset_bias=False,
            general_bias=inner.offset_bias or inner.general_bias,
            adjusts=inner.adjusts,
            features=inner.features,
            keeps=inner.keeps,
        )

    @property
    def lookbehind(self) -> int:
        # Drawn distances are found in the positions of all tokens from the first one on.
        return sys.maxsize if self.draws_distances else self.inner.lookbehind

    @property
    def longest_length(self) -> int | None:
        return self.options.max_length if self.draws_now else self.inner.longest_length

    @property
    def prefix_stable(self) -> bool:
        return not self.draws_now and self.inner.prefix_stable

    def positions(self, length: int, device: torch.device, generator: torch.Generator) -> Int[Tensor, " t"]:
        if not self.draws_now:
            plain = self.inner.positions(length, device, generator)
            return two_sides(plain, plain) if self.options.both_sides else plain
        longest = self.options.max_length
        if length > longest:
            raise LengthError(
                f"{self.label} draws without replacement from {longest} positions, too few for {length} tokens; "
                "raise its option max_length"
            )
        if not self.draws_distances:
            drawn = draw_ascending(length, 0, longest, generator)
            return copied(drawn.to(device), drawn)
        past = self._draw_distances(length, generator)
        drawn = two_sides(past, self._draw_distances(length, generator)) if self.options.both_sides else past
        return drawn.to(device)

    def bias_by_offset(self, offset: Int[Tensor, " n"]) -> None:
        return None

    def bias(self, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Float[Tensor, "h q k"] | None:
        if not self.draws_distances:
            return self.inner.bias(q_at, k_at)
        offsets, column = self._offsets(q_at, k_at)
        values = self.inner.bias_by_offset(offsets)
        return None if values is None else values[:, column]

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        if not (self.draws_distances and self.inner.capabilities.adjusts):
            return self.inner.adjust(scores)
        # Drawn distances are no differences of positions, except within one row: there the query can be put at 0.
        offsets, column = self._offsets(scores.q_at, scores.k_at)
        offset = offsets[column]
        return torch.cat([self.inner.adjust(one_row(scores, row, offset[row])) for row in range(len(offset))], dim=2)

    def _offsets(
        self, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]
    ) -> tuple[Int[Tensor, " n"], Int[Tensor, "q k"]]:
        offsets, column = drawn_offsets(q_at, k_at, self.options.both_sides)
        return (offsets.clamp(min=1) - self.options.max_length if self.options.one_sided else offsets), column

    def _draw_distances(self, length: int, generator: torch.Generator) -> Int[Tensor, " t"]:
        drawn = draw_ascending(length - 1, 1, self.options.max_length, generator)
        return torch.cat([drawn.new_zeros(1), drawn])
