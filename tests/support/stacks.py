"""Encoders of the size of a toy, for stacks of them: learning rates, encodings, and one model."""

import torch

from lpe_eval.model.transformer import Transformer
from lpe_eval.spec.model_spec import ModelSpec

RATES = (1e-3, 3e-3, 1e-2)


ENCODINGS = [
    "none",
    "sinusoidal",
    "learned",
    "rope",
    "alibi",
    "t5",
    "kerple_log",
    "mep",
    "fire",
    "cope",
    "transformer_xl",
    "dape(kerple_log)",
    "dape_v2(alibi)",
    "randomized(rope)",
    "randomized(alibi)",
    "randomized(transformer_xl)",
    "fox",
    "cable",
    "inkling",
    "p_rope",
    "sinks(rope)",
    {"name": "tempered", "rule": "ssmax", "base": "fox"},
    {"name": "kerple_log", "per_layer": True},
    {"name": "dape", "hidden": 4, "base": "fire"},
]


def encoder(encoding, seed: int, **changes) -> Transformer:
    fields = {
        "encoding": encoding, "vocab_size": 4, "outputs": 3, "width": 16, "layers": 2, "heads": 2, "mlp_width": 24,
        "train_length": 24, "causal": False, "norm": "post", "activation": "relu", "tied_embeddings": False,
        "embedding_scale": 4.0, "attention_bias": False, "head_bias": True, "initial_weights": "fan_in",
    }  # fmt: skip
    model = Transformer(ModelSpec.model_validate({**fields, **changes}), "dense")
    model.initialise(torch.Generator().manual_seed(seed))
    return model.train()
