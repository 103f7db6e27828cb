"""Biases that depend on the offset alone, on the CPU: a table for each head instead of a matrix.

Such a bias is a Toeplitz matrix: all its numbers stand in one row of 2 * length - 1 values by
offset. Turn the query rows of a block upside down, write the table from the farthest past to the
farthest future, and every row is the table again, one step further:

    table                 a  b  c  d  e  f  g        a: offset 4 ... e: offset 0, f and g: the future
    row of query 4        a  b  c  d  e
    row of query 3           b  c  d  e  f           stride of a row: 1, of a column: 1
    row of query 2              c  d  e  f  g

So the block's bias is a strided view of the table, with no copy and nothing to compute, and
PyTorch's fused kernel takes it as an additive mask. In a causal model the table holds minus
infinity for the future, so there is no other mask, and keys after a block's last query are left
out of the call.

With gradients: while the table itself is fixed (ALiBi, Sandwich), the kernel's own backward pass
serves. It does not differentiate a mask, so a learned table is left to the path `blocked`. (Backward
passes of our own, which computed the blocks again and summed the table's gradient through the same
view, took as long: 1.15 against 1.12 times plain attention for 8 x 4 heads of 32 at 512 tokens.)
Positions that do not run on one by one (randomized) are left to `blocked` too.

A window is minus infinity in the table from its length on, and a block begins at the first key that it sees. A chunk
is a text of its own.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from lpe_eval.model.attention import AttentionPath
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask
from lpe_eval.model.parts import attend_part, has_parts, kept_context, rows_of_block
from lpe_eval.model.positions import consecutive


class Toeplitz(AttentionPath):
    """Exact attention with a bias by offset, read in place from one row of values for each head."""

    preference = 20

    @classmethod
    def serves(cls, encoding: Encoding, device: torch.device) -> bool:
        uses = encoding.capabilities
        plain = uses.offset_bias and not (uses.general_bias or uses.adjusts)
        return device.type == "cpu" and plain and (not uses.keeps or has_parts())

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
        if mask.chunk is not None or not consecutive(at):
            return Blocked.attend(q, k, v, encoding, at, mask, features)
        length, rows, gradients = len(at), q.shape[2], torch.is_grad_enabled()
        table = _by_falling_offset(encoding, length, rows, mask).to(torch.promote_types(q.dtype, torch.float32))
        if gradients and (table.requires_grad or encoding.capabilities.keeps):
            return Blocked.attend(q, k, v, encoding, at, mask, features)
        turned, size, contexts = q.flip(2), rows_of_block(mask.most(length)), []
        for start in range(0, rows, size):
            queries = turned[:, :, start : start + size]
            stop = length - start
            keys = mask.keys(slice(stop - queries.shape[2], stop), length)
            shape, steps = (1, len(table), queries.shape[2], keys.stop - keys.start), (0, table.stride(0), 1, 1)
            bias = table[:, start + keys.start :].as_strided(shape, steps)
            if encoding.capabilities.keeps:
                contexts.append(kept_context(encoding, attend_part(queries, k[:, :, keys], v[:, :, keys], bias)))
            else:
                context = scaled_dot_product_attention(queries, k[:, :, keys], v[:, :, keys], attn_mask=bias)
                contexts.append(context)
        return torch.cat(contexts, dim=2).flip(2)


def _by_falling_offset(encoding: Encoding, length: int, rows: int, mask: Mask) -> Float[Tensor, "h n"]:
    """The bias at offsets length - 1, length - 2, ..., as far down as any block reads."""
    values = encoding.bias_by_offset(torch.arange(length - 1, -1 if mask.causal else -length, -1))
    assert values is not None
    if mask.window is not None and mask.window < length:
        hidden = torch.arange(length - 1, -1, -1) >= mask.window
        values = values.masked_fill(hidden, float("-inf"))
    # Read with steps of one: a table that comes as the transpose of another, as T5's, is written out.
    return (pad(values, (0, rows - 1), value=float("-inf")) if mask.causal else values).contiguous()
