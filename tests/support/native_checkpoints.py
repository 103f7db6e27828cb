"""Small checkpoints in this program's own format."""

from pathlib import Path

import torch

from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.transformer import Transformer
from lpe_eval.spec.model_spec import CheckpointSpec

SHAPE = {"width": 16, "layers": 2, "heads": 2, "mlp_width": 32, "train_length": 32}


def checkpoint(folder: Path, encoding="alibi", name: str | None = None, seed: int = 0, **changes) -> Path:
    spec = CheckpointSpec.model_validate(
        {"schema": 1, "name": name or folder.name, "model": {"encoding": encoding, **SHAPE, **changes}}
    )
    model = Transformer(spec.model)
    model.initialise(torch.Generator().manual_seed(seed))
    for parameter in model.parameters():
        parameter.data *= 4  # Far from uniform, so that context moves the loss.
    Native.save(model, spec, folder, torch.float32)
    return folder


def native(folder: Path, encoding: str, dtype: torch.dtype = torch.float32) -> Path:
    spec = CheckpointSpec.model_validate({"schema": 1, "name": "mine", "model": {"encoding": encoding, **SHAPE}})
    model = Transformer(spec.model)
    model.initialise(torch.Generator().manual_seed(0))
    Native.save(model, spec, folder, dtype)
    return folder
