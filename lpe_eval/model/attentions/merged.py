"""RoPE at other distances, on the CPU: plain attention over each range of keys, merged by log-sum-exp.

Near keys take queries and keys as they come; for each further range both are turned on once, and PyTorch's fused
kernel computes the pieces of a block without a mask other than its own causal one. See `model/merged_ranges.py`.

Gradients, windows and chunks, positions that do not begin at 0 and run on one by one, and ranges of a few tokens are
left to `blocked`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model.attention import AttentionPath
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask
from lpe_eval.model.merged_ranges import attend_in_ranges, fused_piece
from lpe_eval.model.parts import has_parts, rows_of_block
from lpe_eval.model.positions import consecutive

_SHORTEST = 16
"""Blocks of fewer rows cost more calls than they save."""


class Merged(AttentionPath):
    """Exact attention at mapped distances."""

    preference = 20

    @classmethod
    def serves(cls, encoding: Encoding, device: torch.device) -> bool:
        uses = encoding.capabilities
        more = uses.offset_bias or uses.general_bias or uses.keeps
        described = encoding.mapped_distances() is not None
        return device.type == "cpu" and described and not more and has_parts()

    @classmethod
    def attend(
        cls,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b h k d"],
        v: Float[Tensor, "b h k d"],
        encoding: Encoding,
        at: Int[Tensor, " k"],
        mask: Mask,
        features: Float[Tensor, "b h k n"] | None = None,
    ) -> Float[Tensor, "b h q d"]:
        mapped, piece = encoding.mapped_distances(), fused_piece(q.shape[-1] ** -0.5)
        assert mapped is not None and piece is not None
        distances = mapped.distances
        whole = mask.causal and not mask.bounded and consecutive(at) and int(at[0]) == 0
        if torch.is_grad_enabled() or not whole or distances.period < _SHORTEST:
            return Blocked.attend(q, k, v, encoding, at, mask, features)
        return attend_in_ranges(q, k, v, distances, mapped.rotation, rows_of_block(len(at)), piece)
