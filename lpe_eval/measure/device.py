"""Where and in what precision a model runs when the user leaves it open."""

import torch

from lpe_eval.errors import SpecError


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, else the CPU: never another one, as Apple's MPS.

    Raises:
        SpecError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("a device of shapes without numbers")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, OverflowError, ValueError) as error:
        raise SpecError(f"--device {name}: no such device on this machine; use cpu or auto") from error
    return device


def dtype_name(name: str, device: torch.device) -> str:
    """The dtype called `name`; "auto" is bfloat16 on CUDA and float32 elsewhere."""
    if name != "auto":
        return name
    return "bfloat16" if device.type == "cuda" else "float32"
