"""What a device can run beyond PyTorch's own operations, and what it cannot."""

import functools
from importlib import metadata
from importlib.util import find_spec

import torch

_WITHOUT_FLOAT64 = ("mps",)
"""Types of devices that have no float64: Apple's."""

_OLDEST_TRITON = (3, 3)
"""That of torch 2.7; the one before ends the whole process at some shapes, and FlexAttention takes tiles since then."""

_OLDEST_CARD = (8, 0)
"""Compute capability of the first cards with bfloat16."""


def has_float64(device: torch.device) -> bool:
    """Whether the device has numbers of 64 bits."""
    return device.type not in _WITHOUT_FLOAT64


def device_of_float64(device: torch.device) -> torch.device:
    """Where float64 numbers for a device are computed: there, or on the CPU if it has none."""
    return device if has_float64(device) else torch.device("cpu")


def has_triton(device: torch.device) -> bool:
    """Whether kernels written in Triton are compiled for the device: NVIDIA's from compute capability 8.0 on.

    Kernels here were compiled ahead of time for those alone. AMD's cards pass for CUDA devices of PyTorch, have less
    memory in a multiprocessor and other instructions.
    """
    if device.type != "cuda" or find_spec("triton") is None or not torch.cuda.is_available():
        return False
    new = triton_version() >= _OLDEST_TRITON and torch.version.hip is None
    return new and torch.cuda.get_device_capability(device) >= _OLDEST_CARD


@functools.cache
def triton_version() -> tuple[int, ...]:
    """The first two numbers of Triton's version; none where its package does not say."""
    for package in ("triton", "pytorch-triton", "triton-windows"):
        try:
            return tuple(int(each) for each in metadata.version(package).split(".")[:2] if each.isdecimal())
        except metadata.PackageNotFoundError:
            continue
    return ()


def has_bfloat16(device: torch.device) -> bool:
    """Whether a CUDA device multiplies in bfloat16 by itself, not by the detour over float32 that older ones take."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def shared_memory(device: torch.device) -> int:
    """Bytes of fast memory that one program may have on a CUDA device."""
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin
