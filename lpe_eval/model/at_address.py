"""A checkpoint in object storage: which of its files are needed, and a copy of these.

What a folder holds beside a model is left where it is: the state of an optimiser, weights for other libraries, logs,
other checkpoints below it. Whatever goes into a digest is needed, so a copy has the digest of the whole folder.

    config.json, config.yaml, an adapter or a GGUF file at the top     the files beside it
    GPT-NeoX                                                           configs, and the step that `latest` names
    a .pt file (fairseq)                                               it, and the dictionary beside it
"""

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from lpe_eval.addresses import Listing, listed, names_below, told
from lpe_eval.errors import CheckpointError
from lpe_eval.fetched import fetched, fetched_file

_CONFIGS = ("config.json", "config.yaml", "adapter_config.json")
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt")
_STEP = re.compile(r"global_step\d+")
_OF_OTHERS = re.compile(
    r"\..*|.*\.(?:pt|pth|ckpt|h5|msgpack|onnx|onnx_data|ot|tflite|tar|zip|parquet|arrow|jsonl)|events\.out\..*"
)
"""Beside a config: nothing that a format reads."""
_OPTIMISER = re.compile(r".*(?:optim_states|zero_pp_rank)[^/]*|.*\.(?:jsonl|parquet|arrow|tar|zip)")
_WORDS = "dict.txt"
_DEEPEST = 3
"""Levels at which files of a checkpoint are looked for."""


def copy_of_checkpoint(address: str) -> Path:
    """The checkpoint at an address, on this machine; its folder is called as it is there.

    Raises:
        CheckpointError: there is none, or it cannot be read.
        SpecError, MissingExtra: see `addresses.opened`.
    """
    address = address.rstrip("/")
    above, _, last = address.rpartition("/")
    if above.endswith(":/"):
        return _copy(listed(address, CheckpointError, _DEEPEST), None)
    if _STEP.fullmatch(last):
        # The configs of a step of GPT-NeoX may lie beside it, and its run is called like the folder around it.
        return _copy(listed(above, CheckpointError, _DEEPEST), last) / last
    if last.endswith(".pt"):
        return fetched_file(address, CheckpointError, [_WORDS])
    return _copy(listed(address, CheckpointError, _DEEPEST), None)


def copy_of_encoders(address: str) -> Path:
    """The same of encoders of algorithmic problems: one folder of them, or a run that left some.

    Raises:
        CheckpointError: there are none, or they cannot be read.
        SpecError, MissingExtra: see `addresses.opened`.
    """
    found = listed(address, CheckpointError, _DEEPEST)
    if not found.entries:
        raise CheckpointError(f"there is nothing at {address}; name a folder that lpe-eval che --train has written")

    def needed(names: Iterable[str]) -> list[str]:
        of_encoders = [each for each in names if each.endswith((".yaml", ".safetensors"))]
        return [each for each in of_encoders if "/" not in each or each.startswith("checkpoints/")]

    return fetched(found, CheckpointError, needed)


def checkpoints_below(address: str, pattern: re.Pattern[str]) -> list[str]:
    """Addresses of the folders right below an address whose names fit a pattern; of the files, where no folder does.

    Raises:
        CheckpointError: it cannot be read.
        SpecError, MissingExtra: see `addresses.opened`.
    """
    for names in names_below(address, CheckpointError):
        if found := [f"{address}/{name}" for name in names if name[:1] != "." and pattern.fullmatch(name)]:
            return found
    return []


def may_be_one(names: Iterable[str]) -> bool:
    """Whether files of these names, below one folder, may be a checkpoint; only their content can tell."""
    return any(each.endswith(_WEIGHTS) for each in _needed(names, None))


def _copy(found: Listing, step: str | None) -> Path:
    """A copy of a checkpoint's files.

    Args:
        found: its folder or file.
        step: of GPT-NeoX, the only one that is wanted.
    """
    if not found.entries:
        raise CheckpointError(f"there is nothing at {found.address}; check the bucket and the place in it")
    if found.is_file:
        return fetched(found, CheckpointError)
    if step is None:
        step = _latest(found)
    needed = partial(_needed, step=step)
    if not any(each.endswith(_WEIGHTS) for each in needed([each.name for each in found.entries])):
        raise CheckpointError(f"there is no checkpoint at {found.address}: none of its files holds weights")
    return fetched(found, CheckpointError, needed)


def _needed(names: Iterable[str], step: str | None) -> list[str]:
    held = list(names)
    top = [each for each in held if "/" not in each]
    if step is None and (set(_CONFIGS) & set(top) or any(each.endswith(".gguf") for each in top)):
        return [each for each in top if not _OF_OTHERS.fullmatch(each)]
    found = [each for each in held if not _OPTIMISER.fullmatch(each)]
    if step is None:
        return found
    return [each for each in found if each in top or each.startswith((f"{step}/", "configs/"))]


def _latest(found: Listing) -> str | None:
    """Of several steps of GPT-NeoX the one that the file `latest` names; None where there is no such file."""
    names = {each.name: each for each in found.entries}
    if "latest" not in names or not any(_STEP.match(each) for each in names):
        return None
    with told(found.address, CheckpointError):
        said = found.files.cat_file(names["latest"].path)[:200].decode("utf-8", "replace").strip()
    return said if _STEP.fullmatch(said) else None
