"""What a device can run beyond PyTorch's own operations."""

from importlib.util import find_spec

import torch


def has_triton(device: torch.device) -> bool:
    """Whether Triton can compile for the device."""
    if device.type != "cuda" or find_spec("triton") is None or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)
