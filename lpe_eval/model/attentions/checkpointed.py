"""Training in memory linear in the length: blocks of query rows that are computed again for their gradients.

The path `blocked` keeps the probabilities of every block for the backward pass, so with gradients its
memory is quadratic. Here nothing of a block is kept but its queries: the backward pass computes the block
a second time and then its gradients. That costs about one more forward pass. Values and gradients
are those of the oracle up to rounding.

It serves every encoding, and is taken by itself only where a path for scoring (`flex`, `fused`) has no
gradients of its own.
"""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lpe_eval.model.attention import AttentionPath, rows_per_block
from lpe_eval.model.block import probabilities, scores_of_rows, seen_columns
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask


class Checkpointed(AttentionPath):
    """Exact attention in blocks of query rows, each computed again in the backward pass."""

    preference = 5
    falls_back = False

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
        mask: Mask,
        features: Float[Tensor, "b h k n"] | None = None,
    ) -> Float[Tensor, "b h q d"]:
        length, first = len(at), len(at) - q.shape[2]
        size, contexts = rows_per_block(q.shape[0] * q.shape[1], mask.most(length), q.device), []
        for start in range(first, length, size):
            rows = slice(start, min(start + size, length))
            block = partial(_context, encoding=encoding, at=at, rows=rows, mask=mask, features=features)
            queries = q[:, :, start - first : rows.stop - first]
            contexts.append(checkpoint(block, queries, k, v, use_reentrant=False, preserve_rng_state=False))
        return torch.cat(contexts, dim=2)


def _context(
    queries: Float[Tensor, "b h r d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    encoding: Encoding,
    at: Int[Tensor, " k"],
    rows: slice,
    mask: Mask,
    features: Float[Tensor, "b h k n"] | None,
) -> Float[Tensor, "b h r d"]:
    """The context of a block of rows, from the keys that it sees."""
    scores = scores_of_rows(queries, k, encoding, at, rows, mask, features)
    weights = probabilities(encoding, scores, seen_columns(encoding, rows, len(at), mask))
    return weights.to(v.dtype) @ v[:, :, mask.keys(rows, len(at))]
