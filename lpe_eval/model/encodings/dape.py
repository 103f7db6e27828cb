"""DAPE: a small network that reads all heads' logits and biases of a pair and corrects the bias.

Source: Zheng, Gao, Shi, Huang, Li, Xiong, Ren, Ng, Jiang, Li and Li 2024, "DAPE: Data-Adaptive
Positional Encoding for Length Extrapolation" (arXiv 2405.14722); code chuanyang-Zheng/DAPE at
bde344a, classes AliBi_DAPE, ParallelKerpleLog_DAPE, FIRE_DAPE, Nope_C and DAPEV1. With s the scaled
logits and B the bias of the wrapped encoding,

    logits = s + B + f([s; B]),    f = Linear(2H, hidden) - LeakyReLU(0.01) - Linear(hidden, H),

one f for each layer, the same for every pair (i, j), mixing heads.

Deviations and choices:
    * `residual`: the released code adds B again outside f; the paper first writes s + f(s, B), which
      is `residual: false`.
    * Around an encoding without a bias (none, rope) f has H inputs and the logits are s + f(s), with
      s rotated first, as in the code.
    * Around an encoding that itself adjusts the scores (cope, transformer_xl, another dape), which
      nobody has published, that encoding's finished scores take the place of s and there is no
      bias left: f has H inputs. So f never needs to know how the inner one works.
    * The code copies FIRE with LeakyReLU instead of ReLU inside its own network; write
      `activation: leaky_relu` for the fire that is wrapped to get that.
    * The formula is `corrected`; `model/fast/pair_network.py` computes the same sums in less time.
    * Bidirectional: unchanged; f is pointwise and never knew the direction. The authors' code for
      this is not public.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from lpe_eval.model.descriptions import PairNetwork
from lpe_eval.model.encoding import Encoding, EncodingOptions, EncodingWrapper, Geometry, Scores, reset_linear
from lpe_eval.model.fast.computed_by import computed_by
from lpe_eval.model.fast.pair_network import corrected_pairs


class Dape(EncodingWrapper):
    """See the module's docstring."""

    class Options(EncodingOptions):
        hidden: PositiveInt = 32
        residual: bool = True

    title: ClassVar[str] = "DAPE"
    paper: ClassVar[str] = "Zheng et al. 2024, arXiv 2405.14722"
    bibtex: ClassVar[str] = """
        @misc{zheng2024dape,
          title = {{DAPE: Data-Adaptive Positional Encoding for Length Extrapolation}},
          author = {Zheng, Chuanyang and Gao, Yihang and Shi, Han and Huang, Minbin and Li, Jingyao and
            Xiong, Jing and Ren, Xiaozhe and Ng, Michael and Jiang, Xin and Li, Zhenguo and Li, Yu},
          year = {2024},
          eprint = {2405.14722},
          archivePrefix = {arXiv},
        }
    """
    per_layer: ClassVar[bool] = True

    def __init__(self, geometry: Geometry, options: Options, inner: Encoding) -> None:
        super().__init__(geometry, options, inner)
        self.options: Dape.Options = options
        seams = inner.capabilities
        self.reads_bias = (seams.offset_bias or seams.general_bias) and not seams.adjusts
        self.first = nn.Linear(geometry.heads * (2 if self.reads_bias else 1), options.hidden)
        self.second = nn.Linear(options.hidden, geometry.heads)

    def initialise(self, generator: torch.Generator) -> None:
        reset_linear(self.first, generator)
        reset_linear(self.second, generator)

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        if self.inner.capabilities.adjusts:
            return self.corrected(self.inner.adjust(scores), None)
        return self.corrected(scores.logits, scores.bias if self.reads_bias else None)

    @computed_by(lambda self, logits, bias: corrected_pairs(self.network(), logits, bias))
    def corrected(
        self, logits: Float[Tensor, "b h q k"], bias: Float[Tensor, "h q k"] | None
    ) -> Float[Tensor, "b h q k"]:
        """The positioned logits, from those of the wrapped encoding and its bias."""
        read = logits if bias is None else torch.cat([logits, bias.expand_as(logits)], dim=1)
        hidden = F.leaky_relu(self.first(read.movedim(1, -1)), 0.01)
        positioned = logits + self.second(hidden).movedim(-1, 1)
        return positioned + bias if bias is not None and self.options.residual else positioned

    def network(self) -> PairNetwork:
        """f, and whether B is added outside it."""
        first, second = self.first, self.second
        return PairNetwork(first.weight, first.bias, second.weight, second.bias, 0.01, self.options.residual)

    def pair_network(self) -> PairNetwork | None:
        return None if self.inner.capabilities.adjusts else self.network()
