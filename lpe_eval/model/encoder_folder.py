"""A folder of encoders for algorithmic problems: `config.yaml`, and `<task>.safetensors` for each task.

Weights are stored as they were trained, so that they score what the training reported; those of another floating type,
as older folders hold, are read too. Loading is strict, as of every checkpoint of this program.
"""

import hashlib
from pathlib import Path

import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from lpe_eval.errors import CheckpointError, LpeEvalError
from lpe_eval.model.checkpoint import CHANGED
from lpe_eval.model.transformer import Transformer
from lpe_eval.model.transformer_model import fill, state_of
from lpe_eval.model.unchanged import Stamps, stamps
from lpe_eval.plain import Unreadable, read_plain, yaml_of
from lpe_eval.spec.che_checkpoint import CHE_CHECKPOINT_SCHEMA, CheCheckpointSpec

CONFIG = "config.yaml"


def encoder_folders(path: Path) -> list[Path]:
    """The folders of encoders at a path: itself, or those that a run of `lpe-eval che --train` left in it.

    Raises:
        CheckpointError: there is none.
    """
    if (path / CONFIG).is_file():
        return [path]
    inside = sorted(found.parent for found in (path / "checkpoints").glob(f"*/{CONFIG}"))
    if not inside:
        raise CheckpointError(
            f"{path} holds no encoders: neither {CONFIG} nor checkpoints/*/{CONFIG} is there; "
            "name a folder that lpe-eval che --train has written"
        )
    return inside


def read_encoder_config(folder: Path) -> CheCheckpointSpec:
    """What a folder of encoders says of itself.

    Raises:
        CheckpointError: its config is missing, damaged, or of another version.
    """
    path = folder / CONFIG
    try:
        raw = yaml_of(read_plain(path))
    except Unreadable as error:
        raise CheckpointError(f"{path} {error}") from error
    if not isinstance(raw, dict) or raw.get("kind") != "che":
        raise CheckpointError(f"{path} is no config of encoders: it has no kind: che")
    if raw.get("schema") != CHE_CHECKPOINT_SCHEMA:
        raise CheckpointError(
            f"{path} has schema {raw.get('schema')!r}, this program knows {CHE_CHECKPOINT_SCHEMA}; "
            "use the lpe-eval that wrote it or train anew"
        )
    try:
        return CheCheckpointSpec.model_validate(raw)
    except (LpeEvalError, ValidationError) as error:
        first = str(error) if isinstance(error, LpeEvalError) else error.errors()[0]
        detail = first if isinstance(first, str) else f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise CheckpointError(f"{path}: {detail}") from error


def load_encoder(folder: Path, config: CheCheckpointSpec, task: str, device: torch.device) -> Transformer:
    """The encoder of one task, in float32 and ready to answer.

    Raises:
        CheckpointError: the weights are missing, damaged, not finite, or do not fit.
        SpecError: the encoding does not exist or does not fit.
    """
    path = folder / f"{task}.safetensors"
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    shape, held = config.tasks[task].model, sum(each.numel() for each in weights.values())
    if shape.least_weights > held:
        # Before it is built: a config may ask for more than all of the memory.
        raise CheckpointError(f"{path} holds {held} numbers, and its config needs at least {shape.least_weights}")
    model = Transformer(shape)
    fill(model, weights, path)
    broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path} holds numbers that are not finite, in {broken[0]}; train it anew")
    return model.to(device).eval()


def weights_bytes(model: Transformer) -> bytes:
    """A safetensors file of a model's weights, in their own types."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in state_of(model).items()})


def digest_and_stamps(folder: Path) -> tuple[str, Stamps]:
    """`digest_of` a folder, and the files' stamps before it was read; see `refuse_changed`."""
    seen = stamps(folder)
    return digest_of(folder), seen


def refuse_changed(folder: Path, planned: str, seen: Stamps) -> None:
    """Nothing, if what was just loaded from a folder is what was planned.

    Args:
        folder: of encoders.
        planned: its digest when the run was planned.
        seen: its stamps then; while they are the same, nothing is hashed again.

    Raises:
        CheckpointError: its files are others by now.
    """
    if stamps(folder) != seen and digest_of(folder) != planned:
        raise CheckpointError(CHANGED.format(folder))


def config_text(config: CheCheckpointSpec) -> str:
    """A config as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


def digest_of(folder: Path) -> str:
    """Sha256 over the config and all weights."""
    summed = hashlib.sha256()
    for path in sorted([folder / CONFIG, *folder.glob("*.safetensors")]):
        summed.update(path.read_bytes())
    return summed.hexdigest()
