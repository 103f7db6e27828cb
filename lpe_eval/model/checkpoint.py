"""The contract of a checkpoint format, and how a reference becomes a model.

A reference is a path whose content tells its format, a path behind a format's prefix
(`native:runs/mine`), or the name of a released checkpoint (`alibi`).
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import torch

from lpe_eval.errors import CheckpointError, UnknownName
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.registry import CHECKPOINTS
from lpe_eval.spec.released import released_folder, released_names


class LoadOptions(NamedTuple):
    """How a checkpoint is put on a device."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    attention: str = "auto"


class Peek(NamedTuple):
    """What a run is planned with, known before any weight is loaded."""

    name: str
    tokenizer: str
    digest: str
    """SHA-256 over weights and config: equal digests, equal model."""


class CheckpointFormat(ABC):
    """One way the world writes checkpoints; members hold no state."""

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Whether the content at `path` is of this format; reads as little as it can."""

    @classmethod
    @abstractmethod
    def peek(cls, path: Path) -> Peek:
        """Reads the config and hashes the files.

        Raises:
            CheckpointError: a file is missing or the config is not one.
        """

    @classmethod
    @abstractmethod
    def load(cls, path: Path, options: LoadOptions) -> LanguageModel:
        """Opens the checkpoint strictly.

        Raises:
            CheckpointError: something is missing, unexpected, of another shape, or unreadable.
        """


class Located(NamedTuple):
    """A checkpoint that has been found and not yet opened."""

    format: type[CheckpointFormat]
    path: Path


def locate(reference: str) -> Located:
    """The format and the path that `reference` names, without loading any weight.

    Raises:
        CheckpointError: nothing is there, or no format knows it.
        UnknownName: no released checkpoint has that name.
    """
    prefix, colon, rest = reference.partition(":")
    if colon and prefix.replace("-", "_") in CHECKPOINTS.names():
        return Located(CHECKPOINTS.load(prefix), Path(rest))
    path = Path(reference)
    if path.exists():
        for name in CHECKPOINTS.names():
            if CHECKPOINTS.load(name).recognises(path):
                return Located(CHECKPOINTS.load(name), path)
        raise CheckpointError(
            f"{path} is not a checkpoint of any known format ({', '.join(CHECKPOINTS.names())}); "
            "a native one is a folder with config.yaml and model.safetensors"
        )
    if "/" in reference or "\\" in reference:
        raise CheckpointError(f"there is no checkpoint at {reference}")
    folder = released_folder(reference)
    if folder is None:
        raise UnknownName("released checkpoint (and no folder)", reference, released_names())
    return Located(CHECKPOINTS.load("native"), folder)
