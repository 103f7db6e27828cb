"""PyTorch's fused attention, for encodings that put nothing on the logits.

NoPE, absolute and rotary encodings need no bias, so the library's kernel is exact for them and
never stores the logits. In a layer with a window or chunks some rows at a time attend to the keys that they see.
Where an encoding keeps a part of the context only, it needs what the kernel divided by, which is to be had on a CPU
and without gradients; else `blocked` serves.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from lpe_eval.model.attention import AttentionPath
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.bands import attend_band, band_within, blocks_around
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask
from lpe_eval.model.parts import attend_part, attend_past, has_parts, kept_context

_ROWS = 256
"""Query rows of a block in a layer with a window."""


class Sdpa(AttentionPath):
    """Exact attention by `scaled_dot_product_attention`."""

    preference = 30

    @classmethod
    def serves(cls, encoding: Encoding, device: torch.device) -> bool:
        uses = encoding.capabilities
        biased = uses.offset_bias or uses.general_bias or uses.adjusts
        return not biased and (not uses.keeps or (device.type == "cpu" and has_parts()))

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
        length, rows, keeps = len(at), q.shape[2], encoding.capabilities.keeps
        if keeps and torch.is_grad_enabled():
            return Blocked.attend(q, k, v, encoding, at, mask, features)
        if mask.bounded:
            return _in_sight(q, k, v, encoding, mask)
        if keeps:
            return kept_context(encoding, (attend_past if mask.causal else attend_part)(q, k, v))
        if not mask.causal:
            return scaled_dot_product_attention(q, k, v)
        if 4 * rows < length:
            visible = mask.visible(slice(length - rows, length), slice(0, length), q.device)
            return scaled_dot_product_attention(q, k, v, attn_mask=visible)
        # The kernel's causal mask starts at the first row of both, so missing rows are put back on top.
        whole = pad(q, (0, 0, length - rows, 0))
        return scaled_dot_product_attention(whole, k, v, is_causal=True)[:, :, length - rows :]


def _in_sight(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    encoding: Encoding,
    mask: Mask,
) -> Float[Tensor, "b h q d"]:
    """Some rows at a time, with the keys that one of them sees."""
    length, contexts = k.shape[2], []
    first = length - q.shape[2]
    band = band_within(first, length, mask) if q.device.type == "cpu" else None
    for rows in blocks_around(band, first, length, _ROWS):
        if band is not None and rows == band.rows:
            part = attend_band(q[:, :, rows.start - first : rows.stop - first], k, v, band)
            contexts.append(kept_context(encoding, part))
            continue
        keys = mask.keys(rows, length)
        some = (q[:, :, rows.start - first : rows.stop - first], k[:, :, keys], v[:, :, keys])
        visible = mask.visible(rows, keys, q.device)
        if encoding.capabilities.keeps:
            hidden = torch.zeros(visible.shape).masked_fill_(~visible, float("-inf"))
            contexts.append(kept_context(encoding, attend_part(*some, hidden[None, None])))
        else:
            contexts.append(scaled_dot_product_attention(*some, attn_mask=visible))
    return torch.cat(contexts, dim=2)
