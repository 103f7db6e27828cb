"""Where and in what precision a model runs when the user leaves it open."""

from collections.abc import Mapping

import torch

from lpe_eval.errors import SpecError, one_sentence
from lpe_eval.model.gpu import has_bfloat16
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.spec.device_map import cards_of

_NARROW = ("NO AVX", "AVX2")
"""Instructions of x86 processors, as PyTorch names them, without products in bfloat16."""


def device_of_rank(name: str, local: int | None) -> str:
    """The device that a rank means by a name: of several CUDA devices each rank of a machine takes another one.

    Args:
        name: as it was asked for; one with a number is taken as it is.
        local: number of the rank on its machine; None for a process that is no rank.
    """
    if local is None or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{local % torch.cuda.device_count()}"


def placed_device(name: str, device_map: str | Mapping[str, str] | None, local: int | None = None) -> torch.device:
    """The device that computes a model whose parts lie where a map says, and that inputs go to.

    It is the one called `name` unless the map names places; then it is the first card among them, or the CPU.

    Args:
        name: as it was asked for.
        device_map: see `spec/device_map.py`; None where the whole model lies on the device.
        local: number of a rank on its machine; None for a process that is no rank.

    Raises:
        SpecError: a device is not there, the map names another one than `name`, or cards that all ranks would share.
    """
    if not isinstance(device_map, Mapping):
        return pick_device(device_of_rank(name, local))
    cards = cards_of(device_map)
    if cards and local is not None:
        raise SpecError(
            f"--device-map names {cards[0]}, and every rank of torchrun would put its model there; start one process, "
            "or shards whose CUDA_VISIBLE_DEVICES are different cards"
        )
    places = [pick_device(each, "--device-map") for each in cards] or [torch.device("cpu")]
    if name != "auto" and pick_device(name).type != places[0].type:
        raise SpecError(f"--device {name}: --device-map computes on {cards[0] if cards else 'cpu'}; leave --device out")
    return places[0]


def pick_device(name: str, flag: str = "--device") -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, else the CPU: never another one, as Apple's MPS.

    Args:
        name: as it was asked for.
        flag: that asked for it, for messages.

    Raises:
        SpecError: there is no such device here, or it cannot compute.
    """
    if name == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    else:
        try:
            device = torch.device(name)
            if device.type == "meta":
                raise RuntimeError("a device of shapes without numbers")
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, OverflowError, ValueError) as error:
            raise SpecError(f"{flag} {name}: no such device on this machine; use cpu or auto") from error
    refuse_unable(device, name)
    return device


def refuse_unable(device: torch.device, name: str) -> None:
    """Has the device add two numbers, because a card can be there for which this PyTorch holds no code.

    Raises:
        SpecError: it cannot.
    """
    if device.type == "cpu":
        return
    try:
        found = torch.ones(2, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:
        what = "is in use by others or out of memory" if out_of_memory(error) else "cannot compute here"
        raise SpecError(
            f"--device {name}: {_called(device)} {what} with PyTorch {torch.__version__} ({one_sentence(error)}); "
            "install a build of PyTorch for it, or use --device cpu"
        ) from error
    if found != 2:
        raise SpecError(f"--device {name}: {_called(device)} says that 1 + 1 is {found}; use --device cpu")


def _called(device: torch.device) -> str:
    try:
        if device.type == "cuda":
            major, minor = torch.cuda.get_device_capability(device)
            return f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor})"
    except (RuntimeError, AssertionError):
        pass
    return f"the device {device}"


def dtype_name(name: str, device: torch.device) -> str:
    """The dtype called `name`; "auto" is bfloat16 on a CUDA device that computes in it, and float32 elsewhere."""
    if name != "auto":
        return name
    return "bfloat16" if has_bfloat16(device) else "float32"


def slow_products(dtype: str, device: torch.device) -> str | None:
    """A sentence where a processor emulates the products of a training in `dtype`; None where it has them.

    Below AVX-512 PyTorch multiplies in bfloat16 one number at a time: 4096 x 128 by 128 x 512 took 0.41 seconds on an
    AMD EPYC with AVX2, and 0.011 in float32.
    """
    if device.type != "cpu" or dtype != "bfloat16" or torch.backends.cpu.get_cpu_capability() not in _NARROW:
        return None
    return "this processor emulates products in bfloat16, tens of times slower than float32; set compute_dtype: float32"
