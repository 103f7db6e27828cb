"""What the path `fused` launches: the Triton kernels of `fused_triton.py`, for some rows after the others."""

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from lpe_eval.model.attention import PathError
from lpe_eval.model.descriptions import PairNetwork
from lpe_eval.model.fused_triton import add_values, triton, weigh_pairs

_LOG2_E = 1.4426950408889634

_WEIGHTS = 1 << 27
"""Numbers of the weights held at once: 256 MiB of 16 bits."""

_PER_PROGRAM = 32
"""Blocks of keys that a program of the first kernel goes through, with its queries in registers."""

_INDICES = 1 << 31
"""Of one text in a kernel; beyond, whole numbers of 32 bits would turn negative."""

RESERVED = 4 << 10
"""Bytes of fast memory kept free on cards of more than 200 KiB: 100 KiB were taken there where 96 were reckoned."""

_LARGEST_HIDDEN = 1 << 14
"""What hidden units hold at most for the bias alone, a quarter of the largest number of 16 bits."""

_LOGIT_SHIFT = 1 / 16
"""What logits are multiplied by on their way into the network in 16 bits, which then reach to a million."""


class Tile(NamedTuple):
    """How much of the matrix of logits a program of the first kernel holds at once, and with how many warps."""

    rows: int
    keys: int
    warps: int
    units: int
    """Hidden units computed at once."""

    def shared_bytes(self, heads: int, width: int, itemsize: int) -> int:
        """Fast memory that it needs, from above; `benchmarks/compiled_ahead.py` compares it with what compilers say.

        That is queries and keys, and the tile of all heads in float32 where it changes hands between threads. In
        float32 each operand is held in two parts for products of full precision. Compilers for cards of more than
        200 KiB take up to `RESERVED` more in float32.
        """
        operands = padded(heads) * padded(width) * itemsize * (self.rows + self.keys)
        handed_over = padded(heads) * self.rows * self.keys * 4
        return operands + handed_over if itemsize < 4 else max(operands + handed_over, operands * 3 // 2)

    def suits(self, itemsize: int) -> bool:
        """Whether its numbers stay in registers; in float32 32 rows do not."""
        return itemsize < 4 or self.rows <= 16


TILES = (Tile(32, 16, 8, 16), Tile(16, 16, 8, 32))
"""The larger first: it reads every key half as often."""

_ROWS, _WARPS = 128, 4
"""Of the second kernel."""


def tile(heads: int, width: int, hidden: int, dtype: torch.dtype, shared_memory: int) -> Tile | None:
    """The largest tile whose program fits into the fast memory of a multiprocessor; None if none does.

    A function of the shape and the card, and not the winner of a race, so the same input gives the same output.
    """
    if padded(heads) > 32 or padded(hidden) > 128:
        return None
    size = dtype.itemsize
    room = shared_memory - (RESERVED if shared_memory > 200 << 10 else 0)
    fits = (each for each in TILES if each.suits(size) and each.shared_bytes(heads, width, size) <= room)
    return next(fits, None)


def launch(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    network: PairNetwork,
    bias: Float[Tensor, "h n"] | None,
    causal: bool,
    size: Tile,
) -> Float[Tensor, "b h q d"]:
    """Runs the kernels.

    Args:
        q: rotated queries; when there are fewer than keys they are the last rows.
        k: rotated keys.
        v: values.
        network: what stands between logits and softmax.
        bias: at the offsets from 1 - queries to keys - 1; None if there is none.
        causal: whether a query sees only its past and itself.
        size: the tile.

    Raises:
        PathError: the text is too long for indices of 32 bits.
    """
    q, k, v = (each if each.stride(-1) == 1 else each.contiguous() for each in (q, k, v))
    (batch, heads, rows, width), keys = q.shape, k.shape[2]
    given = network_inputs(network, bias, q, keys, causal, size)
    out = torch.empty(batch, heads, rows, width, dtype=v.dtype, device=v.device)
    blocks = -(-keys // size.keys)
    all_keys = -(-blocks * size.keys // 64) * 64
    at_once = max(_ROWS, min(rows, _WEIGHTS // (batch * heads * all_keys)) // _ROWS * _ROWS)
    if max(heads * at_once * all_keys, *(_reach(each) for each in (q, k, v))) >= _INDICES:
        raise PathError(f"{keys} tokens are too many for the indices of its kernels")
    weights = torch.empty(batch, heads, at_once, all_keys, dtype=v.dtype, device=v.device)
    peaks = torch.empty(batch, heads, at_once, blocks, device=v.device)
    precision = "tf32x3" if q.dtype == torch.float32 else "tf32"
    fixed = {"causal": causal, "all_width": padded(width), "block_keys": size.keys, "precision": precision}
    with _on(q.device):
        for begin in range(0, rows, at_once):
            count = min(at_once, rows - begin)
            seen = keys - rows + begin + count if causal else keys
            segments = -(-seen // (size.keys * _PER_PROGRAM))
            # A block of keys that no query of a program sees is not written.
            peaks.fill_(float("-inf"))
            _weigh()[(segments, -(-count // size.rows), batch)](
                *(q, k, weights, peaks, *given[:4]),
                *(*q.stride()[:3], *k.stride()[:3], *weights.stride()[:3], *peaks.stride()[:3]),
                *(heads, begin, rows, keys, width, _PER_PROGRAM),
                *(given.into_network, _LOG2_E * width**-0.5, network.leak),
                **fixed,
                all_heads=padded(heads),
                all_units=given.inside.shape[1],
                block_rows=size.rows,
                group=min(size.units, given.inside.shape[1]),
                num_warps=size.warps,
                num_stages=1,
            )
            top = peaks[:, :, :count].amax(dim=-1, keepdim=True)
            factors = (peaks[:, :, :count] - top).exp2_()
            _add()[(-(-count // _ROWS), heads, batch)](
                *(weights, factors, v, out),
                *(*weights.stride()[:3], *factors.stride()[:3], *v.stride()[:3], *out.stride()[:3]),
                *(begin, rows, keys, width),
                **fixed,
                block_rows=_ROWS,
                num_warps=_WARPS,
                num_stages=2,
            )
    return out


class _Inputs(NamedTuple):
    """The network as the kernel reads it, padded so that no index falls outside, for logits in powers of two."""

    to_hidden: Float[Tensor, "h u"]
    from_hidden: Float[Tensor, "u h"]
    inside: Float[Tensor, "n u"]
    """What the hidden units hold at each offset before they see the logits."""
    outside: Float[Tensor, "n h"]
    """What is added at each offset after the network: minus infinity in the future of a causal model."""
    into_network: float
    """What products of queries and keys are multiplied by before the network reads them."""


def network_inputs(
    network: PairNetwork,
    bias: Float[Tensor, "h n"] | None,
    q: Float[Tensor, "b h q d"],
    keys: int,
    causal: bool,
    size: Tile,
) -> _Inputs:
    """What the kernels read of a network and of a bias at the offsets from 1 - queries to keys - 1."""
    heads, rows, units, offsets = q.shape[1], q.shape[2], len(network.first), q.shape[2] + keys - 1
    inside, outside = network.first_bias.float()[None], network.second_bias.float()[None]
    if bias is not None:
        inside = torch.addmm(inside, bias.float().T, network.first[:, heads:].float().T)
        outside = outside + bias.float().T if network.keeps_bias else outside
    outside = (outside * _LOG2_E).expand(offsets, -1)
    if causal:
        # Offsets begin with 1 - rows, so the future is what stands before offset 0.
        outside = outside.contiguous()
        outside[: rows - 1] = float("-inf")
    to_hidden, from_hidden = network.first[:, :heads].float().T, network.second.float().T * _LOG2_E
    into_network = q.shape[3] ** -0.5
    if q.dtype.itemsize < 4:
        # Hidden units of 16 bits: the activation lets a factor through, and a power of two rounds nothing.
        excess = (inside.abs().amax() / _LARGEST_HIDDEN).clamp(min=1)
        shrunk = excess.log2().ceil().neg().exp2()
        to_hidden, inside, from_hidden = to_hidden * shrunk / _LOGIT_SHIFT, inside * shrunk, from_hidden / shrunk
        to_hidden, from_hidden, into_network = to_hidden.half(), from_hidden.half(), into_network * _LOGIT_SHIFT
    more_heads, more_units = padded(heads) - heads, padded(units) - units
    before, after = size.keys, size.rows
    future = float("-inf") if causal else 0.0
    outside = pad(pad(outside, (0, 0, before, 0), value=future), (0, more_heads, 0, after))
    return _Inputs(
        pad(to_hidden, (0, more_units, 0, more_heads)).contiguous(),
        pad(from_hidden, (0, more_heads, 0, more_units)).contiguous(),
        pad(inside.expand(offsets, -1), (0, more_units, before, after)),
        outside,
        into_network,
    )


def padded(count: int) -> int:
    """The next power of two, and 16 at least: what a product on tensor cores takes."""
    return max(16, 1 << (count - 1).bit_length())


def _reach(x: Float[Tensor, "b h t d"]) -> int:
    """The last index into a text."""
    return sum((size - 1) * stride for size, stride in zip(x.shape[1:], x.stride()[1:], strict=True))


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be that of the tensors."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


# Of numbers that change with a text nothing is compiled in: not that they are 1, nor multiples of 16.
@functools.cache
def _weigh() -> Any:
    return triton.jit(weigh_pairs, do_not_specialize=["begin", "rows", "keys", "p_text", "p_head", "p_row"])


@functools.cache
def _add() -> Any:
    return triton.jit(add_values, do_not_specialize=["begin", "rows", "keys", "p_text", "p_head", "p_row"])
