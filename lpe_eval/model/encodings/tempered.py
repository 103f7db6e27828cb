"""Temperature: every query is multiplied by a factor of its position, around any encoding.

Sources: Su 2021, the logarithm of the length as a scale of attention (bojone/rerope at acfe788, `ntk_patch.py`);
Nakanishi 2025, "Scalable-Softmax Is Superior for Attention" (arXiv 2501.19399); transformers 5.23, `models/llama4`,
`models/ministral3` and `models/inkling`. i counts from 0, and n = i + 1 is the number of keys that a query sees.

    rule         factor of the query                      official floor           where it is used
    log_n        max(1, log(n) / log(floor))              the train length         every layer
    ssmax        s_h * log(n), s_h learned                none                     every layer
    llama4       1 + 0.1 * log(1 + n // floor)            8192                     layers without RoPE
    ministral    1 + 0.1 * log(1 + (n - 1) // floor)      16384                    every layer
    inkling      1 + 0.1 * log(max(1, n / floor))         128000                   layers that see everything

Deviations and choices:
    * `floor`, and `strength` for the 0.1. `counts` says whether a rule reads i ("position", ministral) or i + 1
      ("keys", all others); None is the rule's own.
    * Which layers have it is said by the schedule: `rope[chunk=8192]*3,tempered(none)[rule=llama4]`.
    * A bias is not multiplied, since it is added after the products. Inkling's code multiplies its own bias: that
      is the option `temperature` of the encoding `inkling`.
    * Before or after a rotation is the same thing. The factor is float32 and multiplies in float32; Ministral's code
      rounds it to the model's type first.
    * `ssmax`: no code of the author could be had. `start` of s_h is 1 / mean of log(n) over the train length unless
      given, as the paper's 0.168 for 1024 tokens. One s_h for each layer and head.
    * Positions that are drawn are read as they are drawn; windows change no count.
    * Bidirectional: ours, n is the number of tokens for every query.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from lpe_eval.errors import SpecError
from lpe_eval.model.encoding import Encoding, EncodingOptions, EncodingWrapper
from lpe_eval.model.rotary import Rotation
from lpe_eval.model.scores import Geometry
from lpe_eval.model.temperatures import Rule, above, by_logarithms, in_steps, keys_seen

_RULES: dict[str, tuple[Rule, int | None, str]] = {
    "log_n": (by_logarithms, None, "keys"),
    "llama4": (in_steps, 8192, "keys"),
    "ministral": (in_steps, 16384, "position"),
    "inkling": (above, 128000, "keys"),
}
"""Of each rule without parameters its function, its official floor (None: the train length) and what it counts."""


class Tempered(EncodingWrapper):
    """See the module's docstring."""

    class Options(EncodingOptions):
        rule: Literal["log_n", "ssmax", "llama4", "ministral", "inkling"] = "log_n"
        floor: int | None = Field(default=None, ge=1)
        strength: float = Field(default=0.1, ge=0)
        counts: Literal["keys", "position"] | None = None
        start: float | None = None

    title: ClassVar[str] = "Temperature of queries"
    paper: ClassVar[str] = "Su 2021, and others by rule"
    bibtex: ClassVar[str] = r"""
        @misc{su2021scale,
          title = {{Attention's Scale from the Invariance of Entropy}},
          author = {Su, Jianlin},
          year = {2021},
          note = {In Chinese},
          url = {https://kexue.fm/archives/8823},
        }
    """
    bibtex_with: ClassVar[Mapping[str, str]] = {
        "ssmax": """
        @misc{nakanishi2025ssmax,
          title = {{Scalable-Softmax Is Superior for Attention}},
          author = {Nakanishi, Ken M.},
          year = {2025},
          eprint = {2501.19399},
          archivePrefix = {arXiv},
        }
        """
    }

    per_layer: ClassVar[bool] = True
    inner_follows: ClassVar[bool] = False

    def __init__(self, geometry: Geometry, options: Options, inner: Encoding) -> None:
        super().__init__(geometry, options, inner)
        self.options: Tempered.Options = options
        if options.rule == "ssmax" and (options.floor is not None or options.counts is not None):
            raise SpecError("tempered by ssmax has neither floor nor counts, only start; leave them out")
        if options.rule != "ssmax" and options.start is not None:
            raise SpecError(f"tempered by {options.rule} learns nothing and has no start; leave it out, or take ssmax")
        if self._floor == 1 and options.rule == "log_n":
            raise SpecError("tempered by log_n divides by log(floor), so floor must be 2 or more")
        if options.rule == "ssmax":
            self.scale = nn.Parameter(torch.full((geometry.heads,), self._start))

    def initialise(self, generator: torch.Generator) -> None:
        if self.options.rule == "ssmax":
            nn.init.constant_(self.scale, self._start)

    def rotate(
        self, q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], at: Int[Tensor, " t"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b h t d"]]:
        q, k = self.inner.rotate(q, k, at)
        return (q * self.factor(at)[..., None]).to(q.dtype), k

    def rotation(self) -> Rotation | None:
        # A factor of a query is the same whichever way the query is turned afterwards.
        return self.inner.rotation()

    def factor(self, at: Int[Tensor, " t"]) -> Float[Tensor, "h t"]:
        """What the queries of each head are multiplied by; one row for all heads where nothing is learned."""
        count, rule = keys_seen(at, self.geometry.causal), self.options.rule
        if rule == "ssmax":
            return self.scale[:, None] * count.to(torch.promote_types(self.scale.dtype, torch.float32)).log()
        function, _, counts = _RULES[rule]
        if (self.options.counts or counts) == "position":
            count = count - 1
        return function(count, self._floor, self.options.strength)[None]

    @property
    def _floor(self) -> int:
        official = _RULES[self.options.rule][1] if self.options.rule in _RULES else None
        return self.options.floor or official or self.geometry.train_length

    @property
    def _start(self) -> float:
        if self.options.start is not None:
            return self.options.start
        counts = torch.arange(1, max(2, self.geometry.train_length) + 1, dtype=torch.float64)
        return 1 / float(counts.log().mean())
