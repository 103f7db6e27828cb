"""The most memory that was in use at any moment since a beginning."""

import contextlib
import ctypes
import math
import sys
from pathlib import Path
from typing import Any

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_CLEAR_PEAK = "5"
"""What Linux reads there as: the highest memory begins anew with what is held now (`man 5 proc`)."""


def begin_peak(device: torch.device) -> None:
    """From now on `peak_memory_mib` counts anew, on CUDA and on Linux; elsewhere it goes on counting."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_CLEAR_PEAK, encoding="ascii")


def peak_memory_mib(device: torch.device) -> float:
    """Highest memory in MiB since `begin_peak`: what was allocated on a CUDA device, else what this process held.

    Of a process it is `VmHWM` of /proc, where there is one. `ru_maxrss` serves elsewhere; on Linux it would begin
    with the mark of the process that started this one. On Windows it is the largest working set. NaN where the system
    tells none of these.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if _STATUS.exists():
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return _largest_working_set() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


class _Counters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS of psapi.h."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("cb", "PageFaultCount")),
        *((name, ctypes.c_size_t) for name in ("PeakWorkingSetSize", "WorkingSetSize")),
        *((f"Quota{name}Usage", ctypes.c_size_t) for name in ("PeakPagedPool", "PagedPool")),
        *((f"Quota{name}Usage", ctypes.c_size_t) for name in ("PeakNonPagedPool", "NonPagedPool")),
        *((name, ctypes.c_size_t) for name in ("PagefileUsage", "PeakPagefileUsage")),
    ]


def _largest_working_set() -> float:
    """In bytes; NaN where this is not Windows."""
    windows: Any = getattr(ctypes, "windll", None)
    if windows is None:
        return math.nan
    process, told = windows.kernel32.GetCurrentProcess, windows.kernel32.K32GetProcessMemoryInfo
    process.restype = ctypes.c_void_p
    told.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Counters), ctypes.c_uint32)
    counters = _Counters(ctypes.sizeof(_Counters))
    if not told(process(), ctypes.byref(counters), counters.cb):
        return math.nan
    return float(counters.PeakWorkingSetSize)
