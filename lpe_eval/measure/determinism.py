"""The same command, the same values: what `--deterministic` asks of PyTorch.

On a CPU nothing is asked for: a run is repeated to the bit by the same command on the same machine with the
same number of threads. On CUDA some kernels add in an order that differs from call to call. PyTorch is then
told to take others, cuBLAS is given a fixed workspace, and a step for which there is no other kernel is an
error instead of a different number.

Choices:
    * The switches are those of the whole process, so they are put back at the end.
    * cuBLAS reads `CUBLAS_WORKSPACE_CONFIG` when it is first used, so a process that has multiplied matrices
      on CUDA before must have set it itself; PyTorch says so where it was not.
    * Batches that are halved when memory runs out change rounding. A run that must be repeated to the bit
      needs a batch size that fits.
    * So do batches of somebody else's model that shrink because they are slower than their windows one by one. None
      does so under `--deterministic` or with a `--batch-size` of one's own.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lpe_eval.errors import SpecError

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_REPEATABLE = (":4096:8", ":16:8")
"""The two settings that NVIDIA and PyTorch document as repeatable."""


def is_not_deterministic(error: BaseException) -> bool:
    """Whether an error says that a step has no deterministic form, where one is demanded."""
    demanded = torch.are_deterministic_algorithms_enabled()
    return demanded and isinstance(error, RuntimeError) and "deterministic" in str(error).lower()


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside, the same steps give the same bits on CUDA too; does nothing unless `wanted`.

    Enter it before anything is computed on CUDA.

    Raises:
        SpecError: the environment forbids it, or a step inside has no deterministic form on its device.
    """
    if not wanted:
        yield
        return
    given = os.environ.get(_WORKSPACE)
    if given not in (None, *_REPEATABLE):
        raise SpecError(
            f"--deterministic: {_WORKSPACE} is {given!r}, which does not repeat; unset it, or set {_REPEATABLE[0]}"
        )
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tuned = torch.backends.cudnn.benchmark
    os.environ.setdefault(_WORKSPACE, _REPEATABLE[0])
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if not is_not_deterministic(error):
            raise
        first = " ".join(str(error).split()).partition(". ")[0]
        raise SpecError(f"--deterministic: {first}; leave the flag out, or use another device") from error
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        torch.backends.cudnn.benchmark = tuned
        if given is None:
            os.environ.pop(_WORKSPACE, None)
