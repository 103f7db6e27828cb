"""Does it fit? Arithmetic before anything is allocated, always a lower bound: what would fit is never refused.

Choices:
    * Free is what the kernel says new programs could have (`MemAvailable`) with free swap, and no more than the
      limits leave: of the control groups of Linux this process is in (version 2), where files that are only cached do
      not count as used, and of its address space (`ulimit -v`). What this process itself holds is added, since
      memory that was freed stays with it for the next use. Where none of it can be read, nothing is refused.
    * A layer costs at least `_LAYER` bytes beside its numbers, for the objects that hold them.
"""

import mmap
from pathlib import Path

from lpe_eval.errors import CheckpointError
from lpe_eval.spec.model_spec import ModelSpec

WEIGHT, WEIGHT_AND_GRADIENT, TRAINED_WEIGHT = 4, 8, 16
"""Bytes of a weight in float32, of one with its gradient, and of one with Adam's two moments too."""
_LAYER = 4096


def shortfall(parameters: int, bytes_each: int, more: int, free: int | None) -> str:
    """The sum of a model that does not fit, as the end of a sentence: `needs 12.3 GiB for ...`; empty where it may fit.

    Args:
        parameters: how many numbers are held.
        bytes_each: of each of them.
        more: bytes beside them.
        free: bytes; None where nobody knows.
    """
    needed = parameters * bytes_each + more
    if free is None or needed <= free:
        return ""
    what = f"for {parameters:.1e} parameters" if parameters else "at least"
    return f"needs {_amount(needed)} {what}, and {_amount(free)} are free"


def model_shortfall(model: ModelSpec, bytes_each: int, copies: int = 1) -> str:
    """`shortfall` of some models of a shape on this machine, now."""
    weights = model.least_weights * copies
    return shortfall(weights, bytes_each, model.layers * _LAYER, free_memory())


def refuse_what_does_not_fit(model: ModelSpec, where: str | Path) -> None:
    """Raises CheckpointError where a model of a shape cannot be held by this machine, now."""
    if missing := model_shortfall(model, WEIGHT):
        raise CheckpointError(f"{where} {missing}; measure it on a machine with more memory")


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still allocate in main memory; None where that cannot be told.

    Args:
        root: where `proc` and `sys` are.
    """
    known = [_available(root), *_groups(root), _address_space(root)]
    least = min((each for each in known if each is not None), default=None)
    return None if least is None else max(0, least) + _pages(root, 1)


def _available(root: Path) -> int | None:
    lines = _read(root / "proc/meminfo").splitlines()
    found = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    try:
        return 1024 * sum(int(found[name][0]) for name in ("MemAvailable", "SwapFree"))
    except (LookupError, ValueError):
        return None


def _groups(root: Path) -> list[int]:
    """What the control groups leave, from this process's own up to the root."""
    found = [line.removeprefix("0::/") for line in _read(root / "proc/self/cgroup").splitlines() if line[:4] == "0::/"]
    top = root / "sys/fs/cgroup"
    left = []
    for folder in [top, *(top.joinpath(*Path(each).parts[:depth]) for each in found for depth in range(1, 32))]:
        try:
            most = int(_read(folder / "memory.max"))
            stat = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
            left.append(most - int(stat["anon"]))
        except (LookupError, ValueError):
            continue
    return left


def _address_space(root: Path) -> int | None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit - _pages(root, 0)


def _pages(root: Path, place: int) -> int:
    """Bytes of this process: 0 is its address space, 1 what of it is resident."""
    try:
        return int(_read(root / "proc/self/statm").split()[place]) * mmap.PAGESIZE
    except (LookupError, ValueError):
        return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _amount(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"
