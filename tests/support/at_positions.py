"""Encodings that act through positions, and what random queries and keys make of each other at given positions."""

import math
from typing import Any

import torch
from torch import Tensor

from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, Geometry, Scores
from lpe_eval.spec.encoding_spec import EncodingSpec

CPU = torch.device("cpu")
CAUSAL = Geometry(heads=3, head_width=8, width=24, train_length=16)
TWO_SIDED = Geometry(heads=3, head_width=8, width=24, train_length=16, causal=False)
T = 11


def initialised(name: str, geometry: Geometry = CAUSAL, **options: Any) -> Encoding:
    found = build_encodings(EncodingSpec.model_validate({"name": name, **options}), geometry, layers=1)
    initialise(found, seeded())
    return found[0]


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def queries_and_keys(length: int = T, width: int = 8) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, 2, 3, length, width, generator=seeded(1), dtype=torch.float64)
    return drawn[0], drawn[1]


def dots(encoding: Encoding, at: Tensor) -> Tensor:
    q, k = encoding.rotate(*queries_and_keys(len(at)), at)
    return q @ k.transpose(-1, -2)


def scores_at(encoding: Encoding, at: Tensor, rows: slice = slice(None), keys: int | None = None) -> Scores:
    q, k = (each.float() for each in queries_and_keys(len(at)))
    q, k, k_at = q[:, :, rows], k[:, :, :keys], at[:keys]
    visible = torch.ones(len(at), len(at), dtype=torch.bool)
    visible = visible.tril() if encoding.geometry.causal else visible
    logits = q @ k.transpose(-1, -2) / math.sqrt(8)
    return Scores(logits, encoding.bias(at[rows], k_at), q, k, visible[rows, :keys], at[rows], k_at)


def same(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)
