"""Our own checkpoints: a folder with `config.yaml` and `model.safetensors`.

Loading is strict: every parameter and persistent buffer of the configured model must be there
with its shape, and nothing else. Weights are safetensors, so nothing is ever unpickled.
"""

import hashlib
from pathlib import Path

import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lpe_eval.errors import CheckpointError, LpeEvalError
from lpe_eval.model.checkpoint import CheckpointFormat, LoadOptions, Peek
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.model.transformer import Transformer
from lpe_eval.model.transformer_model import TransformerModel, fill, state_of
from lpe_eval.spec.model_spec import CHECKPOINT_SCHEMA, CheckpointSpec

_CONFIG, _WEIGHTS = "config.yaml", "model.safetensors"


class Native(CheckpointFormat):
    """Reads and writes native checkpoints."""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return (path / _CONFIG).is_file() and (path / _WEIGHTS).is_file()

    @classmethod
    def peek(cls, path: str | Path, options: LoadOptions) -> Peek:
        spec = _read_config(Path(path))
        return Peek(spec.name, spec.tokenizer, _digest(Path(path)))

    @classmethod
    def load(cls, path: str | Path, options: LoadOptions) -> LanguageModel:
        path = Path(path)
        spec = _read_config(path)
        try:
            model = Transformer(spec.model, options.attention)
        except LpeEvalError as error:
            raise CheckpointError(f"{path / _CONFIG}: {error}") from error
        try:
            weights = load_file(path / _WEIGHTS)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path / _WEIGHTS} is not a readable safetensors file: {error}") from error
        fill(model, weights, path / _WEIGHTS)
        model.put(options.device, options.dtype)
        return TransformerModel(model.eval(), spec, _digest(path), options, "native")

    @classmethod
    def save(cls, model: Transformer, spec: CheckpointSpec, folder: Path, dtype: torch.dtype) -> None:
        """Writes the two files; floating weights are stored as `dtype`."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {
            name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
            for name, tensor in state_of(model).items()
        }
        save_file(weights, folder / _WEIGHTS)
        text = yaml.safe_dump(spec.model_dump(mode="json", by_alias=True), sort_keys=False)
        (folder / _CONFIG).write_text(text, encoding="utf-8")


def _read_config(folder: Path) -> CheckpointSpec:
    for file in (_CONFIG, _WEIGHTS):
        if not (folder / file).is_file():
            raise CheckpointError(f"{folder} is not a native checkpoint: {file} is missing")
    path = folder / _CONFIG
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} must hold a mapping, not {type(raw).__name__}")
    if isinstance(raw.get("schema"), int) and raw["schema"] > CHECKPOINT_SCHEMA:
        raise CheckpointError(f"{path} has schema {raw['schema']}, newer than this program knows; upgrade lpe-eval")
    try:
        return CheckpointSpec.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"{path}, {where}: {first['msg']}") from error


def _digest(path: Path) -> str:
    summed = hashlib.sha256()
    for file in (_CONFIG, _WEIGHTS):
        summed.update((path / file).read_bytes())
    return summed.hexdigest()
