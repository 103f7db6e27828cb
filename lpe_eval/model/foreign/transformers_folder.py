"""The files of a local model of `transformers`: which weights it has, whether they are complete, and their digest.

Choices:
    * The digest is over the config and all weight files, and over the Python code where that may run.
    * A file that changes weights and that `transformers` passes over, or applies only where `peft` is installed, is
      refused by name, so that a number never depends on what is installed.
"""

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from safetensors import safe_open

from lpe_eval.errors import CheckpointError
from lpe_eval.plain import Unreadable, json_of, read_plain

WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json", "*.bin.index.json")
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
WHOLE = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""What `transformers` looks for, in this order."""
_ADAPTER_WEIGHTS = re.compile(r"adapter_model|adapters?\.(safetensors|bin)$|lora", re.IGNORECASE)
_CHANGES_WEIGHTS = re.compile(r"trainable_params|lora_trainables|_lora|^lora|^adapters\.", re.IGNORECASE)
"""Beside whole weights or an adapter: LongLoRA's embeddings and norms, LLaVA's other weights, adapters of others."""
BOTH = (
    f"{{where}} holds whole weights and an adapter ({ADAPTER}), so it may be either of two models; keep {ADAPTER} and "
    "adapter_model.* in a folder of their own, which then is the model with its adapter"
)
_POINTER = b"version https://git-lfs"


def has_weights(folder: Path) -> bool:
    """Whether a folder holds whole weights, not only those of an adapter."""
    shards = (file for pattern in ("model-*.safetensors", "pytorch_model-*.bin") for file in folder.glob(pattern))
    return any((folder / name).is_file() for name in WHOLE) or any(shards)


def folder_digest(folder: Path, where: str, with_code: bool) -> str:
    """SHA-256 over a folder's config, weights and perhaps code.

    Raises:
        CheckpointError: there are no weights, a shard is missing, or another file would change them.
    """
    weights = sorted({file for pattern in WEIGHTS for file in folder.glob(pattern)})
    if not any(file.suffix in (".safetensors", ".bin") for file in weights):
        raise CheckpointError(f"{where}: there are no weights (*.safetensors or *.bin){_others(folder)}")
    _refuse_beside(folder, weights, where)
    _refuse_incomplete(folder, weights, where)
    code = sorted(folder.glob("*.py")) if with_code else []
    return digest_of([folder / "config.json", *weights, *code])


def digest_of(files: list[Path]) -> str:
    """SHA-256 over the names and contents of files."""
    summed = hashlib.sha256()
    for file in files:
        stat = file.stat()
        summed.update(f"{file.name}\0{_file_digest(file.resolve(), stat.st_size, stat.st_mtime_ns)}\n".encode())
    return summed.hexdigest()


@lru_cache(maxsize=4096)
def _file_digest(file: Path, size: int, changed: int) -> str:
    """Keyed by size and time as well, so that large files are read once and never stale."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def weight_bytes(folder: Path) -> int:
    """The size of all weight files together."""
    return sum(file.stat().st_size for file in {found for each in WEIGHTS for found in folder.glob(each)})


def weight_names(folder: Path) -> set[str]:
    """What the weights of a folder are called, as far as that can be told without reading them."""
    names: set[str] = set()
    for file in folder.glob("*.index.json"):
        held = json_of(read_plain(file))
        names |= set(map(str, held.get("weight_map", ()))) if isinstance(held, dict) else set()
    for file in () if names else folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            names |= set(weights.keys())
    return names


def gguf_types(file: Path) -> list[str]:
    """The types of the tensors in a GGUF file, sorted: float32, or the name of a quantisation such as Q4_K."""
    try:
        from gguf import GGUFReader
    except ImportError:
        return []
    named = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    found = {str(each.tensor_type.name) for each in GGUFReader(file).tensors}
    return sorted(named.get(each, each) for each in found)


def _others(folder: Path) -> str:
    """What else may be meant, as the end of a sentence."""
    quantised = sorted(folder.glob("*.gguf"))
    if quantised:
        return f"; the GGUF file is a model of its own, hf:{quantised[0]}"
    return "; its .pt or .pth file is for py: and a function of yours" if any(folder.glob("*.pt*")) else ""


def _refuse_beside(folder: Path, weights: list[Path], where: str) -> None:
    if (folder / ADAPTER).is_file():
        raise CheckpointError(BOTH.format(where=where))
    refuse_changes(weights, where)
    alone = [file.name for file in weights if _ADAPTER_WEIGHTS.search(file.name)]
    if alone:
        raise CheckpointError(
            f"{where}: {alone[0]} changes the weights, and without {ADAPTER} nobody knows how; add that file, or move "
            f"{alone[0]} away"
        )


def refuse_changes(weights: list[Path], where: str) -> None:
    """Raises CheckpointError for files that change weights and that neither `transformers` nor `peft` reads."""
    found = [file.name for file in weights if _CHANGES_WEIGHTS.search(file.name)]
    if found:
        raise CheckpointError(
            f"{where}: {found[0]} changes the weights, and transformers passes over it; merge it into them with the "
            "tool that wrote it, or move it away"
        )


def _refuse_incomplete(folder: Path, weights: list[Path], where: str) -> None:
    for file in weights:
        if file.stat().st_size < 1024 and file.read_bytes().startswith(_POINTER):
            raise CheckpointError(f"{where}: {file.name} is a pointer of Git LFS and no weights; run git lfs pull")
    index = next((folder / name for name in WHOLE if (folder / name).is_file()), None)
    if index is None or index.suffix != ".json":
        return
    try:
        held = json_of(read_plain(index))
    except Unreadable as error:
        raise CheckpointError(f"{where}: {index.name} {error}") from error
    shards = held.get("weight_map") if isinstance(held, dict) else None
    named = {str(each) for each in shards.values()} if isinstance(shards, dict) else set()
    missing = sorted(each for each in named if not (folder / each).is_file())
    if missing:
        raise CheckpointError(
            f"{where}: {len(missing)} of {len(named)} files of weights are missing, the first is {missing[0]}; fetch "
            "them again"
        )
