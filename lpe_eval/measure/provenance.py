"""Where a number came from: code, machine, libraries, command, cost. What was measured is added by the caller.

A provenance file may be published, so nothing in it tells whose machine it was: no path of the interpreter,
no name of host or user, the home directory is written `~`, and what lies in the current directory is told from there.

Choices:
    * The commit is that of the folder this file lies in, never of the user's current one, whatever git is told
      by the environment. An installed package has a commit only where pip noted one (`pip install git+...`).
    * `dirty` looks at what can move a number: `lpe_eval/` and `tasks/`, new files included.
    * `files` is a hash of the package's own Python files, which also tells two dirty trees or two wheels apart.
    * The driver is read where the Linux kernel module shows it, and is left out elsewhere.
"""

import hashlib
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import lpe_eval
from lpe_eval.addresses import place_in_bucket, typed_address

_LIBRARIES = (
    *("torch", "numpy", "pandas", "pyarrow", "datasets", "pydantic", "safetensors", "transformers", "tokenizers"),
    *("jaxtyping", "matplotlib", "pyyaml"),
)
_PACKAGE = Path(lpe_eval.__file__).parent
_DRIVER = Path("/proc/driver/nvidia/version")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, source commit, hardware and numeric settings of this process."""
    return {
        "lpe_eval": lpe_eval.__version__,
        "source": source(_PACKAGE),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "libraries": _versions(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "device_type": device.type,
        **({"cuda": _cuda(device)} if device.type == "cuda" else {}),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


class Account:
    """The provenance of a run as it grows: what is known of it, and its starts, this one the last.

    Args:
        device: where it runs.
        earlier: the provenance of an interrupted run that this start goes on with. Its starts are kept,
            each with its environment where that was another one.
    """

    def __init__(self, device: torch.device, earlier: Mapping[str, Any]) -> None:
        self.earlier = earlier
        self._here = environment(device)
        self._starts = []
        for start in earlier.get("starts", []):
            there = start.get("environment", earlier.get("environment"))
            self._starts.append({**start, **({} if there in (None, self._here) else {"environment": there})})
        self._this = {"began": datetime.now(UTC).isoformat(timespec="seconds"), "argv": invocation(sys.argv)}
        self._clock = time.monotonic()

    def provenance(self, facts: Mapping[str, Any], **of_start: Any) -> dict[str, Any]:
        """Everything that may be published, as of now.

        Args:
            facts: of the run, as `run_facts` gives them.
            of_start: what this start has done.
        """
        this = {**self._this, "seconds": round(max(time.monotonic() - self._clock, 0.0), 1), **of_start}
        return publishable({**facts, "environment": self._here, "starts": [*self._starts, this]})


def run_facts(
    kind: str,
    run: str,
    *,
    models: Mapping[str, Mapping[str, Any]],
    seeds: Mapping[str, Any],
    dtype: Any = None,
    attention: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """What every provenance says of its run; `lpe_eval.report.folders.provenance` tells the shape.

    Args:
        kind: name of the kind of run.
        run: its id.
        models: facts of each model, by name.
        seeds: each with what it decides.
        dtype: precision.
        attention: the path of each model.
        more: `task`, `corpus`, `opened_with`, `cost`, and what only this kind knows.
    """
    paths = list(dict.fromkeys(each for each in attention if each))
    return {"kind": kind, "run": run, "models": models, "seeds": seeds, "dtype": dtype, "attention": paths, **more}


def cost(tokens: float | int, seconds: float | int, peak_memory_mib: float | None) -> dict[str, Any]:
    """Tokens through the model, seconds spent there, their quotient, and the highest memory, if known."""
    peak = None if peak_memory_mib is None or math.isnan(peak_memory_mib) else round(peak_memory_mib, 1)
    speed = round(tokens / seconds, 1) if seconds > 0 else None
    return {"tokens": int(tokens), "seconds": round(seconds, 2), "tokens_per_second": speed, "peak_memory_mib": peak}


def invocation(argv: Sequence[str]) -> list[str]:
    """The command as typed: the program without its path, then the arguments."""
    program = Path(argv[0]).name if argv else ""
    return ["lpe-eval" if program in ("", "__main__.py") else program, *argv[1:]]


def publishable(
    value: Any, homes: Sequence[str] | None = None, here: str | None = None, separator: str = os.sep
) -> Any:
    """`value` with paths in the current directory made relative and the home directory written `~`, in every text.

    Args:
        value: mappings, sequences, texts and numbers; paths become text.
        homes: names of the home directory; None asks the system.
        here: the current directory; None asks the system.
        separator: of the parts of a path; with Windows' backslash a slash serves as well, capitals are small letters,
            and a backslash may have been doubled by whoever wrote the text.
    """
    slashes, flags = ("/", 0) if separator == "/" else (r"/\\", re.IGNORECASE)
    known = [home.rstrip(f"/{separator}") for home in (_homes() if homes is None else homes)]
    current = (_here() if here is None else here).rstrip(f"/{separator}")

    def pattern(place: str) -> str:
        parts = re.split(f"[{slashes}]", place) if flags else [place]
        return f"[{slashes}]+".join(map(re.escape, parts))

    # A whole part of a path, from its start: not /home/al of /home/alice, nor /root of /data/root.
    edge = r"\"'\s:,;=?&|()"
    places = [
        (re.compile(rf"(?:(?<=//)|(?<![^{edge}@])){pattern(home)}(?![^{slashes}{edge}])", flags), "~")
        for home in known
        if len(home) > 1
    ]
    if current not in ("", *known):
        start = rf"(?<![^{edge}@]){pattern(current)}"
        inside = re.compile(rf"{start}[{slashes}]+(?=[^{slashes}{edge}])", flags)
        places = [(inside, ""), (re.compile(rf"{start}[{slashes}]*(?![^{edge}])", flags), "."), *places]

    def written(each: Any) -> Any:
        if isinstance(each, Mapping):
            return {str(written(key)): written(item) for key, item in each.items()}
        if isinstance(each, list | tuple):
            return [written(item) for item in each]
        if not isinstance(each, str | Path):
            return each
        text = str(each)
        for place, told_as in places:
            text = place.sub(told_as, text)
        return text

    return written(value)


def publishable_name(corpus: str, separator: str = os.sep) -> str:
    """A corpus as rows call it: a path in the current directory is told from there, the home directory is `~`, and of
    any other absolute path the last two parts stay, `.../books/test.txt`; of an address, the place in its bucket."""
    if (address := typed_address(corpus)) is not None:
        return place_in_bucket(address)
    place = publishable(corpus, separator=separator)
    if separator == "/":
        return "/".join(["...", *place.strip("/").split("/")[-2:]]) if place.startswith("/") else place
    # A drive, or a backslash where a machine or the current drive begins.
    absolute = re.match(r"(?:[A-Za-z]:)?[/\\]", place)
    return "/".join(["...", *re.split(r"[/\\]+", place.strip("/\\"))[-2:]]) if absolute else place


def _here() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:  # it was deleted while the work went on
        return ""


def _homes() -> list[str]:
    try:
        home = Path.home()
    except RuntimeError:
        return []
    return [str(home), str(home.resolve())]


def source(package: Path) -> dict[str, Any]:
    """Commit of the source tree that holds `package`, whether it was changed since, and a hash of its files.

    Args:
        package: the folder of the package.
    """
    files = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        files.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    found: dict[str, Any] = {"commit": None, "dirty": None, "files": files.hexdigest()}
    root = package.parent
    if (root / ".git").exists() and _git(root, "ls-files", f"{package.name}/__init__.py"):
        commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", package.name, "tasks")
        if commit:
            return {**found, "commit": commit, "dirty": None if changes is None else bool(changes)}
        return {**found, "note": "git does not tell the commit of this source tree"}
    installed = _installed_commit(package)
    if installed is not None:
        return {**found, "commit": installed, "dirty": False}
    return {**found, "note": "an installed package; it has no commit"}


def _git(root: Path, *arguments: str) -> str | None:
    """What git says, stripped; None where it says nothing."""
    # GIT_DIR and its kin, set in a hook for instance, would send git to another repository than `root`.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=20, env=clean)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()


def _installed_commit(package: Path) -> str | None:
    """The commit that pip noted (PEP 610) when it installed `package` from a repository."""
    try:
        found = metadata.distribution("lpe-eval")
        noted = json.loads(found.read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return None
    here = Path(str(found.locate_file(package.name))).resolve() == package.resolve()
    return noted.get("vcs_info", {}).get("commit_id") if here else None


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            # Its metadata leave out which build it is, unless that is the CPU's: 2.15.0 of 2.15.0+cu132.
            found[name] = str(torch.__version__) if name == "torch" else metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cuda(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "devices": torch.cuda.device_count(),
        "memory_mib": properties.total_memory // 2**20,
        "capability": f"{properties.major}.{properties.minor}",
        "version": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": driver_version(_DRIVER),
    }


def driver_version(path: Path) -> str | None:
    """The version of NVIDIA's kernel module, from the file in which Linux shows it; None where there is none."""
    try:
        found = re.search(r"Kernel Module(?: for \S+)?\s+(\d[\d.]*)", path.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[1] if found else None


def processor_name() -> str:
    """What the processor calls itself, and how many there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0]} ({len(models)} processors)" if models else platform.machine()
