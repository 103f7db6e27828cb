"""The most memory that was in use at any moment until now."""

import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def peak_memory_mib(device: torch.device) -> float:
    """Highest memory so far in MiB: what was allocated on a CUDA device, else what this process held.

    Of a process it is `VmHWM` of /proc, where there is one. `ru_maxrss` serves elsewhere; on Linux it would begin
    with the mark of the process that started this one.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
