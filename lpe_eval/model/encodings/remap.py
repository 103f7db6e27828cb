"""RoPE at other distances: near ones as they are, far ones mapped to what training has shown. It wraps RoPE.

Sources: Su 2023, "ReRoPE" and its leaky form (bojone/rerope at acfe788); Jin et al. 2024, "LLM Maybe LongLM:
Self-Extend LLM Context Window Without Tuning" (arXiv 2401.01325; datamllab/LongLM at cdbbb06); An et al. 2024,
"Training-Free Long-Context Scaling of Large Language Models", dual chunk attention (arXiv 2402.17463;
HKUNLP/ChunkLlama at 2add4d7, with the authors' vLLM); Su 2021 for the log-n factor. The formulas stand in
`lpe_eval/model/remaps.py`, the options and their defaults in `lpe_eval/model/remap_options.py`.

Deviations and choices:
    * Queries and keys are turned as RoPE turns them, which is right for near keys; for far ones they are turned on.
    * Whatever frequencies the wrapped RoPE has, scaled ones too, serve both, and p-RoPE's, whose slow channels do not
      turn. Frequencies that change with the length of the text are refused, because a block of rows does not know that
      length. What else the wrapped encoding does stays: a temperature of its queries, gates, sinks.
    * In a layer with a window or chunks, distances are those of the whole text.
    * Self-Extend drops its shift where all positions are near; nothing is far then, so nothing is dropped here.
    * ChunkLlama rounds the weights of its merged parts to bfloat16, and its length factor remembers the longest text
      that it has seen; neither is copied.
    * In a bidirectional model a key of the future is as far from its query as that query would be from it, with the
      other sign. That is ours.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lpe_eval.errors import SpecError
from lpe_eval.model.descriptions import MappedDistances
from lpe_eval.model.encoding import Encoding, EncodingOptions, EncodingWrapper
from lpe_eval.model.gpu import device_of_float64
from lpe_eval.model.remap_options import RemapOptions
from lpe_eval.model.remaps import in_range, keys_within, mirrored
from lpe_eval.model.rotary import turned_to
from lpe_eval.model.scores import Capabilities, Geometry, Scores

_SU_BIBTEX = """
    @misc{su2021logn,
      title = {{Attention's scale from the invariance of entropy}},
      author = {Su, Jianlin},
      year = {2021},
      howpublished = {\\url{https://kexue.fm/archives/8823}},
    }
"""
_REROPE_BIBTEX = """
    @misc{su2023rerope,
      title = {{Rectified Rotary Position Embeddings}},
      author = {Su, Jianlin},
      year = {2023},
      howpublished = {\\url{https://github.com/bojone/rerope}},
    }
"""
REMAP_BIBTEX: Mapping[str, str] = {
    "self_extend": """
        @misc{jin2024selfextend,
          title = {{LLM Maybe LongLM: Self-Extend LLM Context Window Without Tuning}},
          author = {Jin, Hongye and Han, Xiaotian and Yang, Jingfeng and Jiang, Zhimeng and Liu, Zirui and
            Chang, Chia-Yuan and Chen, Huiyuan and Hu, Xia},
          year = {2024},
          eprint = {2401.01325},
          archivePrefix = {arXiv},
        }
    """,
    "rerope": _REROPE_BIBTEX,
    "leaky_rerope": _REROPE_BIBTEX,
    "dca": """
        @misc{an2024dca,
          title = {{Training-Free Long-Context Scaling of Large Language Models}},
          author = {An, Chenxin and Huang, Fei and Zhang, Jun and Gong, Shansan and Qiu, Xipeng and
            Zhou, Chang and Kong, Lingpeng},
          year = {2024},
          eprint = {2402.17463},
          archivePrefix = {arXiv},
        }
    """,
    "log_n": _SU_BIBTEX,
}
"""By method."""


class Remap(EncodingWrapper):
    """See the module's docstring."""

    class Options(EncodingOptions, RemapOptions):
        pass

    title = "RoPE at other distances"
    paper = "Su 2023; Jin et al. 2024, 2401.01325; An et al. 2024, 2402.17463"
    bibtex_with: ClassVar[Mapping[str, str]] = REMAP_BIBTEX
    goes_around: ClassVar[str] = "rope"

    def __init__(self, geometry: Geometry, options: Options, inner: Encoding) -> None:
        super().__init__(geometry, options, inner)
        self.options: Remap.Options = options
        if not inner.capabilities.rotates:
            raise SpecError(
                f"remap changes the distances of RoPE, and {inner.label} has none; write remap({self.goes_around})"
            )
        rotation = inner.rotation()
        if rotation is None:
            why = "does more than position times frequency to queries and keys; write remap(rope)"
            if not inner.prefix_stable:
                why = "has frequencies that change with the length of the text; name another rule for them"
            raise SpecError(f"remap cannot go around {inner.label}, which {why}")
        self.turned = rotation
        self.remapping = options.resolved(geometry.train_length, "remap")
        self.distances = self.remapping.distances

    @property
    def label(self) -> str:
        return f"remap({self.inner.label}, {self.options.method})"

    @property
    def capabilities(self) -> Capabilities:
        inner = self.inner.capabilities
        mapped = any(each.mapped for each in self.distances.ranges)
        return super().capabilities._replace(adjusts=inner.adjusts or mapped)

    @property
    def prefix_stable(self) -> bool:
        return self.remapping.prefix_stable and self.inner.prefix_stable

    def rotate(
        self, q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], at: Int[Tensor, " t"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b h t d"]]:
        factor = self.remapping.query_factor(at, len(at))
        if factor is not None:
            held = torch.promote_types(q.dtype, torch.float32)
            q = (q.to(held) * factor[:, None].to(held)).to(q.dtype)
        return self.inner.rotate(q, k, at)

    def adjust(self, scores: Scores) -> Float[Tensor, "b h q k"]:
        logits, exact = scores.logits.clone(), device_of_float64(scores.logits.device)
        rows, columns = scores.q_at.to(exact), scores.k_at.to(exact)
        for each in self.distances.ranges:
            if each.mapped:
                which, span = in_range(each, scores.q_at, scores.k_at), keys_within(each, scores.q_at, scores.k_at)
                self._write(logits, scores, which, span, each.query(rows), each.key(columns))
                if not self.geometry.causal:
                    which, span = mirrored(each, scores.q_at, scores.k_at), slice(0, len(scores.k_at))
                    self._write(logits, scores, which, span, each.key(rows), each.query(columns))
        return self.inner.adjust(scores._replace(logits=logits))

    def rotation(self) -> None:
        return None

    def mapped_distances(self) -> MappedDistances | None:
        uses = self.inner.capabilities
        plain = self.capabilities.adjusts and not (uses.adjusts or uses.offset_bias or uses.general_bias)
        return MappedDistances(self.distances, self.turned) if plain else None

    def _write(
        self,
        logits: Float[Tensor, "b h q k"],
        scores: Scores,
        which: Bool[Tensor, "q k"],
        span: slice,
        q_to: Float[Tensor, " q"],
        k_to: Float[Tensor, " k"],
    ) -> None:
        """Puts the products of queries and keys that are turned on where `which` says, which is in `span` alone."""
        if span.start == span.stop:
            return
        queries = turned_to(scores.queries, scores.q_at, q_to, self.turned) * scores.queries.shape[-1] ** -0.5
        keys = turned_to(scores.keys[:, :, span], scores.k_at[span], k_to[span], self.turned)
        far = (queries @ keys.transpose(-1, -2)).to(logits.dtype)
        logits[..., span] = torch.where(which[:, span], far, logits[..., span])
