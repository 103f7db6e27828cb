"""FoX: a forget gate for each token and head, whose logarithms add up to a bias between query and key.

Source: Lin, Nikishin, He and Courville 2025, "Forgetting Transformer: Softmax Attention with a Forget Gate" (arXiv
2503.02130); zhixuan-lin/forgetting-transformer at 883f260, which fla-org/flash-linear-attention at bc3b101 agrees
with. With the input x of the attention layer, after its norm,

    f_l = sigmoid(w_h . x_l + b_h),     logit_ij = q_i . k_j / sqrt(d) + sum of log f_l over l = j+1 .. i,

so a token's own gate does not count against its own key, and the first gate never matters.

Deviations and choices:
    * This is their FoX (LLaMA), the gate alone. FoX (Pro) has norms of queries, keys and outputs, an output gate and
      shifted keys and values besides.
    * `bias_init` is b at the start: 0 in the authors' code, so that with w ~ N(0, 0.02) the memory halves at every
      token; x-transformers starts at 5 (f = 0.993).
    * `gate`: "full" reads the token. "per_head" learns b alone and "fixed" learns nothing; both are a constant slope
      log sigmoid(b_h) for each head, as ALiBi has it, and a bias by offset.
    * `decay_times` (shortest, longest) start b at -log(expm1(1 / t)), t spaced evenly in its logarithm from the first
      head to the last, so that a constant gate has the slope 1 / t. `fixed` needs them.
    * `rope` turns queries and keys as well, by `theta` 500000; the authors leave it off.
    * Gates are per query head and layer. Their logarithms are float32 and their sums float64; `model/token_levels.py`.
    * Bidirectional: ours, the gates between two tokens on either side.
"""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from lpe_eval.errors import SpecError
from lpe_eval.model.descriptions import LevelBias
from lpe_eval.model.encoding import Encoding, EncodingOptions
from lpe_eval.model.offsets import distances
from lpe_eval.model.rotary import Rotation, angles, inverse_frequencies, require_even_width, turn
from lpe_eval.model.scores import Capabilities, Geometry, Scores
from lpe_eval.model.token_levels import described, log_sigmoid_of, summed_up, with_levels


class Fox(Encoding):
    """See the module's docstring."""

    class Options(EncodingOptions):
        gate: Literal["full", "per_head", "fixed"] = "full"
        bias_init: float = 0.0
        decay_times: tuple[PositiveFloat, PositiveFloat] | None = None
        rope: bool = False
        theta: float = Field(default=500000.0, gt=1)

    title: ClassVar[str] = "FoX"
    paper: ClassVar[str] = "Lin et al. 2025, arXiv 2503.02130"
    bibtex: ClassVar[str] = """
        @misc{lin2025fox,
          title = {{Forgetting Transformer: Softmax Attention with a Forget Gate}},
          author = {Lin, Zhixuan and Nikishin, Evgenii and He, Xu Owen and Courville, Aaron},
          year = {2025},
          eprint = {2503.02130},
          archivePrefix = {arXiv},
        }
    """
    per_layer: ClassVar[bool] = True

    bias_of_gate: Tensor

    def __init__(self, geometry: Geometry, options: Options) -> None:
        super().__init__(geometry, options)
        self.options: Fox.Options = options
        if options.rope:
            require_even_width(geometry.head_width, "fox with rope")
        if options.gate == "fixed" and options.decay_times is None:
            raise SpecError("fox with fixed gates needs the times they forget in: decay_times: [2, 1024]")
        start = self._start()
        if options.gate == "full":
            self.gate = nn.Linear(geometry.width, geometry.heads)
        elif options.gate == "per_head":
            self.bias_of_gate = nn.Parameter(start)
        else:
            self.register_buffer("bias_of_gate", start, persistent=False)

    @property
    def capabilities(self) -> Capabilities:
        full = self.options.gate == "full"
        return super().capabilities._replace(
            rotates=self.options.rope, offset_bias=not full, adjusts=full, features=full
        )

    def initialise(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            if self.options.gate == "full":
                nn.init.normal_(self.gate.weight, std=0.02, generator=generator)
                self.gate.bias.copy_(self._start())
            else:
                self.bias_of_gate.copy_(self._start())

    def rotate(
        self, q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], at: Int[Tensor, " t"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b h t d"]]:
        if not self.options.rope:
            return q, k
        angle = angles(at, self._frequencies())
        cos, sin = angle.cos().to(q.dtype), angle.sin().to(q.dtype)
        return turn(q, cos, sin, "half_split"), turn(k, cos, sin, "half_split")

    def features(self, x: Float[Tensor, "b t e"]) -> Float[Tensor, "b h t n"] | None:
        return summed_up(log_sigmoid_of(x, self.gate)) if self.options.gate == "full" else None

    def bias_by_offset(self, offset: Int[Tensor, " n"]) -> Float[Tensor, "h n"] | None:
        if self.options.gate == "full":
            return None
        return logsigmoid(self.bias_of_gate)[:, None] * distances(offset, self.geometry.causal)

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        if self.options.gate != "full":
            return super().adjust(scores)
        return with_levels(scores, self.geometry.causal)

    def level_bias(self) -> LevelBias | None:
        return described(self.geometry.causal) if self.options.gate == "full" else None

    def rotation(self) -> Rotation | None:
        return Rotation(self._frequencies(), "half_split") if self.options.rope else None

    def _frequencies(self) -> Float[Tensor, " f"]:
        return inverse_frequencies(self.geometry.head_width, self.options.theta)

    def _start(self) -> Float[Tensor, " h"]:
        heads, times = self.geometry.heads, self.options.decay_times
        if times is None:
            return torch.full((heads,), self.options.bias_init)
        shortest, longest = (math.log(each) for each in times)
        spaced = torch.linspace(shortest, longest, heads, dtype=torch.float64).exp()
        return -torch.expm1(1 / spaced).log().float()
