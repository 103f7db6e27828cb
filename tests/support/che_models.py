"""Encoders of the algorithmic problems in DeepMind's shape, or smaller, with random weights."""

from typing import Any

import torch

from lpe_eval.data.problem import open_problem, vocabulary_size
from lpe_eval.model.transformer import Transformer
from lpe_eval.spec.model_spec import ModelSpec

DEEPMIND = {
    "causal": False,
    "norm": "post",
    "activation": "relu",
    "tied_embeddings": False,
    "attention_bias": False,
    "head_bias": True,
    "initial_weights": "fan_in",
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


TOKENS = torch.randint(0, 3, (4, 17), generator=seeded(1))


def che_model(encoding: Any, task: str = "even_pairs", **changes: Any) -> Transformer:
    """The encoder of a problem in DeepMind's shape, or smaller."""
    problem = open_problem(task)
    shape = {"width": 64, "layers": 5, "heads": 8, "mlp_width": 256, "train_length": 41, "embedding_scale": 8.0}
    sizes = {"vocab_size": vocabulary_size(problem), "outputs": problem.classes}
    model = Transformer(ModelSpec.model_validate({"encoding": encoding, **shape, **sizes, **DEEPMIND, **changes}))
    model.initialise(seeded(3))
    return model
