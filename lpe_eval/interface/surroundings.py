"""The program around a measurement, left as it was: what is global in PyTorch, NumPy and Python.

A measurement computes as the command would: in float32 unless a type is given, without autocast, with tensors on the
device that they are sent to, and with numbers too small for a full mantissa taken as zero. Afterwards the program
finds its own settings, and its random numbers go on as if nothing had been measured.

Choices:
    * Switches that belong to the machine and not to the command, such as TF32 and the number of threads, stay those of
      the program: the command would find them too. The provenance of a run says what they were.
    * Allocations are left to the program: the command tells the C library to keep what it frees, to its own end.
"""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from lpe_eval.measure.denormals import denormals_as_zero
from lpe_eval.measure.heap import shared_process
from lpe_eval.model.foreign.library_log import repeats_left_out


@contextmanager
def left_alone(device: torch.device) -> Iterator[None]:
    """Inside, work is done as by a command of its own; afterwards everything global is as it was before.

    Args:
        device: where the work is done.
    """
    with ExitStack() as stack:
        stack.enter_context(_random_numbers(device))
        stack.enter_context(_default_type(torch.float32))
        for kind in dict.fromkeys(("cpu", device.type)):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(shared_process())
        stack.enter_context(denormals_as_zero())
        stack.enter_context(repeats_left_out())
        yield


@contextmanager
def _random_numbers(device: torch.device) -> Iterator[None]:
    """Afterwards all global sources of random numbers go on from where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    kind = "cuda" if device.type == "cpu" else device.type
    # Of this device alone, since asking another one for its state would make room for work on it.
    devices = [] if device.type == "cpu" else [torch.empty(0, device=device).device.index or 0]
    try:
        with torch.random.fork_rng(devices, device_type=kind):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def _default_type(dtype: torch.dtype) -> Iterator[None]:
    """Inside, new floating tensors have this type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
