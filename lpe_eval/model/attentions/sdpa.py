"""PyTorch's fused attention, for encodings that put nothing on the logits.

NoPE, absolute and rotary encodings need no bias, so the library's kernel is exact for them and
never stores the logits.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from lpe_eval.model.attention import AttentionPath, visible_keys
from lpe_eval.model.encoding import Encoding


class Sdpa(AttentionPath):
    """Exact attention by `scaled_dot_product_attention`."""

    preference = 30

    @classmethod
    def serves(cls, encoding: Encoding, device: torch.device) -> bool:
        uses = encoding.capabilities
        return not (uses.offset_bias or uses.general_bias or uses.adjusts)

    @classmethod
    def attend(
        cls,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b h k d"],
        v: Float[Tensor, "b h k d"],
        encoding: Encoding,
        at: Int[Tensor, " k"],
        causal: bool,
    ) -> Float[Tensor, "b h q d"]:
        length, rows = len(at), q.shape[2]
        if not causal:
            return scaled_dot_product_attention(q, k, v)
        if 4 * rows < length:
            visible = visible_keys(slice(length - rows, length), length, length, True, q.device)
            return scaled_dot_product_attention(q, k, v, attn_mask=visible)
        # The kernel's causal mask starts at the first row of both, so missing rows are put back on top.
        whole = pad(q, (0, 0, length - rows, 0))
        return scaled_dot_product_attention(whole, k, v, is_causal=True)[:, :, length - rows :]
