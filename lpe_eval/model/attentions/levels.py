"""Biases that are a difference of two tokens' levels (FoX, CABLE), on the CPU: one number for each key.

With the level F of each token the logit of a pair is s + F_i - F_j. F_i is the same along a row, and the softmax
does not see it, so what is left is a bias that each key has by itself: a row of numbers, never a matrix, which
PyTorch's fused kernel adds to every row of a block.

Levels fall without end, and the fused kernel adds in float32. So every block of rows measures them from the middle
of its own tokens: the numbers near the diagonal, which the weights hang on, are small whatever the length. Levels come
in float64 (`LevelBias`) and are rounded after that difference. Where they fall steeply a block has fewer rows.

In a layer with a window the rows whose whole window lies in the text go together (`model/bands.py`).

A block is two calls, the keys before it and the square of its own, whose contexts are put together exactly.
The kernel has no gradients for the bias, so with gradients `blocked` serves.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model.attention import AttentionPath
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.bands import attend_band, band_within
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask
from lpe_eval.model.parts import Part, attend_part, attend_past, has_parts, kept_context

_ROWS, _FEWEST_ROWS = 768, 48
"""Query rows of a block. From 768 rows on the kernel takes larger tiles."""

_SPAN = 640.0
"""How far levels may fall within a block: half of that is a number of float32 to 1.5e-5."""


class Levels(AttentionPath):
    """Exact attention with a bias that each key has by itself."""

    preference = 20

    @classmethod
    def serves(cls, encoding: Encoding, device: torch.device) -> bool:
        uses, described = encoding.capabilities, encoding.level_bias() is not None
        return device.type == "cpu" and described and not (uses.offset_bias or uses.general_bias) and has_parts()

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
        described = encoding.level_bias()
        if torch.is_grad_enabled() or described is None or features is None:
            return Blocked.attend(q, k, v, encoding, at, mask, features)
        levels, length, contexts = described.levels(features), len(at), []
        first = start = length - q.shape[2]
        band = band_within(first, length, mask)
        while start < length:
            if band is not None and start == band.rows.start:
                rows = band.rows
                part = attend_band(q[:, :, rows.start - first : rows.stop - first], k, v, band, levels)
            else:
                stop = length if band is None or start > band.rows.start else band.rows.start
                rows = slice(start, start + _rows_from(start, levels[:, :, :stop]))
                keys = mask.keys(rows, length)
                middle = levels[:, :, (rows.start + rows.stop) // 2, None]
                of_keys = (middle - levels[:, :, keys]).float()[:, :, None]
                queries = q[:, :, rows.start - first : rows.stop - first]
                part = _attend(queries, k[:, :, keys], v[:, :, keys], of_keys, mask, rows, keys)
                # What the softmax does not see, what is kept of a row does.
                part = part._replace(lse=part.lse + (levels[:, :, rows] - middle).float())
            contexts.append(kept_context(encoding, part))
            start = rows.stop
        return torch.cat(contexts, dim=2)


def _rows_from(start: int, levels: Float[Tensor, "b h k"]) -> int:
    """How many rows the block has that begins at a token."""
    rows = min(_ROWS, levels.shape[2] - start)
    while rows > _FEWEST_ROWS and (levels[:, :, start] - levels[:, :, start + rows - 1]).max() > _SPAN:
        rows = rows // 2
    return rows


def _attend(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    of_keys: Float[Tensor, "b h 1 k"],
    mask: Mask,
    rows: slice,
    keys: slice,
) -> Part:
    if not mask.bounded:
        return attend_past(q, k, v, of_keys)
    hidden = ~mask.visible(rows, keys, q.device)
    return attend_part(q, k, v, of_keys.masked_fill(hidden, float("-inf")))
