"""PaTH: on its way to the query a key is reflected at every token in between, at a plane that the token chooses.

Source: Yang, Shen, Wen, Tan, Mishra, Ren, Panda and Kim 2025, "PaTH Attention: Position Encoding via Accumulating
Householder Transformations" (arXiv 2505.16381); fla-org/flash-linear-attention at bc3b101, `ops/path_attn/naive.py` and
`layers/path_attn.py`. With H_l = I - beta_l w_l w_l^T,

    logit_ij = (q_i . H_i H_{i-1} ... H_{j+1} k_j + sum of log f_l over l = j+1 .. i) / sqrt(d),

where w is of unit length, 0 < beta < 2, and f, the forget gate, is there only with `forget_gate`.

Deviations and choices:
    * The sum of the gates is inside the scaling, as in all their code; FoX's is not, and weights do not transfer.
    * w is the norm of a linear map of rank `rank` (32) and a causal convolution over `taps` (3) tokens with SiLU;
      beta is 2 sigmoid of a linear map; both for each head, as in their layer, whose key heads are all heads here.
    * Initial values: linear maps N(0, 0.02) and zero, the convolution as PyTorch has it. The convolution has no bias.
    * Exact and in float32: tokens are passed in groups (`_TOKENS`), from the query backwards, each group by the
      triangular system that gives the same as its reflections one after another. The authors' kernel does so as well.
      Memory is linear in the length; there is no fast form.
    * Where an encoding that wraps it reads a bias, there is none. Causal models only.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import conv1d, linear, logsigmoid, pad, silu

from lpe_eval.model.encoding import Encoding, EncodingOptions
from lpe_eval.model.gpu import device_of_float64
from lpe_eval.model.scores import Geometry, Scores

_TOKENS = 64
"""Tokens whose reflections are passed at once."""

_EPS = 1e-6
"""Added to the square of a length before the root."""


class Path(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        forget_gate: bool = False
        rank: PositiveInt = 32
        taps: PositiveInt = 3

    title: ClassVar[str] = "PaTH"
    paper: ClassVar[str] = "Yang et al. 2025, arXiv 2505.16381"
    bibtex: ClassVar[str] = """
        @misc{yang2025path,
          title = {{PaTH Attention: Position Encoding via Accumulating Householder Transformations}},
          author = {Yang, Songlin and Shen, Yikang and Wen, Kaiyue and Tan, Shawn and Mishra, Mayank and Ren, Liliang
            and Panda, Rameswar and Kim, Yoon},
          year = {2025},
          eprint = {2505.16381},
          archivePrefix = {arXiv},
        }
    """
    per_layer: ClassVar[bool] = True
    causal_only: ClassVar[bool] = True

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: Path.Options = options
        wide = geometry.heads * geometry.head_width
        self.narrow = nn.Linear(geometry.width, options.rank, bias=False)
        self.normal = nn.Linear(options.rank, wide, bias=False)
        self.taps = nn.Parameter(torch.zeros(wide, 1, options.taps))
        self.strength = nn.Linear(geometry.width, geometry.heads)
        if options.forget_gate:
            self.gate = nn.Linear(geometry.width, geometry.heads)

    def initialise(self, generator: torch.Generator) -> None:
        biased = [self.strength, *([self.gate] if self.options.forget_gate else [])]
        for each in (self.narrow, self.normal, *biased):
            nn.init.normal_(each.weight, std=0.02, generator=generator)
        for each in biased:
            nn.init.zeros_(each.bias)
        bound = self.options.taps**-0.5
        nn.init.uniform_(self.taps, -bound, bound, generator=generator)

    def features(self, x: Float[Tensor, "b t e"]) -> Float[Tensor, "b h t n"] | None:
        dtype, heads = torch.promote_types(x.dtype, torch.float32), self.geometry.heads
        x = x.to(dtype)

        def read(layer: nn.Linear) -> Float[Tensor, "b t o"]:
            return linear(x, layer.weight.to(dtype), layer.bias.to(dtype))

        wide = linear(linear(x, self.narrow.weight.to(dtype)), self.normal.weight.to(dtype)).transpose(1, 2)
        early = pad(wide, (self.options.taps - 1, 0))
        convolved = silu(conv1d(early, self.taps.to(dtype), groups=len(self.taps))).transpose(1, 2)
        across = convolved.unflatten(-1, (heads, -1)).transpose(1, 2)
        across = across * (across.square().sum(dim=-1, keepdim=True) + _EPS).rsqrt()
        strength = 2 * torch.sigmoid(read(self.strength)).transpose(1, 2)
        gate = [logsigmoid(read(self.gate)).transpose(1, 2)[..., None]] if self.options.forget_gate else []
        return torch.cat([across, strength[..., None], *gate], dim=-1)

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        features, width = scores.key_features, scores.keys.shape[-1]
        assert features is not None
        past = scores.k_at[None, :] <= scores.q_at[:, None]
        passed = through_reflections(
            scores.queries.to(features.dtype),
            scores.keys.to(features.dtype),
            features[..., :width],
            features[..., width : width + 1],
            past,
        )
        if self.options.forget_gate:
            passed = passed + forgotten(features[..., -1], past)
        logits = (passed * width**-0.5).to(scores.logits.dtype)
        return logits if scores.bias is None else logits + scores.bias


def through_reflections(
    queries: Float[Tensor, "b h q d"],
    keys: Float[Tensor, "b h k d"],
    across: Float[Tensor, "b h k d"],
    strength: Float[Tensor, "b h k 1"],
    past: Bool[Tensor, "q k"],
) -> Float[Tensor, "b h q k"]:
    """q_i . H_i ... H_{j+1} k_j of each pair; of the future it is q_i . k_j.

    Args:
        queries: of the rows, in any order.
        keys: of tokens that follow each other, the rows' own among them.
        across: w of those tokens.
        strength: beta of those tokens.
        past: which tokens are a row's own or before it.
    """
    pieces = []
    for stop in range(keys.shape[2], 0, -_TOKENS):
        some = slice(max(0, stop - _TOKENS), stop)
        plane, key = across[:, :, some], keys[:, :, some]
        scaled, count = strength[:, :, some] * plane, plane.shape[2]
        met = torch.cat([(scaled @ key.mT).tril(-1), scaled], dim=-1)
        # The diagonal of the system is one, whatever stands there.
        solved = torch.linalg.solve_triangular((scaled @ plane.mT).tril(-1), met, upper=False, unitriangular=True)
        reached = (queries @ plane.mT) * past[:, some]
        pieces.append(queries @ key.mT - reached @ solved[..., :count])
        queries = queries - reached @ solved[..., count:]
    return torch.cat(pieces[::-1], dim=-1)


def forgotten(gates: Float[Tensor, "b h k"], past: Bool[Tensor, "q k"]) -> Float[Tensor, "b h q k"]:
    """The sum of the logarithms of the gates after each key up to each query's own."""
    # Apple's devices have no float64, and the sums of a short text need none.
    exact = gates.double() if device_of_float64(gates.device) == gates.device else gates
    sums = exact.cumsum(dim=-1)
    of_rows = exact @ past.to(exact.dtype).mT
    return (of_rows[..., None] - sums[..., None, :]).to(gates.dtype)
