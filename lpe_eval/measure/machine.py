"""What this machine and this installation are, as far as it decides what runs and how fast; for `lpe-eval doctor`.

Everything is looked at by itself, and what cannot be seen is None: a tool for finding out what is wrong must not need
that nothing is. What is told may be pasted into a report: no name of host or user, no path but below `~`, and of the
environment only numbers of the variables that are named here.
"""

import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import lpe_eval

Seen = TypeVar("Seen")

_LIBRARIES = (
    *("torch", "numpy", "pandas", "pyarrow", "datasets", "matplotlib", "pydantic", "safetensors", "jaxtyping"),
    *("typer", "rich", "pyyaml"),
)
EXTRAS = {
    "hf": ("transformers", "tokenizers"),
    "peft": ("transformers", "tokenizers", "peft"),
    "gguf": ("transformers", "tokenizers", "gguf", "accelerate"),
}
"""What each extra needs."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_fp16", "asimd", "sve", "bf16")
"""Of a processor, as Linux names them on x86 and on ARM."""
_SIDE = 512
"""Rows and columns of the matrices whose product is timed."""


def installation() -> dict[str, Any]:
    """Versions of this program, of Python and of libraries; None for those that are not there."""
    wanted = dict.fromkeys([*_LIBRARIES, *(name for names in EXTRAS.values() for name in names), "triton"])
    return {
        "lpe_eval": lpe_eval.__version__,
        "commit": tried(_commit),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libraries": {name: _version(name) for name in wanted},
    }


def processor() -> dict[str, Any]:
    """Its name, how many of its threads may be used, and which instructions it has that decide speed."""
    from lpe_eval.measure.provenance import processor_name

    return {
        "name": tried(processor_name),
        "processors": os.cpu_count(),
        "usable": tried(_usable),
        "quota": tried(_quota),
        "flags": tried(_flags),
    }


def computing() -> dict[str, Any]:
    """What PyTorch sees: threads, instructions, devices, kernels; and the speed of a product on the processor.

    Raises:
        Exception: PyTorch cannot be imported; whatever that ends in.
    """
    import torch

    from lpe_eval.measure.device import slow_products

    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "variables": {name: _number(os.environ[name]) for name in _THREADS if name in os.environ},
        "instructions": tried(torch.backends.cpu.get_cpu_capability),
        "emulates_bfloat16": tried(lambda: slow_products("bfloat16", torch.device("cpu")) is not None),
        "gigaflops": tried(_gigaflops),
        "cuda_build": torch.version.cuda or torch.version.hip,
        "devices": tried(_devices) or [],
        "mps": tried(torch.backends.mps.is_available),
        "compiler": next((name for name in ("cc", "gcc", "clang", "cl") if shutil.which(name)), None),
    }


def memory() -> dict[str, int | None]:
    """Bytes of main memory: all, and what this process may still take."""
    from lpe_eval.model.needed_memory import free_memory

    return {"all": tried(lambda: os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")), "free": tried(free_memory)}


def folders() -> list[dict[str, Any]]:
    """Where large files go: what for, where as far as it may be told, bytes free, and whether it can be written."""
    home = Path("~").expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    hub = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    places = {
        "results": (Path("results/runs"), ""),
        "models of the Hub": (Path(os.environ.get("HF_HUB_CACHE") or hub / "hub"), "HF_HUB_CACHE or HF_HOME"),
        "datasets of the Hub": (
            Path(os.environ.get("HF_DATASETS_CACHE") or hub / "datasets"),
            "HF_DATASETS_CACHE or HF_HOME",
        ),
        "compiled kernels": (Path(os.environ.get("TRITON_CACHE_DIR") or home / ".triton"), "TRITON_CACHE_DIR"),
        "temporary files": (Path(tempfile.gettempdir()), "TMPDIR"),
    }
    return [_folder(what, place, variable, home) for what, (place, variable) in places.items()]


def tried(look: Callable[[], Seen]) -> Seen | None:
    """What a function finds, or None where it cannot look."""
    try:
        return look()
    except Exception:
        return None


def driver_is_here() -> bool:
    """Whether NVIDIA's driver shows itself, whatever PyTorch can do with it."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    from lpe_eval.measure.provenance import source

    found = source(Path(lpe_eval.__file__).parent)
    if found["commit"] is None:
        return None
    return f"{found['commit'][:12]}{' with changes since' if found['dirty'] else ''}"


def _usable() -> int:
    """Processors that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _quota() -> float | None:
    """Processors' worth of time that the control groups of Linux leave; None where there is no limit."""
    groups = [line.split("::/", 1)[1] for line in Path("/proc/self/cgroup").read_text().splitlines() if "0::/" in line]
    top = Path("/sys/fs/cgroup")
    limits = []
    for folder in {top, *(top.joinpath(*Path(each).parts[:depth]) for each in groups for depth in range(1, 32))}:
        if (folder / "cpu.max").is_file():
            most, period = (folder / "cpu.max").read_text().split()
            limits += [int(most) / int(period)] if most != "max" else []
    return min(limits, default=None)


def _flags() -> list[str] | None:
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", told, re.MULTILINE)
    return [name for name in _FLAGS if name in line[1].split()] if line else None


def _number(text: str) -> str:
    """A number or numbers with commas; anything else may be somebody's own affair."""
    return text if re.fullmatch(r"[\d,. -]{0,40}", text) else "set"


def _gigaflops() -> float:
    """Billions of operations a second in a product of two matrices in float32; the fastest of a few."""
    import torch

    draw = torch.Generator().manual_seed(0)
    a, b = (torch.rand(_SIDE, _SIDE, generator=draw) for _ in range(2))
    took = []
    for _ in range(6):
        began = time.perf_counter()
        torch.mm(a, b)
        took.append(time.perf_counter() - began)
    return 2 * _SIDE**3 / max(min(took), 1e-9) / 1e9


def _devices() -> list[dict[str, Any]]:
    import torch

    from lpe_eval.model.gpu import has_bfloat16, has_triton

    found = []
    for place in range(torch.cuda.device_count()):
        device = torch.device("cuda", place)
        held = torch.cuda.get_device_properties(device)
        found.append(
            {
                "name": held.name,
                "capability": f"{held.major}.{held.minor}",
                "memory": held.total_memory,
                "bfloat16": tried(lambda at=device: has_bfloat16(at)),
                "triton": tried(lambda at=device: has_triton(at)),
            }
        )
    return found


def _folder(what: str, place: Path, variable: str, home: Path) -> dict[str, Any]:
    there = next((each for each in (place, *place.absolute().parents) if each.exists()), None)
    usage = None if there is None else tried(lambda: shutil.disk_usage(there).free)
    said_by = next((name for name in variable.split(" or ") if name in os.environ), "")
    if not place.is_absolute():
        told = place.as_posix()
    elif place.is_relative_to(home) and home != Path(home.anchor):
        told = f"~/{place.relative_to(home).as_posix()}"
    else:
        told = f"as {said_by} says" if said_by else "as the system has it"
    return {"what": what, "place": told, "free": usage, "writable": there is not None and os.access(there, os.W_OK)}
