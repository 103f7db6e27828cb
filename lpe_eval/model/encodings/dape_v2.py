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
    * `residual` as in dape. `activation: leaky_relu` of a wrapped fire gives the released FIRE_DAPEV2.
    * The formula is `corrected`; `model/fast/row_network.py` computes the same sums in less time.
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
from lpe_eval.model.fast.computed_by import computed_by
from lpe_eval.model.fast.row_network import RowNetwork, corrected_rows


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
    def lookbehind(self) -> int:
        # Of the cells before the first key that is seen, the second convolution reads the hidden layer.
        return max(self.inner.lookbehind, self.options.kernel - 1 - self._after)

    @property
    def prefix_stable(self) -> bool:
        return self.inner.prefix_stable and self._after == 0

    def initialise(self, generator: torch.Generator) -> None:
        reset_linear(self.first, generator)
        reset_linear(self.second, generator)

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        if self.inner.capabilities.adjusts:
            return self.corrected(self.inner.adjust(scores), None, scores.visible)
        return self.corrected(scores.logits, scores.bias if self.reads_bias else None, scores.visible)

    @computed_by(lambda self, logits, bias, visible: corrected_rows(self.network(), logits, bias, visible))
    def corrected(
        self,
        logits: Float[Tensor, "b h q k"],
        bias: Float[Tensor, "h q k"] | None,
        visible: Bool[Tensor, "q k"],
    ) -> Float[Tensor, "b h q k"]:
        """The positioned logits, from those of the wrapped encoding and its bias."""
        read = logits if bias is None else torch.cat([logits, bias.expand_as(logits)], dim=1)
        read = torch.where(visible, read, 0.0) if self.geometry.causal else read
        hidden = F.leaky_relu(self.first(self._padded(read)), 0.01)
        positioned = logits + self.second(self._padded(hidden))
        return positioned + bias if bias is not None and self.options.residual else positioned

    def network(self) -> RowNetwork:
        """f, and what it is fed with."""
        first, second = self.first, self.second
        assert first.bias is not None
        assert second.bias is not None
        layers = (first.weight, first.bias, second.weight, second.bias, 0.01)
        return RowNetwork(*layers, self.options.residual, self._after, self.geometry.causal)

    @property
    def _after(self) -> int:
        return self.options.kernel // 2 if self.options.padding == "symmetric" else 0

    def _padded(self, channels: Float[Tensor, "b c q k"]) -> Float[Tensor, "b c q p"]:
        return F.pad(channels, (self.options.kernel - 1 - self._after, self._after))
