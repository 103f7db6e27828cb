"""Encodings with random weights in float64, and the logits that they give to one random text."""

from typing import Any

import torch
from torch import Tensor

from lpe_eval.model.build import initialise
from lpe_eval.model.encoding import Encoding, Geometry, Scores
from tests.support.official_parameters import build, scores_of

LENGTH = 11


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(spec: Any, shape: Geometry, **options: Any) -> Encoding:
    encoding = build(spec, shape, **options)
    initialise([encoding], seeded(1))
    with torch.no_grad():
        for parameter in encoding.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.3, generator=seeded(parameter.numel()))
    return encoding.double()


def scored(encoding: Encoding, length: int = LENGTH) -> Scores:
    shape = encoding.geometry
    q, k = torch.randn(2, 2, shape.heads, length, shape.head_width, generator=seeded(2), dtype=torch.float64)
    q, k = encoding.rotate(q, k, torch.arange(length))
    return scores_of(encoding, q @ k.mT / shape.head_width**0.5, q, k)


def logits(encoding: Encoding, length: int = LENGTH) -> Tensor:
    scores = scored(encoding, length)
    return encoding.adjust(scores).detach().masked_fill(~scores.visible, 0.0)


def probabilities(encoding: Encoding) -> Tensor:
    scores = scored(encoding)
    return encoding.adjust(scores).detach().masked_fill(~scores.visible, float("-inf")).softmax(-1)


def close(left: Tensor, right: Tensor, tolerance: float = 1e-9) -> bool:
    return torch.allclose(left, right, rtol=tolerance, atol=tolerance)
