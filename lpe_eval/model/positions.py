"""What the host knows of positions that lie on a device, so that no layer has to wait for the device to tell it.

Positions on the CPU can be looked at. Those elsewhere carry what was known when they were made: `run_on` makes
positions that run on one by one, and `part` cuts a block out of any. Of what was made in another way nothing is known,
and nobody asks: it is computed pair by pair, which is right for all positions and takes longer.
"""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

_NOTE = "lpe_eval_known"
"""The attribute of a tensor that holds what is known of it."""


class Known(NamedTuple):
    """What is known of some positions."""

    first: int
    last: int
    step: int
    """1 where they run on one by one, -1 where they run back, 0 where they ascend with gaps."""

    @property
    def lowest(self) -> int:
        """The smallest position."""
        return min(self.first, self.last)

    @property
    def highest(self) -> int:
        """The largest position."""
        return max(self.first, self.last)


def run_on(length: int, device: torch.device) -> Int[Tensor, " t"]:
    """The positions 0 .. length - 1, known to run on one by one."""
    return noted(torch.arange(length, device=device), Known(0, length - 1, 1))


def noted(at: Int[Tensor, " t"], known: Known) -> Int[Tensor, " t"]:
    """The positions, with what is known of them."""
    if at.device.type != "cpu" and len(at):
        vars(at)[_NOTE] = known
    return at


def copied(there: Int[Tensor, " t"], here: Int[Tensor, " t"]) -> Int[Tensor, " t"]:
    """Positions that were copied to a device, with what is known of the original."""
    known = known_of(here)
    return there if known is None else noted(there, known)


def part(at: Int[Tensor, " t"], rows: slice, backwards: bool = False) -> Int[Tensor, " r"]:
    """A stretch of positions that is inside of them, the last one first if it is wanted `backwards`."""
    some = at[rows].flip(0) if backwards else at[rows]
    known = None if at.device.type == "cpu" else known_of(at)
    if known is None or not known.step or not len(some):
        return some
    first = known.first + known.step * (rows.start or 0)
    last = first + known.step * (len(some) - 1)
    return noted(some, Known(last, first, -known.step) if backwards else Known(first, last, known.step))


def known_of(at: Int[Tensor, " t"]) -> Known | None:
    """What is known of positions: on the CPU all there is to see, elsewhere what they carry; None where nothing is."""
    if not len(at):
        return None
    if at.device.type != "cpu":
        return vars(at).get(_NOTE)
    change = at[1:] - at[:-1]
    step = 1 if bool((change == 1).all()) else -1 if bool((change == -1).all()) else 0
    if not step and bool((change < 0).any()):
        return None
    return Known(int(at[0]), int(at[-1]), step)


def consecutive(at: Int[Tensor, " t"]) -> bool:
    """Whether positions are known to run on one by one."""
    known = known_of(at)
    return known is not None and (known.step == 1 or len(at) == 1)


def highest(at: Int[Tensor, " t"]) -> int:
    """The largest position; only where nothing is known of positions on a device does the host wait for it."""
    known = known_of(at)
    return int(at.max()) if known is None else known.highest
