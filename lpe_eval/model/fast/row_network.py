"""A network along the keys of a row (DAPE V2): as convolutions, and on the CPU in pieces that fit in the cache.

Choices:
    * The part of the first layer that reads the bias is computed once for all sequences.
    * On the CPU and without gradients the same sums are made a few rows at a time (`_in_pieces`).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lpe_eval.model.fast.pieces import rows_at_once


class RowNetwork(NamedTuple):
    """Two convolutions along the keys of a row, each of which leaves the number of keys as it is.

    With the logits s and the bias B, in heads x keys for each query, the positioned logits are
    s + [B +] second * leaky_relu(first * [s; B] + first_bias) + second_bias.
    """

    first: Float[Tensor, "n c 1 w"]
    """Reads the logits of all heads and then, if there are twice as many channels, their biases."""
    first_bias: Float[Tensor, " n"]
    second: Float[Tensor, "h n 1 w"]
    second_bias: Float[Tensor, " h"]
    leak: float
    """The factor of negative numbers in the leaky ReLU."""
    keeps_bias: bool
    """Whether B is also added outside the network."""
    after: int
    """How many keys after its own a convolution reads; a key that does not exist is zero."""
    hides: bool
    """Whether s and B are zero where a query does not see the key; false only where it sees every key."""


def corrected_rows(
    network: RowNetwork,
    logits: Float[Tensor, "b h q k"],
    bias: Float[Tensor, "h q k"] | None,
    visible: Bool[Tensor, "q k"],
) -> Float[Tensor, "b h q k"]:
    """The positioned logits of a network that reads `logits` and, if there is one, `bias`."""
    if not torch.is_grad_enabled() and logits.device.type == "cpu":
        return _in_pieces(network, logits, bias, visible)
    return _at_once(network, logits, bias, visible)


def _at_once(
    network: RowNetwork,
    logits: Float[Tensor, "b h q k"],
    bias: Float[Tensor, "h q k"] | None,
    visible: Bool[Tensor, "q k"],
) -> Float[Tensor, "b h q k"]:
    heads = logits.shape[1]
    seen = torch.where(visible, logits, 0.0) if network.hides else logits
    hidden = _along_keys(network, seen, network.first[:, :heads], network.first_bias)
    if bias is not None:
        bias = bias.to(network.first.dtype)
        seen = torch.where(visible, bias, 0.0) if network.hides else bias
        hidden = hidden + _along_keys(network, seen[None], network.first[:, heads:], None)
    hidden = F.leaky_relu(hidden, network.leak, inplace=True)
    out = logits + _along_keys(network, hidden, network.second, network.second_bias)
    return out + bias if bias is not None and network.keeps_bias else out


def _along_keys(
    network: RowNetwork,
    channels: Float[Tensor, "b c q k"],
    weight: Float[Tensor, "o c 1 w"],
    bias: Float[Tensor, " o"] | None,
) -> Float[Tensor, "b o q k"]:
    return F.conv2d(F.pad(channels, (weight.shape[-1] - 1 - network.after, network.after)), weight, bias)


def _in_pieces(
    network: RowNetwork,
    logits: Float[Tensor, "b h q k"],
    bias: Float[Tensor, "h q k"] | None,
    visible: Bool[Tensor, "q k"],
) -> Float[Tensor, "b h q k"]:
    """The same sums without gradients, in pieces of a few rows whose hidden layer fits in the cache.

    The first convolution is one product with the inputs of all taps, shifted copies one above
    the other over a row of ones; the second is one product whose taps are shifted and added.
    """
    batch, heads, rows, columns = logits.shape
    first, (width, _, _, taps) = network.first, network.first.shape
    into_hidden = torch.cat([first[:, :, 0].permute(0, 2, 1).flatten(1), network.first_bias[:, None]], dim=1)
    out_of_hidden = network.second[:, :, 0].permute(2, 0, 1).flatten(0, 1)
    step = rows_at_once(rows, columns, width)
    inputs = first.new_zeros(taps * first.shape[1] + 1, step, columns)
    inputs[-1] = 1
    layer, parts = first.new_zeros(width, step * columns), first.new_zeros(taps * heads, step * columns)
    out = logits + network.second_bias[:, None, None]
    if bias is not None and network.keeps_bias:
        out += bias
    # Where each tap finds the cells of a row, and where it puts them.
    shifts = [tap - (taps - 1 - network.after) for tap in range(taps)]
    cells = [
        (slice(max(0, s), max(0, columns + min(0, s))), slice(max(0, -s), max(0, columns - max(0, s)))) for s in shifts
    ]
    hidden_keys = ~visible
    # Only the last keys are hidden from any row, so only they are gone through again.
    some_hidden = hidden_keys.any(dim=0).nonzero()
    late = int(some_hidden[0]) if len(some_hidden) else columns
    for start in range(0, rows, step):
        piece = slice(start, min(start + step, rows))
        count = piece.stop - start
        some, unseen = inputs[:, :count], hidden_keys[piece]
        by_tap = some[:-1].unflatten(0, (taps, -1))
        hidden, part = layer[:, : count * columns], parts[:, : count * columns]
        of_tap = part.unflatten(-1, (count, columns)).unflatten(0, (taps, heads))
        if bias is not None:
            _spread(by_tap[:, heads:], bias[:, piece], cells, unseen, late)
        for each in range(batch):
            _spread(by_tap[:, :heads], logits[each, :, piece], cells, unseen, late)
            torch.mm(into_hidden, some.flatten(1), out=hidden)
            torch.mm(out_of_hidden, F.leaky_relu_(hidden, network.leak), out=part)
            for tap, (source, target) in enumerate(cells):
                out[each, :, piece, target] += of_tap[tap, :, :, source]
    return out


def _spread(
    taps: Float[Tensor, "w c q k"],
    channels: Float[Tensor, "c q k"],
    cells: list[tuple[slice, slice]],
    hidden: Bool[Tensor, "q k"],
    late: int,
) -> None:
    """Writes what each tap reads: zero for a hidden key, none of which comes before key `late`.

    The cells that a tap finds outside the row are not written.
    """
    for tap, (source, target) in zip(taps, cells, strict=True):
        tap[..., target] = channels[..., source]
        first = max(late, source.start)
        tap[..., target.start + first - source.start : target.stop].masked_fill_(hidden[:, first : source.stop], 0)
