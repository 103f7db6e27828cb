"""Rows that see a window, many blocks of them in one call: on a CPU, without gradients.

A block of `ROWS` query rows in a window of W keys sees, all rows alike, the W - ROWS keys before it. Only the keys at
the far end of the window, which leave it row by row, and its own need a mask. So a block is two calls whose contexts
are put together, one without a mask; and since every block looks alike, the blocks are one more axis of a single call,
over views of the keys that overlap.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lpe_eval.model.mask import Mask
from lpe_eval.model.parts import Part, attend_part, has_parts, merged

ROWS = 64
"""Query rows of a block; fewer waste less at the ends of the window and make thinner products."""


class Band(NamedTuple):
    """The rows that can be computed so."""

    rows: slice
    window: int

    @property
    def blocks(self) -> int:
        """How many blocks they are."""
        return (self.rows.stop - self.rows.start) // ROWS


def band_within(first: int, length: int, mask: Mask) -> Band | None:
    """The rows from `first` on whose whole window lies in the text, in whole blocks; None if that is not worth it."""
    worth = mask.window is not None and mask.chunk is None and mask.window >= 2 * ROWS
    if mask.window is None or not worth or torch.is_grad_enabled() or not has_parts():
        return None
    start = max(first, mask.window)
    blocks = (length - start) // ROWS
    return Band(slice(start, start + blocks * ROWS), mask.window) if blocks > 0 else None


def blocks_around(band: Band | None, first: int, length: int, size: int) -> list[slice]:
    """The rows from `first` on: those of the band in one piece, the others in blocks of at most `size`."""
    stretches = [(first, length)] if band is None else [(first, band.rows.start), (band.rows.stop, length)]
    found = [slice(at, min(at + size, stop)) for start, stop in stretches for at in range(start, stop, size)]
    return sorted([*found, *([] if band is None else [band.rows])], key=lambda rows: rows.start)


def attend_band(
    q: Float[Tensor, "b h q d"],
    k: Float[Tensor, "b h k d"],
    v: Float[Tensor, "b h k d"],
    band: Band,
    levels: Float[Tensor, "b h k"] | None = None,
) -> Part:
    """The attention of a band.

    Args:
        q: queries of its rows.
        k: all keys.
        v: all values.
        band: the rows.
        levels: of all tokens, where the bias is the difference of two (`LevelBias`).
    """
    count, hidden = band.blocks, _hidden(q.device)
    found = []
    for each in range(len(q)):
        queries = q[each].unflatten(1, (count, ROWS))
        of_middle, of_ends, of_rows = None, hidden[None, None], None
        if levels is not None:
            # Each block measures levels from a token of its own.
            of_rows = levels[each, :, band.rows].unflatten(1, (count, ROWS))
            own = of_rows[..., ROWS // 2, None]
            of_rows = (of_rows - own).float()
            of_middle = (own - _middle(levels[each, ..., None], band)[..., 0]).float()[:, :, None]
            of_ends = (own - _ends(levels[each, ..., None], band)[..., 0]).float()[:, :, None] + hidden
        keys, values = k[each], v[each]
        middle = attend_part(queries, _middle(keys, band), _middle(values, band), of_middle)
        ends = attend_part(queries, _ends(keys, band), _ends(values, band), of_ends)
        part = merged([middle, ends])
        lse = part.lse if of_rows is None else part.lse + of_rows
        found.append(Part(part.context.flatten(1, 2), lse.flatten(1, 2)))
    if len(found) == 1:
        return Part(found[0].context[None], found[0].lse[None])
    return Part(torch.stack([each.context for each in found]), torch.stack([each.lse for each in found]))


def _middle(x: Float[Tensor, "h k d"], band: Band) -> Float[Tensor, "h n m d"]:
    """What all rows of each block see: views that overlap."""
    start, stop = band.rows.start, band.rows.stop
    return x[:, start + ROWS - band.window : stop - ROWS].unfold(1, band.window - ROWS, ROWS).transpose(-1, -2)


def _ends(x: Float[Tensor, "h k d"], band: Band) -> Float[Tensor, "h n m d"]:
    """The keys that leave the window of each block row by row, and the block's own."""
    rows, window = band.rows, band.window
    leaving, own = x[:, rows.start - window : rows.stop - window], x[:, rows]
    return torch.cat([each.unflatten(1, (band.blocks, ROWS)) for each in (leaving, own)], dim=2)


def _hidden(device: torch.device) -> Float[Tensor, "q k"]:
    """Minus infinity where a row of a block does not see a key of the ends."""
    row, key = torch.arange(ROWS, device=device)[:, None], torch.arange(ROWS, device=device)
    seen = torch.cat([key > row, key <= row], dim=1)
    return torch.zeros(seen.shape, device=device).masked_fill_(~seen, float("-inf"))
