"""What a device can run beyond PyTorch's own operations, and what it cannot."""

from importlib.util import find_spec

import torch

_WITHOUT_FLOAT64 = ("mps",)
"""Types of devices that have no float64: Apple's."""


def device_of_float64(device: torch.device) -> torch.device:
    """Where float64 numbers for a device are computed: there, or on the CPU if it has none."""
    return torch.device("cpu") if device.type in _WITHOUT_FLOAT64 else device


def has_triton(device: torch.device) -> bool:
    """Whether Triton can compile for the device."""
    if device.type != "cuda" or find_spec("triton") is None or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)
