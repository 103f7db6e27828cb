"""Any encoding in memory linear in the length: a block of query rows at a time.

A causal block never touches the keys after its last query, so half of the arithmetic of the
dense path disappears as well.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model.attention import AttentionPath, visible_keys
from lpe_eval.model.encoding import Encoding, Scores

_BLOCK_LOGITS = 1 << 21
"""Logits held at once. Two million floats are 8 MiB: near a core's cache, and few enough blocks."""

_FEWEST_ROWS = 16


class Blocked(AttentionPath):
    """Exact attention in blocks of query rows."""

    preference = 10

    @classmethod
    def serves(cls, encoding: Encoding, device: torch.device) -> bool:
        return True

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
        length, first = len(at), len(at) - q.shape[2]
        rows = rows_per_block(q.shape[0] * q.shape[1], length)
        return torch.cat(
            [
                _attend_block(q, k, v, encoding, at, causal, start, min(start + rows, length))
                for start in range(first, length, rows)
            ],
            dim=2,
        )


def rows_per_block(matrices: int, length: int) -> int:
    """Query rows whose logits, over `matrices` batch entries and heads, fill one block."""
    return max(_FEWEST_ROWS, min(length, _BLOCK_LOGITS // (matrices * length)))


def _attend_block(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    encoding: Encoding,
    at: Int[Tensor, " k"],
    causal: bool,
    start: int,
    stop: int,
) -> Float[Tensor, "b h r d"]:
    length = len(at)
    seen = stop if causal else length
    keys = min(length, seen + encoding.lookahead)
    offset = length - q.shape[2]
    queries, some = q[:, :, start - offset : stop - offset], k[:, :, :keys]
    visible = visible_keys(slice(start, stop), keys, length, causal, q.device)
    logits = ((queries * q.shape[-1] ** -0.5) @ some.transpose(-1, -2)).float()
    bias = encoding.bias(at[start:stop], at[:keys])
    scores = Scores(logits, bias, queries.float(), some.float(), visible, at[start:stop], at[:keys])
    positioned = encoding.adjust(scores)
    positioned = positioned[..., :seen].masked_fill(~visible[:, :seen], float("-inf"))
    return positioned.softmax(dim=-1).to(v.dtype) @ v[:, :, :seen]
