"""The reference transformer, small and with random weights, and what it makes of a few random tokens."""

import torch

from lpe_eval.model.transformer import Transformer
from lpe_eval.spec.model_spec import ModelSpec


def built(encoding="alibi", seed: int = 0, **changes) -> Transformer:
    shape = {"width": 24, "layers": 3, "heads": 3, "mlp_width": 40, "vocab_size": 11, "train_length": 16}
    model = Transformer(ModelSpec.model_validate({"encoding": encoding, **shape, **changes}))
    model.initialise(torch.Generator().manual_seed(seed))
    return model


def hidden(model: Transformer, tokens, rows=None):
    return model(tokens, torch.Generator().manual_seed(0), rows)


TOKENS = torch.randint(0, 11, (2, 13), generator=torch.Generator().manual_seed(1))
