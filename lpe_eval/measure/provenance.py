"""Where a number came from: code, machine, libraries. Models and text add their own digests in `run.py`."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import lpe_eval

_LIBRARIES = ("torch", "numpy", "pandas", "datasets", "pydantic", "safetensors", "transformers", "tokenizers")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, source commit and hardware of this process."""
    return {
        "lpe_eval": lpe_eval.__version__,
        "source": _source_commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "libraries": _versions(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
    }


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _source_commit() -> dict[str, Any] | None:
    """Commit of our own source tree, not of the user's current folder; None for an installed wheel."""
    root = Path(lpe_eval.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *args], capture_output=True, text=True, check=True, timeout=10
            ).stdout
            for args in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0]} ({len(models)} processors)" if models else platform.machine()
