"""Which keys a query sees: everything, its past, or the near part of its past.

A window or a chunk belongs to a layer of the model and not to an encoding, which never knows about it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor


@dataclass(frozen=True)
class Mask:
    """What a layer lets each query see.

    Attributes:
        causal: whether a query sees only its past and itself; windows and chunks need that.
        window: the most keys that a query sees, its own among them: i - j < window. None is no limit.
        chunk: tokens of a chunk; a query sees the keys of its own chunk alone. None is no chunks.
    """

    causal: bool = True
    window: int | None = None
    chunk: int | None = None

    @property
    def bounded(self) -> bool:
        """Whether a query sees a limited part of its past."""
        return self.window is not None or self.chunk is not None

    def most(self, length: int) -> int:
        """The most keys that a query of a text of `length` tokens sees."""
        return min(length, self.window or length, self.chunk or length)

    def keys(self, rows: slice, length: int, before: int = 0, after: int = 0) -> slice:
        """From the first key that a block of query rows sees to the last.

        Args:
            rows: the block, counted in the whole text.
            length: tokens of the text.
            before: keys wanted in front of the first one that is seen, as far as there are any.
            after: keys wanted behind the last one.
        """
        if not self.causal:
            return slice(0, length)
        first = 0 if self.window is None else rows.start - self.window + 1
        if self.chunk is not None:
            first = max(first, rows.start // self.chunk * self.chunk)
        return slice(max(0, first - before), min(length, rows.stop + after))

    def visible(self, rows: slice, keys: slice, device: torch.device) -> Bool[Tensor, "q k"]:
        """Which of some keys each row of a block sees, both counted in the whole text."""
        query = torch.arange(rows.start, rows.stop, device=device)[:, None]
        key = torch.arange(keys.start, keys.stop, device=device)[None, :]
        seen = key <= query
        if not self.causal:
            return torch.ones_like(seen)
        if self.window is not None:
            seen &= query - key < self.window
        if self.chunk is not None:
            seen &= query // self.chunk == key // self.chunk
        return seen
