"""A network of each pair (DAPE): as products over all pairs at once, and on the CPU in pieces that fit in the cache.

Choices:
    * The part of the first layer that reads the bias does not depend on the batch and is computed once for all
      sequences. The sum is the same up to rounding.
    * On the CPU and without gradients the same sums are made a few rows at a time (`_in_pieces`).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lpe_eval.model.descriptions import PairNetwork
from lpe_eval.model.fast.pieces import rows_at_once


def corrected_pairs(
    network: PairNetwork, logits: Float[Tensor, "b h q k"], bias: Float[Tensor, "h q k"] | None
) -> Float[Tensor, "b h q k"]:
    """The positioned logits of a network that reads `logits` and, if there is one, `bias`."""
    if not torch.is_grad_enabled() and logits.device.type == "cpu":
        return _in_pieces(network, logits, bias)
    return _at_once(network, logits, bias)


def _at_once(
    network: PairNetwork, logits: Float[Tensor, "b h q k"], bias: Float[Tensor, "h q k"] | None
) -> Float[Tensor, "b h q k"]:
    """Heads are the channels of a product over all pairs: no axis is ever moved."""
    batch, heads, rows, columns = logits.shape
    pairs = logits.reshape(batch, heads, rows * columns)
    shift, outside = network.first_bias[:, None], network.second_bias[:, None]
    if bias is not None:
        bias_pairs = bias.reshape(heads, rows * columns).to(network.first.dtype)
        shift = torch.addmm(shift, network.first[:, heads:], bias_pairs)
        if network.keeps_bias:
            outside = outside + bias_pairs
    hidden = torch.baddbmm(shift, network.first[:, :heads].expand(batch, -1, -1), pairs)
    hidden = F.leaky_relu(hidden, network.leak, inplace=True)
    out = torch.baddbmm(pairs + outside, network.second.expand(batch, -1, -1), hidden)
    return out.unflatten(-1, (rows, columns))


def _in_pieces(
    network: PairNetwork, logits: Float[Tensor, "b h q k"], bias: Float[Tensor, "h q k"] | None
) -> Float[Tensor, "b h q k"]:
    """The same sums without gradients, in pieces of a few rows whose hidden layer fits in the cache.

    A piece holds the network's inputs in the rows of one matrix, below them a row of ones, so
    that its biases and the sum outside it are columns of the two matrices it is multiplied with.
    """
    batch, heads, rows, columns = logits.shape
    first, dtype, device = network.first, network.first.dtype, logits.device
    into_hidden = torch.cat([first, network.first_bias[:, None]], dim=1)
    passed = torch.eye(heads, dtype=dtype, device=device)
    kept = [passed] if bias is None else [passed, passed * network.keeps_bias]
    around = torch.cat([*kept, network.second_bias[:, None]], dim=1)
    step = rows_at_once(rows, columns, len(first))
    out = torch.empty(batch, heads, rows, columns, dtype=dtype, device=device)
    inputs = torch.ones(into_hidden.shape[1], step, columns, dtype=dtype, device=device)
    layer = torch.empty(len(first), step * columns, dtype=dtype, device=device)
    for start in range(0, rows, step):
        piece = slice(start, min(start + step, rows))
        some = inputs[:, : piece.stop - start]
        if bias is not None:
            some[heads : 2 * heads] = bias[:, piece]
        for each in range(batch):
            some[:heads] = logits[each, :, piece]
            pairs, summed = some.flatten(1), out[each, :, piece].flatten(1)
            hidden = torch.mm(into_hidden, pairs, out=layer[:, : pairs.shape[1]])
            hidden = F.leaky_relu_(hidden, network.leak)
            torch.mm(around, pairs, out=summed).addmm_(network.second, hidden)
    return out
