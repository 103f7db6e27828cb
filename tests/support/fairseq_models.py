"""fairseq checkpoints of the reference, opened by the package."""

from typing import Any

from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.transformer_model import TransformerModel


def opened(reference: str, **options: Any) -> TransformerModel:
    model = locate(reference).load(LoadOptions(**options))
    assert isinstance(model, TransformerModel)
    return model
