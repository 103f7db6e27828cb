"""Our own checkpoints: a folder with `config.yaml` and `model.safetensors`.

An address may end in what changes its RoPE: `rope?remap=rerope:window=64`, `?rope_scaling=yarn:4&rope_theta=500000`.

Loading is strict: every parameter and persistent buffer of the configured model must be there
with its shape, and nothing else. Weights are safetensors, so nothing is ever unpickled. A tokenizer that the
folder holds is found from wherever the folder is.

Both files are written whole or not at all, the config last: a folder with a config has its weights.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lpe_eval.errors import CheckpointError, LpeEvalError, OutputError, UnknownName
from lpe_eval.model.checkpoint import CheckpointFormat, LoadOptions, Peek
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.model.needed_memory import refuse_what_does_not_fit
from lpe_eval.model.rope_changes import SETTINGS, changed, digest_of_changed, taken
from lpe_eval.model.transformer import Transformer
from lpe_eval.model.transformer_model import TransformerModel, fill, state_of
from lpe_eval.model.weight_files import stored_types
from lpe_eval.plain import Unreadable, endless_number, read_plain, yaml_of
from lpe_eval.reference import split_settings
from lpe_eval.spec.model_spec import CHECKPOINT_SCHEMA, FOLDER, CheckpointSpec, ModelSpec

_CONFIG, _WEIGHTS = "config.yaml", "model.safetensors"
_SPARE, _SPARE_LAYERS = 10**8, 1000
"""How much larger than its weights a model is built, to say by name what is missing."""
_FIRST_SCHEMA = 1
"""Of a config that has no number."""


class Native(CheckpointFormat):
    """Reads and writes native checkpoints."""

    heeds: ClassVar[frozenset[str]] = frozenset(SETTINGS)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return (path / _CONFIG).is_file() and (path / _WEIGHTS).is_file()

    @classmethod
    def peek(cls, path: str | Path, options: LoadOptions) -> Peek:
        path, options = _address(path, options)
        spec = changed(_read_config(path), options, str(path))
        return Peek(spec.name, spec.tokenizer, digest_of_changed(_digest(path), options))

    @classmethod
    def stored_types(cls, path: str | Path) -> list[str]:
        return stored_types([_address(path, LoadOptions())[0] / _WEIGHTS])

    @classmethod
    def load(cls, path: str | Path, options: LoadOptions) -> LanguageModel:
        path, options = _address(path, options)
        spec = changed(_read_config(path), options, str(path))
        weights = _read_weights(path / _WEIGHTS)
        _refuse_larger(spec.model, weights, path)
        refuse_what_does_not_fit(spec.model, path)
        try:
            model = Transformer(spec.model, options.attention)
        except LpeEvalError as error:
            raise CheckpointError(f"{path / _CONFIG}: {error}") from error
        for name, tensor in state_of(model).items():
            if name in weights and weights[name].is_floating_point() != tensor.is_floating_point():
                raise CheckpointError(f"{path / _WEIGHTS}: {name} holds {weights[name].dtype}, not {tensor.dtype}")
        fill(model, weights, path / _WEIGHTS)
        model.put(options.device, options.dtype)
        return TransformerModel(model.eval(), spec, digest_of_changed(_digest(path), options), options, "native")

    @classmethod
    def save(cls, model: Transformer, spec: CheckpointSpec, folder: Path, dtype: torch.dtype) -> None:
        """Writes the two files; floating weights are stored as `dtype`.

        Raises:
            OutputError: they cannot be written; no file is left half written.
        """
        weights = {
            name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
            for name, tensor in state_of(model).items()
        }
        text = yaml.safe_dump(spec.model_dump(mode="json", by_alias=True), sort_keys=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _replace(folder / _WEIGHTS, lambda partial: save_file(weights, partial))
            _replace(folder / _CONFIG, lambda partial: partial.write_bytes(text.encode("utf-8")))
        except (OSError, SafetensorError) as error:
            detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise OutputError(f"cannot write a checkpoint to {folder}: {detail}") from error


def _address(path: str | Path, options: LoadOptions) -> tuple[Path, LoadOptions]:
    """The folder, and the options with what stands behind its question mark."""
    if Path(path).exists():
        return Path(path), options
    place, settings = split_settings(str(path))
    for key in settings:
        if key not in SETTINGS:
            raise UnknownName("setting of a native checkpoint", key, SETTINGS)
    return Path(place), taken(options, settings, place)


def _read_config(folder: Path) -> CheckpointSpec:
    for file in (_CONFIG, _WEIGHTS):
        if not (folder / file).is_file():
            raise CheckpointError(f"{folder} is not a native checkpoint: {file} is missing")
    path = folder / _CONFIG
    try:
        raw = yaml_of(read_plain(path))
    except Unreadable as error:
        raise CheckpointError(f"{path} cannot be read as YAML: it {error}") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} must hold a mapping, not {type(raw).__name__}")
    if (number := endless_number(raw)) is not None:
        raise CheckpointError(f"{path} holds a number that is too large ({number})")
    schema = raw.get("schema", _FIRST_SCHEMA)
    if type(schema) is not int or schema < _FIRST_SCHEMA:
        raise CheckpointError(
            f"{path} has schema {schema!r}, which no lpe-eval has written; the number is {CHECKPOINT_SCHEMA}"
        )
    if schema > CHECKPOINT_SCHEMA:
        raise CheckpointError(f"{path} has schema {schema}, newer than this program knows; upgrade lpe-eval")
    try:
        spec = CheckpointSpec.model_validate({**raw, "schema": schema})
    except LpeEvalError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"{path}, {where}: {first['msg']}") from error
    return spec.model_copy(update={"tokenizer": spec.tokenizer.replace(FOLDER, str(folder))})


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path} is not a readable safetensors file: {detail}") from error


def _refuse_larger(model: ModelSpec, weights: dict[str, Tensor], path: Path) -> None:
    # Before the model is built: a config may ask for more than all of the memory.
    held = sum(tensor.numel() for tensor in weights.values())
    least = model.least_weights
    if least > held + _SPARE or model.layers > len(weights) + _SPARE_LAYERS:
        raise CheckpointError(
            f"{path / _WEIGHTS} does not fit its config: it holds {held} numbers, and the config needs at least {least}"
        )


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        # For writing, since Windows forces nothing else to disk.
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        # In one step, over a file that is there.
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _digest(path: Path) -> str:
    summed = hashlib.sha256()
    for file in (_CONFIG, _WEIGHTS):
        summed.update((path / file).read_bytes())
    return summed.hexdigest()
