"""A bias that is a network of a relative distance (FIRE): for each distance once, or from its pieces, or pair by pair.

Choices:
    * While every query of a block is below the threshold the bias depends on i - j alone, and the network is computed
      once for each distance. The numbers are the same.
    * The network is piecewise linear in one number. On the CPU, without gradients, in a causal model, a block of rows
      above the threshold is put together from its pieces (`_in_segments`): equal up to rounding, and the hidden
      layer is never computed for a pair. Elsewhere, without gradients, each pair finds its piece: the same again,
      and no number is fetched from the device.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model.fast.piecewise import Bends, RatioNetwork, bends_up_to, linear_pieces
from lpe_eval.model.gpu import has_float64
from lpe_eval.model.offsets import spread_offsets, worth_looking
from lpe_eval.model.positions import consecutive


class Interpolation(NamedTuple):
    """network(psi(distance(i - j)) / (psi(max(threshold, reach(i))) + eps))."""

    network: RatioNetwork
    distance: Callable[[Int[Tensor, "..."]], Float[Tensor, "..."]]
    psi: Callable[[Float[Tensor, "..."]], Float[Tensor, "..."]]
    """Never negative, and rising."""
    threshold: Float[Tensor, ""]
    reach: Callable[[Int[Tensor, " q"], Int[Tensor, " k"]], Int[Tensor, " q"]]
    """How far each query reaches, from the positions of the queries and of all keys."""
    eps: float
    causal: bool
    """Whether the distance never rises from one key to the next, and a query reaches as far as its position."""


def interpolated(bias: Interpolation, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Float[Tensor, "h q k"]:
    """The bias between queries at `q_at` and keys at `k_at`."""
    reach, threshold, on_cpu = bias.reach(q_at, k_at), bias.threshold, q_at.device.type == "cpu"
    if on_cpu and worth_looking(q_at, k_at) and int(reach.max()) < float(threshold.detach()):
        return spread_offsets(lambda offset: _of(bias, bias.psi(bias.distance(offset)), threshold), q_at, k_at)
    if _may_cut(bias, q_at) and consecutive(k_at):
        if consecutive(q_at.flip(0)):
            return _in_segments(bias, q_at, k_at)
        if consecutive(q_at):
            return _in_segments(bias, q_at.flip(0), k_at).flip(1)
    offset = q_at[:, None] - k_at[None, :]
    normaliser = torch.maximum(threshold, reach.to(threshold.dtype))
    if not (on_cpu or torch.is_grad_enabled()) and worth_looking(q_at, k_at) and has_float64(q_at.device):
        return _from_pieces(bias, bias.psi(bias.distance(offset)), normaliser)
    numerator = bias.psi(bias.distance(offset)).flatten()
    return _of(bias, numerator, normaliser[:, None].expand(offset.shape)).unflatten(-1, offset.shape)


def _from_pieces(
    bias: Interpolation, numerator: Float[Tensor, "q k"], normaliser: Float[Tensor, " q"]
) -> Float[Tensor, "h q k"]:
    """Of each pair by the linear pieces of the network, which a GPU finds without telling anybody where they are."""
    pieces = linear_pieces(bias.network)
    ratio = numerator / (bias.psi(normaliser) + bias.eps)[:, None]
    piece = torch.searchsorted(pieces.knots, ratio, right=True)
    return torch.addcmul(pieces.constant[:, piece], pieces.slope[:, piece], ratio)


def _of(bias: Interpolation, numerator: Float[Tensor, " n"], normaliser: Float[Tensor, "..."]) -> Float[Tensor, "h n"]:
    return bias.network(numerator / (bias.psi(normaliser) + bias.eps).flatten())


def _may_cut(bias: Interpolation, at: Int[Tensor, " t"]) -> bool:
    single = bias.network.first.dtype == torch.float32
    return bias.causal and not torch.is_grad_enabled() and at.device.type == "cpu" and single


def _in_segments(bias: Interpolation, q_at: Int[Tensor, " q"], k_at: Int[Tensor, " k"]) -> Float[Tensor, "h q k"]:
    """The bias of rows that run backwards, put together from the linear pieces of the network.

    Number the lines of equal distance by m = row + column. Between two knots of the network the bias is
    constant + slope * psi(m) / psi(row): two tables over m, each read as a strided view. The
    row moves a knot, but within a block only by a few lines: the tables leave a knot out until
    all rows have passed it, and the lines in between, a slanted strip of the block, get what
    it adds. With some room before each row, the strip too is a strided view.
    """
    rows, columns, heads = len(q_at), len(k_at), len(bias.network.second)
    lines = rows + columns - 1
    line = torch.arange(lines, device=q_at.device)
    psi = bias.psi(bias.distance(q_at[0] - k_at[0] - line))
    reach = torch.maximum(bias.threshold, q_at.to(bias.threshold.dtype))
    inverse = 1 / (bias.psi(reach) + bias.eps)[:, None]
    pieces = bends_up_to(bias.network, float(psi[0] * inverse[-1]))
    # psi falls along m and `inverse` rises along the rows. A knot is passed on the first so many lines.
    falling = -psi.double()
    by_all = torch.searchsorted(falling, -pieces.knot / inverse[0].double()).tolist()
    by_any = torch.searchsorted(falling, -pieces.knot / inverse[-1].double()).tolist()
    constant, slope = _tables(pieces, by_all, lines)
    wide = torch.empty(heads, rows, rows + columns, device=q_at.device)
    block = wide[:, :, rows:]
    constant, slope = (table.float().unfold(-1, columns, 1) for table in (constant, slope * psi))
    torch.addcmul(constant, slope, inverse, out=block)
    for number, (start, stop) in enumerate(zip(by_all, by_any, strict=True)):
        if start < stop:
            shape, steps = (heads, rows, stop - start), (wide.stride(0), wide.stride(1) - 1, 1)
            passed = torch.relu(psi[start:stop] * inverse - pieces.knot[number].float())
            strip = wide.as_strided(shape, steps, rows + start)
            strip.addcmul_(pieces.jump[:, number, None, None].float(), passed)
    return block


def _tables(pieces: Bends, passed: list[int], lines: int) -> tuple[Float[Tensor, "h m"], Float[Tensor, "h m"]]:
    """Constant and slope on each line, where a knot counts on its first `passed` lines."""
    # Knots fall, so `passed` rises: on the lines between the ends of two knots the later ones count.
    ends = torch.tensor([*passed, lines]).diff(prepend=torch.zeros(1, dtype=torch.long))
    ends = ends.to(pieces.knot.device)
    tables = []
    for start, jump in ((pieces.constant, -pieces.jump * pieces.knot), (pieces.slope, pieces.jump)):
        later = F.pad(jump, (0, 1)).flip(-1).cumsum(-1).flip(-1)
        tables.append((start[:, None] + later).repeat_interleave(ends, dim=1))
    return tables[0], tables[1]
