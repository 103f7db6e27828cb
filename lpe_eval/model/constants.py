"""Numbers that an encoding is made of, on the device where they are needed.

A copy from the host makes it wait for a GPU, in every layer of every step, and work that is recorded to be
replayed must not contain one. So each row of numbers is copied once and kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Float[Tensor, " n"]:
    """The numbers in a dtype on a device; the same tensor each time, so it must not be written to."""
    found, used = _kept(values, dtype, device), _used.get()
    if used is not None:
        used.append(found)
    return found


@contextmanager
def constants_used() -> Iterator[list[Tensor]]:
    """Collects the constants that are handed out inside, for what will read them later by their addresses."""
    found: list[Tensor] = []
    before = _used.set(found)
    try:
        yield found
    finally:
        _used.reset(before)


_used: ContextVar[list[Tensor] | None] = ContextVar("used", default=None)


@lru_cache(maxsize=512)
def _kept(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Float[Tensor, " n"]:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
