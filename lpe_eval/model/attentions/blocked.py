"""Any encoding in memory linear in the length: a block of query rows at a time.

A causal block never touches the keys after its last query, so half of the arithmetic of the
dense path disappears as well, and in a layer with a window it begins at the first key that one of its rows sees.
Without gradients everything that follows the product q . k works
in place, and only the square at the end of a causal block, where its own queries are keys, is masked.
On the CPU an encoding that adjusts the logits, by many operations in a row, gets a core for each block of a long text.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model.attention import AttentionPath, rows_per_block
from lpe_eval.model.block import kept_of, probabilities, scaled_products, scores_of_rows, seen_columns
from lpe_eval.model.cores import on_cores
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask
from lpe_eval.model.positions import part

_LOGITS_WORTH_CORES = 1 << 25
"""Logits of a call from which on a core for each block pays for beginning the threads: 4 heads over 2,896 tokens."""

_LOGITS_ON_CORES = 1 << 26
"""Logits that all cores may hold at once: 256 MiB. Blocks that do not fit are large enough to be shared."""


class Blocked(AttentionPath):
    """Exact attention in blocks of query rows."""

    preference = 10
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
        length, first, matrices = len(at), len(at) - q.shape[2], q.shape[0] * q.shape[1]
        rows = rows_per_block(matrices, mask.most(length), q.device)
        turned = q.flip(2)

        def context(block: slice) -> Float[Tensor, "b h r d"]:
            queries = turned[:, :, length - block.stop : length - block.start]
            weights = _weights(queries, k, encoding, at, mask, features, block)
            return weights.to(v.dtype) @ v[:, :, mask.keys(block, length)]

        blocks = [slice(max(first, stop - rows), stop) for stop in range(length, first, -rows)]
        logits = matrices * rows * min(length, mask.most(length) + rows)
        if encoding.capabilities.adjusts and _a_core_each(len(blocks), logits, q.device):
            contexts = on_cores(context, blocks)
        else:
            contexts = [context(block) for block in blocks]
        return torch.cat(contexts, dim=2).flip(2)


def _a_core_each(blocks: int, logits: int, device: torch.device) -> bool:
    """Whether so many blocks of `logits` logits are worth it, keep all cores busy and fit; if not, all share each."""
    threads = torch.get_num_threads()
    if torch.is_grad_enabled() or device.type != "cpu" or threads == 1:
        return False
    worth = blocks * logits >= _LOGITS_WORTH_CORES
    return worth and blocks >= 2 * threads and threads * logits <= _LOGITS_ON_CORES


def _weights(
    queries: Float[Tensor, "b h r d"],
    k: Float[Tensor, "b h k d"],
    encoding: Encoding,
    at: Int[Tensor, " k"],
    mask: Mask,
    features: Float[Tensor, "b h k n"] | None,
    rows: slice,
) -> Float[Tensor, "b h r s"]:
    """The probabilities of the keys that a block of rows sees, the last row first."""
    seen, gradients = mask.keys(rows, len(at)), torch.is_grad_enabled()
    if encoding.capabilities.adjusts:
        scores = scores_of_rows(queries, k, encoding, at, rows, mask, features, backwards=True)
        columns = seen_columns(encoding, rows, len(at), mask)
        if gradients:
            return probabilities(encoding, scores, columns)
        positioned = encoding.adjust(scores)[..., columns]
    else:
        known = mask.keys(rows, len(at), encoding.lookbehind)
        positioned = scaled_products(queries, k[:, :, seen])
        bias = encoding.bias(part(at, rows, backwards=True), part(at, known))
        bias = None if bias is None else bias[..., seen.start - known.start :]
        if gradients and mask.causal:
            # The mask joins the bias, which has no batch axis, so the logits are gone through once.
            hidden = ~mask.visible(rows, seen, k.device).flip(0)
            masked = torch.zeros(hidden.shape, device=k.device).masked_fill_(hidden, float("-inf"))
            bias = masked if bias is None else bias + masked
        positioned = positioned if bias is None else positioned.add_(bias)
        if gradients:
            return kept_of(encoding, positioned, positioned.softmax(dim=-1))
    if mask.causal:
        # Without a window only the square at the end of a block, where its own queries are keys, hides anything.
        some = seen if mask.bounded else rows
        hidden = ~mask.visible(rows, some, k.device).flip(0)
        positioned[..., some.start - seen.start :].masked_fill_(hidden, float("-inf"))
    if encoding.capabilities.keeps:
        return kept_of(encoding, positioned, positioned.softmax(dim=-1))
    return torch.softmax(positioned, dim=-1, out=positioned)
