"""Stick-breaking: weights without a softmax, each key taking a part of what nearer keys have left.

Source: Tan, Yang, Courville, Panda and Shen 2024, "Scaling Stick-breaking Attention: An Efficient Implementation and
In-depth Study" (arXiv 2410.17980); shawntan/stickbreaking-attention at 3147a38, `sb_ref.py`. With z the scaled logits,

    A_ij = sigmoid(z_ij) * product over l = j+1 .. i-1 of (1 - sigmoid(z_il)),  j < i,     rest_i = 1 - sum of A_ij.

There is no positional encoding besides, and nothing is learned.

Deviations and choices:
    * `rest`: "own_value" gives what is left to the query's own value, as in the project's tests, so that a row sums
      to one; "dropped" does not, and the first row, which sees nothing, is zero.
    * `own_key` lets a query see its own key (`attend_current`), and the product runs over j+1 .. i. The default sees
      strictly past keys.
    * Logarithms of the weights take the place of logits, summed from the query backwards, so that no product
      underflows; the softmax over them gives the same weights back.
    * Around an encoding with a bias it would be read with it: z is the logit plus the bias.
    * Causal models only.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from lpe_eval.model.encoding import Encoding, EncodingOptions
from lpe_eval.model.scores import Capabilities, Geometry, Scores

_NOTHING = -1e4
"""The logarithm of a weight that is zero, for a row that has no other."""


class StickBreaking(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        rest: Literal["own_value", "dropped"] = "own_value"
        own_key: bool = False

    title: ClassVar[str] = "Stick-breaking"
    paper: ClassVar[str] = "Tan et al. 2024, arXiv 2410.17980"
    bibtex: ClassVar[str] = """
        @misc{tan2024stickbreaking,
          title = {{Scaling Stick-Breaking Attention: An Efficient Implementation and In-depth Study}},
          author = {Tan, Shawn and Yang, Songlin and Courville, Aaron and Panda, Rameswar and Shen, Yikang},
          year = {2024},
          eprint = {2410.17980},
          archivePrefix = {arXiv},
        }
    """
    causal_only: ClassVar[bool] = True

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: StickBreaking.Options = options

    @property
    def capabilities(self) -> Capabilities:
        return super().capabilities._replace(keeps=self.options.rest == "dropped")

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        z = scores.logits if scores.bias is None else scores.logits + scores.bias
        own = scores.k_at[None, :] == scores.q_at[:, None]
        taking = scores.visible if self.options.own_key else scores.visible & ~own
        left = torch.where(taking, logsigmoid(-z), 0.0).flip(-1).cumsum(dim=-1).flip(-1)
        # What the keys nearer than each key leave, and what all of them leave.
        weight, rest = logsigmoid(z) + pad(left[..., 1:], (0, 1)), left[..., :1]
        if self.options.rest == "own_value":
            of_own = torch.logaddexp(weight, rest) if self.options.own_key else rest
        else:
            of_own = weight if self.options.own_key else torch.full_like(rest, _NOTHING)
        return torch.where(own, of_own, weight)

    def kept(self, lse: Float[Tensor, "b h q"]) -> Float[Tensor, "b h q"] | None:
        return lse.exp() if self.options.rest == "dropped" else None
