"""GPT-NeoX checkpoints of the reference, opened by the package."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.transformer_model import TransformerModel
from tests.support.neox_files import SYMBOLS, Written

TOKENS = torch.randint(SYMBOLS, (2, 40), generator=torch.Generator().manual_seed(0))


def opened(folder: Path, settings: str = "", **options: Any) -> TransformerModel:
    model = locate(f"neox:{folder}{settings}").load(LoadOptions(**options))
    assert isinstance(model, TransformerModel)
    return model


def scores(model: TransformerModel, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model.logits(model.hidden(tokens, tokens.shape[1], torch.Generator()).flatten(0, 1)).unflatten(
            0, tokens.shape
        )


def agree(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-5 * max(1.0, float(wanted.abs().max()))


def configs(written: Written) -> Path:
    return written.folder / "global_step500" / "configs"
