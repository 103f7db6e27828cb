"""DAPE V2: DAPE with a network that also reads the neighbouring keys, a convolution along the row.

Source: Zheng et al. 2024, "DAPE V2: Process Attention Score as Feature Map for Length Extrapolation"
(arXiv 2410.04798); code chuanyang-Zheng/DAPE at bde344a, classes Alibi_DAPEV2, Kerple_DAPEV2 and
FIRE_DAPEV2. With s the scaled logits and B the bias that is wrapped

    logits = s + B + f(zeroed [s; B]),
    f = Conv(2H, hidden, 1 x kernel) - LeakyReLU(0.01) - Conv(hidden, H, 1 x kernel),

both convolutions padded with kernel // 2 zeros on each side of the key axis, and the input zeroed
where the key is in the future.

Deviations and choices:
    * Not prefix-stable, as published. The hidden layer is not zeroed again: just after the diagonal it
      holds the first layer's own bias and an echo of the last visible keys, and the second convolution
      reads kernel // 2 of these cells. They hold no future text, since the input is zero there. But
      where the text ends the cells do not exist and count as zero. So the logits of the last
      kernel // 2 positions of a window depend on whether text follows, though not on which text.
      A path that cuts the keys keeps `lookahead` columns after the last query to get the same numbers.
    * `padding: left` pads kernel - 1 zeros before the first key instead, as notes on the paper have it.
      That form is prefix-stable and needs no lookahead; no released code has it.
    * An even kernel would change the number of keys and is refused with symmetric padding.
    * Around an encoding without a bias the first layer has H inputs. The released class for that
      case declares 2H and fails; this is what it computes once the number is mended.
    * Around an encoding that itself adjusts the scores: as in dape, its finished scores take the
      place of s.
    * The part of the first layer that reads the bias is computed once for all sequences.
    * `residual` as in dape. `activation: leaky_relu` of a wrapped fire gives the released FIRE_DAPEV2.
    * On the CPU and without gradients the same sums are made in pieces that fit in the cache (`_in_pieces`).
    * Bidirectional: ours. Nothing is zeroed, because every key is visible.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn

from lpe_eval.errors import SpecError
from lpe_eval.model.encoding import Encoding, EncodingOptions, EncodingWrapper, Geometry, Scores, reset_linear

_HIDDEN_NUMBERS = 1 << 18
"""Numbers of the hidden layer held at once without gradients: 1 MiB of float32, what a core keeps close."""


class DapeV2(EncodingWrapper):
    """See the module's docstring."""

    class Options(EncodingOptions):
        hidden: PositiveInt = 32
        kernel: PositiveInt = 3
        padding: Literal["symmetric", "left"] = "symmetric"
        residual: bool = True

    title: ClassVar[str] = "DAPE V2"
    paper: ClassVar[str] = "Zheng et al. 2024, arXiv 2410.04798"
    bibtex: ClassVar[str] = """
        @misc{zheng2024dapev2,
          title = {{DAPE V2: Process Attention Score as Feature Map for Length Extrapolation}},
          author = {Zheng, Chuanyang and Gao, Yihang and Shi, Han and Xiong, Jing and Sun, Jiankai and
            Li, Jingyao and Huang, Minbin and Ren, Xiaozhe and Ng, Michael and Jiang, Xin and
            Li, Zhenguo and Li, Yu},
          year = {2024},
          eprint = {2410.04798},
          archivePrefix = {arXiv},
        }
    """
    per_layer: ClassVar[bool] = True

    def __init__(self, geometry: Geometry, options: Options, inner: Encoding) -> None:
        super().__init__(geometry, options, inner)
        self.options: DapeV2.Options = options
        if options.padding == "symmetric" and options.kernel % 2 == 0:
            raise SpecError(f"dape_v2 with symmetric padding needs an odd `kernel`, not {options.kernel}")
        seams = inner.capabilities
        self.reads_bias = (seams.offset_bias or seams.general_bias) and not seams.adjusts
        channels = geometry.heads * (2 if self.reads_bias else 1)
        self.first = nn.Conv2d(channels, options.hidden, (1, options.kernel))
        self.second = nn.Conv2d(options.hidden, geometry.heads, (1, options.kernel))

    @property
    def lookahead(self) -> int:
        return max(self.inner.lookahead, self._after)

    @property
    def prefix_stable(self) -> bool:
        return self.inner.prefix_stable and self._after == 0

    def initialise(self, generator: torch.Generator) -> None:
        reset_linear(self.first, generator)
        reset_linear(self.second, generator)

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        if self.inner.capabilities.adjusts:
            logits, bias = self.inner.adjust(scores), None
        else:
            logits, bias = scores.logits, scores.bias
        if not torch.is_grad_enabled() and logits.device.type == "cpu":
            return self._in_pieces(logits, bias, scores)
        heads, weight = self.geometry.heads, self.first.weight
        hidden = self._along_keys(self._zeroed(logits, scores.visible), weight[:, :heads], self.first.bias)
        if self.reads_bias:
            assert bias is not None
            bias = bias.to(weight.dtype)
            hidden = hidden + self._along_keys(self._zeroed(bias, scores.visible)[None], weight[:, heads:], None)
        hidden = F.leaky_relu(hidden, 0.01, inplace=True)
        out = logits + self._along_keys(hidden, self.second.weight, self.second.bias)
        return out + bias if self.reads_bias and bias is not None and self.options.residual else out

    @property
    def _after(self) -> int:
        return self.options.kernel // 2 if self.options.padding == "symmetric" else 0

    def _zeroed(self, channels: Float[Tensor, "*c q k"], visible: Bool[Tensor, "q k"]) -> Float[Tensor, "*c q k"]:
        return torch.where(visible, channels, 0.0) if self.geometry.causal else channels

    def _along_keys(
        self, channels: Float[Tensor, "b c q k"], weight: Float[Tensor, "o c 1 w"], bias: Float[Tensor, " o"] | None
    ) -> Float[Tensor, "b o q k"]:
        padded = F.pad(channels, (self.options.kernel - 1 - self._after, self._after))
        return F.conv2d(padded, weight, bias)

    def _in_pieces(
        self, logits: Float[Tensor, "b h q k"], bias: Float[Tensor, "h q k"] | None, scores: Scores
    ) -> Float[Tensor, "b h q k"]:
        """The same sums without gradients, in pieces of a few rows whose hidden layer fits in the cache.

        The first convolution is one product with the inputs of all taps, shifted copies one above
        the other over a row of ones; the second is one product whose taps are shifted and added.
        """
        batch, heads, rows, columns = logits.shape
        weight, width, taps = self.first.weight, self.options.hidden, self.options.kernel
        first_bias, second_bias = self.first.bias, self.second.bias
        assert first_bias is not None
        assert second_bias is not None
        into_hidden = torch.cat([weight[:, :, 0].permute(0, 2, 1).flatten(1), first_bias[:, None]], dim=1)
        out_of_hidden = self.second.weight[:, :, 0].permute(2, 0, 1).flatten(0, 1)
        step = min(rows, max(1, _HIDDEN_NUMBERS // (width * columns)))
        new = weight.new_zeros
        inputs = new(taps * weight.shape[1] + 1, step, columns)
        inputs[-1] = 1
        layer, parts = new(width, step * columns), new(taps * heads, step * columns)
        out = logits + second_bias[:, None, None]
        if self.reads_bias and bias is not None and self.options.residual:
            out += bias
        # Where each tap finds the cells of a row, and where it puts them.
        shifts = [tap - (taps - 1 - self._after) for tap in range(taps)]
        cells = [
            (slice(max(0, s), max(0, columns + min(0, s))), slice(max(0, -s), max(0, columns - max(0, s))))
            for s in shifts
        ]
        hidden_keys = ~scores.visible
        # Only the last keys are hidden from any row, so only they are gone through again.
        some_hidden = hidden_keys.any(dim=0).nonzero() if self.geometry.causal else hidden_keys.new_zeros(0)
        late = int(some_hidden[0]) if len(some_hidden) else columns
        for start in range(0, rows, step):
            piece = slice(start, min(start + step, rows))
            count = piece.stop - start
            some, unseen = inputs[:, :count], hidden_keys[piece]
            by_tap = some[:-1].unflatten(0, (taps, -1))
            hidden, part = layer[:, : count * columns], parts[:, : count * columns]
            of_tap = part.unflatten(-1, (count, columns)).unflatten(0, (taps, heads))
            if self.reads_bias:
                assert bias is not None
                _spread(by_tap[:, heads:], bias[:, piece], cells, unseen, late)
            for each in range(batch):
                _spread(by_tap[:, :heads], logits[each, :, piece], cells, unseen, late)
                torch.mm(into_hidden, some.flatten(1), out=hidden)
                torch.mm(out_of_hidden, F.leaky_relu_(hidden, 0.01), out=part)
                for tap, (source, target) in enumerate(cells):
                    out[each, :, piece, target] += of_tap[tap, :, :, source]
        return out


def _spread(
    taps: Float[Tensor, "w c q k"],
    channels: Float[Tensor, "c q k"],
    cells: list[tuple[slice, slice]],
    hidden: Bool[Tensor, "q k"],
    late: int,
) -> None:
    """Writes what each tap reads: zero for a hidden key, none of which comes before key `late`.

    The cells that a tap finds outside the row are not written.
    """
    for tap, (source, target) in zip(taps, cells, strict=True):
        tap[..., target] = channels[..., source]
        first = max(late, source.start)
        tap[..., target.start + first - source.start : target.stop].masked_fill_(hidden[:, first : source.stop], 0)
