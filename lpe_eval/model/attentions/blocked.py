"""Any encoding in memory linear in the length: a block of query rows at a time.

A causal block never touches the keys after its last query, so half of the arithmetic of the
dense path disappears as well. Without gradients everything that follows the product q . k works
in place, and only the square at the end of a causal block, where its own queries are keys, is masked.
On the CPU an encoding that adjusts the logits, by many operations in a row, gets a core for each block of a long text.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model.attention import AttentionPath, rows_per_block, visible_keys
from lpe_eval.model.block import last_seen, probabilities, scaled_products, scores_of_rows
from lpe_eval.model.cores import on_cores
from lpe_eval.model.encoding import Encoding
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
        causal: bool,
    ) -> Float[Tensor, "b h q d"]:
        length, first, matrices = len(at), len(at) - q.shape[2], q.shape[0] * q.shape[1]
        rows = rows_per_block(matrices, length, q.device)
        turned = q.flip(2)

        def context(block: slice) -> Float[Tensor, "b h r d"]:
            queries = turned[:, :, length - block.stop : length - block.start]
            weights = _weights(queries, k, encoding, at, causal, block)
            return weights.to(v.dtype) @ v[:, :, : weights.shape[-1]]

        blocks = [slice(max(first, stop - rows), stop) for stop in range(length, first, -rows)]
        if encoding.capabilities.adjusts and _a_core_each(len(blocks), matrices * rows * length, q.device):
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
    causal: bool,
    rows: slice,
) -> Float[Tensor, "b h r s"]:
    """The probabilities of the keys that a block of rows sees, the last row first."""
    seen, gradients = last_seen(rows, at, causal), torch.is_grad_enabled()
    if encoding.capabilities.adjusts:
        scores = scores_of_rows(queries, k, encoding, at, rows, causal, backwards=True)
        if gradients:
            return probabilities(encoding, scores, seen)
        positioned = encoding.adjust(scores)[..., :seen]
    else:
        positioned = scaled_products(queries, k[:, :, :seen])
        bias = encoding.bias(part(at, rows, backwards=True), part(at, slice(0, seen)))
        if gradients and causal:
            # The mask joins the bias, which has no batch axis, so the logits are gone through once.
            hidden = ~visible_keys(rows, seen, len(at), causal, k.device).flip(0)
            masked = torch.zeros(hidden.shape, device=k.device).masked_fill_(hidden, float("-inf"))
            bias = masked if bias is None else bias + masked
        positioned = positioned if bias is None else positioned.add_(bias)
        if gradients:
            return positioned.softmax(dim=-1)
    if causal:
        size = seen - rows.start
        square = visible_keys(slice(0, size), size, size, True, k.device).flip(0)
        positioned[..., rows.start :].masked_fill_(~square, float("-inf"))
    return torch.softmax(positioned, dim=-1, out=positioned)
