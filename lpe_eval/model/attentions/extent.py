"""Biases that a query gives to the keys within an extent (Inkling), on the CPU: a matrix of the near keys alone.

A block of query rows has two calls of PyTorch's fused kernel. The keys that all its rows have beyond the extent
get no bias and no mask. The others get a matrix as wide as the extent and the block; what each row has by offset
is written into it through a view whose rows are shifted by one, so that nothing is looked up. The two contexts are put
together exactly.

The kernel has no gradients for the bias, so with gradients `blocked` serves, as where positions do not run on one by
one.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model.attention import AttentionPath
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask
from lpe_eval.model.parts import attend_part, has_parts, kept_context, merged
from lpe_eval.model.positions import consecutive

_ROWS = 256
"""Query rows of a block."""


class Extent(AttentionPath):
    """Exact attention with a bias for the keys near each query."""

    preference = 20

    @classmethod
    def serves(cls, encoding: Encoding, device: torch.device) -> bool:
        uses, described = encoding.capabilities, encoding.near_bias() is not None
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
        near = encoding.near_bias()
        if torch.is_grad_enabled() or near is None or features is None or not consecutive(at):
            return Blocked.attend(q, k, v, encoding, at, mask, features)
        length, contexts = len(at), []
        first = length - q.shape[2]
        for start in range(first, length, _ROWS):
            rows = slice(start, min(start + _ROWS, length))
            queries, seen = q[:, :, rows.start - first : rows.stop - first], mask.keys(rows, length)
            # Below `split` no row of the block has a key within the extent.
            split = max(seen.start, rows.start - near.extent + 1)
            keys = slice(seen.start if mask.bounded else split, rows.stop)
            values = near.by_falling_offset(features[:, :, rows], at[rows])
            bias = _shifted(values, rows.start - keys.start)
            if mask.bounded:
                bias = bias.masked_fill(~mask.visible(rows, keys, q.device), float("-inf"))
            parts = [attend_part(queries, k[:, :, keys], v[:, :, keys], bias)]
            if seen.start < keys.start:
                far = slice(seen.start, keys.start)
                parts.append(attend_part(queries, k[:, :, far], v[:, :, far]))
            contexts.append(kept_context(encoding, parts[0] if len(parts) == 1 else merged(parts)))
        return torch.cat(contexts, dim=2)


def _shifted(values: Float[Tensor, "b h q m"], before: int) -> Float[Tensor, "b h q k"]:
    """The bias between consecutive queries and the keys from `before` tokens before the first query to the last.

    Row r of `values` ends with offset 0, which is key `before` + r, so its last number stands one key further
    than that of the row above. The future is minus infinity.
    """
    batch, heads, rows, extent = values.shape
    missing = max(0, before - extent + 1)
    width = missing + extent + rows - 1
    future = torch.ones(rows, width, dtype=torch.bool).triu(missing + extent)
    matrix = torch.zeros(rows, width).masked_fill_(future, float("-inf")).expand(batch, heads, -1, -1).contiguous()
    steps = (*matrix.stride()[:2], width + 1, 1)
    matrix.as_strided(values.shape, steps, missing).copy_(values)
    # Keys before the text, where a block near its beginning has offsets without a key.
    return matrix[..., missing + extent - 1 - before :]
