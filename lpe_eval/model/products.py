"""Products of queries and keys in float32, also where both are of 16 bits.

A product of two numbers of 16 bits is exact in float32. Rounded back to 16 bits, a logit of 16 would be wrong by up to
a thirtieth, which the softmax makes three percent of a weight.
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


def products(
    queries: Float[Tensor, "b h r d"], keys: Float[Tensor, "b h k d"], scale: float = 1.0
) -> Float[Tensor, "b h r k"]:
    """scale q . k in float32."""
    if queries.dtype.itemsize > 2:
        return ((queries if scale == 1 else queries * scale) @ keys.transpose(-1, -2)).float()
    if not torch.is_grad_enabled() and _sums_in_float32(queries.device, queries.dtype):
        wide = torch.bmm(queries.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), out_dtype=torch.float32)
        return (wide if scale == 1 else wide.mul_(scale)).unflatten(0, queries.shape[:2])
    wide = queries.float()
    return (wide if scale == 1 else wide * scale) @ keys.float().transpose(-1, -2)


@lru_cache(maxsize=64)
def _sums_in_float32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the device multiplies numbers of 16 bits into float32, which torch 2.6 lacks and a CPU does not do."""
    if device.type != "cuda":
        return False
    try:
        small = torch.zeros(1, 16, 16, device=device, dtype=dtype)
        return torch.bmm(small, small, out_dtype=torch.float32).dtype == torch.float32
    except (TypeError, RuntimeError):
        return False
