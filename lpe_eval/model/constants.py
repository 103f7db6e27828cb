"""Numbers that an encoding is made of, on the device where they are needed.

A copy from the host makes it wait for a GPU, in every layer of every step, and work that is recorded to be
replayed must not contain one. So each row of numbers is copied once and kept.
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


@lru_cache(maxsize=512)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Float[Tensor, " n"]:
    """The numbers in a dtype on a device; the same tensor each time, so it must not be written to."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
