"""The native form of a checkpoint that another program wrote: one that ends as our transformer.

Choices:
    * A native checkpoint names its tokenizer as the source did, but by absolute paths, so that it can be
      opened from any folder; the tokenizer's files stay where they are.
    * The folder appears whole or not at all (`report/folders/atomic.py`): whoever replaces a checkpoint has the old one
      or the new one.
"""

import os
from pathlib import Path

import torch

from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.errors import CheckpointError, LpeEvalError, OutputError, SpecError
from lpe_eval.measure.plan import split_alias
from lpe_eval.model.checkpoint import LoadOptions, Located, locate
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.transformer_model import TransformerModel
from lpe_eval.report.folders.atomic import write_folder

_CONFIG, _WEIGHTS = "config.yaml", "model.safetensors"


def convert_checkpoint(
    reference: str, destination: Path, dtype: str, tokenizer: str | None, as_published: bool, overwrite: bool
) -> list[str]:
    """Writes the native form of a checkpoint; returns what the user should read.

    Raises:
        SpecError: the type is unknown, or the destination is taken.
        CheckpointError: the source cannot be opened, or is no reference transformer.
        OutputError: the destination cannot be written.
    """
    if dtype not in ("float32", "bfloat16"):
        raise SpecError(f"--dtype {dtype}: weights are stored as float32 or bfloat16")
    located = locate(split_alias(reference)[1])
    try:
        _refuse_taken(destination, located, overwrite)
    except OSError as error:
        raise OutputError(f"cannot write to {str(destination)[:200]}: {error.strerror or error}") from error
    options = LoadOptions(tokenizer=tokenizer, as_published=as_published)
    model = located.load(options)
    if not isinstance(model, TransformerModel):
        raise CheckpointError(
            f"{reference} is opened as {model.facts.format}, whose models are code of their own and have no native "
            "form; it can be measured as it is"
        )
    named = with_absolute_paths(tokenizer or model.spec.tokenizer)
    spec = model.spec.model_copy(update={"tokenizer": named})
    try:
        write_folder(
            Path(os.path.realpath(destination)),
            lambda partial: Native.save(model.model, spec, partial, getattr(torch, dtype)),
            overwrite,
        )
    except FileExistsError as error:
        raise SpecError(f"{destination} is not empty any more; name another folder") from error
    except OSError as error:
        raise OutputError(f"cannot write to {destination}: {error.strerror or error}") from error
    lines = [f"checkpoint: {destination}   measure it: lpe-eval ppl -m {destination}"]
    try:
        open_tokenizer(named)
    except LpeEvalError as error:
        lines.append(f"its tokenizer cannot be opened here: {error}")
    return lines


def with_absolute_paths(tokenizer: str) -> str:
    """The name of a tokenizer with the files and folders in it by absolute paths; others stay as they are."""
    kind, colon, argument = tokenizer.partition(":")
    parts = [str(Path(part).resolve()) if part and Path(part).exists() else part for part in argument.split(",")]
    return f"{kind}{colon}{','.join(parts)}"


def _refuse_taken(destination: Path, located: Located, overwrite: bool) -> None:
    if isinstance(located.path, Path) and os.path.realpath(destination) == os.path.realpath(located.path):
        raise SpecError(f"{destination} is the checkpoint itself; write the native form to another folder")
    if os.path.lexists(destination) and not destination.is_dir():
        raise SpecError(f"{destination} is a file or a broken link; name a folder")
    if Path(os.path.realpath(destination)) in (Path.cwd(), *Path.cwd().parents):
        raise SpecError(f"{destination} is the current folder or holds it; write the native form to another folder")
    held = sorted(each.name for each in destination.iterdir()) if destination.is_dir() else []
    strange = [name for name in held if name not in (_CONFIG, _WEIGHTS)]
    if strange and overwrite:
        raise SpecError(f"{destination} holds {strange[0]}, which is no part of a native checkpoint; name another one")
    if held and not overwrite:
        raise SpecError(f"{destination} is not empty; name another folder, or replace a checkpoint with --overwrite")
