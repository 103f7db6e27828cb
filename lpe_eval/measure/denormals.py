"""Numbers too small for a full mantissa, taken as zero while a command computes.

The softmax of a steep bias (ALiBi) leaves probabilities below 2^-126, which float32 holds as denormal numbers. Intel's
processors compute with each of them in microcode, which made ALiBi at 8192 tokens cost 1.92 times plain attention on a
Xeon, and 1.14 with denormal numbers taken as zero. AMD's take no longer. A probability that is lost so is
below 1.2e-38 of the others.

Choices:
    * The switch belongs to a thread, and a thread begins with that of the one that began it. PyTorch's workers may
      run already, so GNU's and LLVM's OpenMP are asked to end them: the next operation begins new ones.
    * Where OpenMP cannot be asked (found on Linux alone), only what begins later follows. That is all of it in a
      command, whose workers begin with its first large operation.
"""

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_MAPPED = Path("/proc/self/maps")
_OPENMP = re.compile(r"/.*/(?:libgomp|libomp|libiomp)[^/\n]*$", re.MULTILINE)
_PAUSE_HARD = 2
"""`omp_pause_hard` of omp.h: everything that the library holds is given back."""


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Inside, this thread and the workers of PyTorch take denormal numbers as zero; afterwards as they did before."""
    if _taken_as_zero() or not torch.set_flush_denormal(True):
        yield
        return
    _end_workers()
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        _end_workers()


def _taken_as_zero() -> bool:
    """Whether this thread does already."""
    return not torch.full((1,), 1e-39).mul(1.0).count_nonzero()


def _end_workers() -> None:
    """Ends the threads that OpenMP keeps for this one."""
    try:
        libraries = set(_OPENMP.findall(_MAPPED.read_text(encoding="utf-8")))
    except OSError:
        return
    for path in libraries:
        try:
            ctypes.CDLL(path).omp_pause_resource_all(_PAUSE_HARD)
        except (AttributeError, OSError):  # older than OpenMP 5, or gone from the disk
            continue
