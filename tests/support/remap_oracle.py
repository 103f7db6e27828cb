"""Mapped distances pair by pair in plain Python, from the published formulas, and slips that must be caught."""

import math
from typing import Any

import torch
from torch import Tensor

WRONG = (
    *("boundary <=", "divisions swapped", "no shift", "shift W", "offset // G", "leaky from 0", "cap W - 1"),
    *("chunk = chunk_size", "successor not clamped", "inter at the chunk's end", "inter one less", "no successor"),
    *("no log n", "log n from i", "log n below 1", "factor once", "no factor"),
)


def distance(i: int, j: int, method: str, numbers: dict[str, Any], slip: str = "") -> float:
    """The distance from the query at i to the key at j <= i."""
    o = i - j
    if method == "log_n":
        return o
    if method == "dca":
        return _chunked(i, j, numbers["chunk_size"], numbers["local"], slip)
    window = numbers["window"]
    if o < window or (slip == "boundary <=" and o == window):
        return o
    match method:
        case "rerope":
            return window - 1 if slip == "cap W - 1" else window
        case "leaky_rerope":
            return o / numbers["factor"] if slip == "leaky from 0" else window + (o - window) / numbers["factor"]
    group = numbers["group"]
    real = (numbers.get("division") == "real") != (slip == "divisions swapped")
    shift = window - (window / group if real else window // group)
    shift = {"no shift": 0, "shift W": window}.get(slip, shift)
    return o // group + shift if slip == "offset // G" else i // group - j // group + shift


def _chunked(i: int, j: int, size: int, local: int, slip: str) -> float:
    chunk = size if slip == "chunk = chunk_size" else size - local
    apart = i // chunk - j // chunk
    if apart == 0:
        return i - j
    if apart == 1 and slip != "no successor":
        reach = i % chunk + chunk
        return (reach if slip == "successor not clamped" else min(reach, size)) - j % chunk
    last = {"inter at the chunk's end": chunk - 1, "inter one less": min(2 * chunk - 1, size) - 1}
    return last.get(slip, min(2 * chunk - 1, size)) - j % chunk


def query_factor(i: int, original: int | None, slip: str = "") -> float:
    """Su's log-n factor of the query at i, where the model was trained on `original` tokens."""
    if original is None or slip == "no log n":
        return 1.0
    found = math.log(max(i, 1) if slip == "log n from i" else i + 1) / math.log(original)
    return found if slip == "log n below 1" else max(1.0, found)


def length_factor(rule: str, length: int, original: int, slip: str = "") -> float:
    """What multiplies all logits."""
    if rule == "none" or slip == "no factor" or length <= original:
        return 1.0
    once = 1 + (0.05 if rule == "chunkllama" else 0.1) * math.log(length / original)
    return once if slip == "factor once" else once**2


def rotated(x: Tensor, angle: Tensor) -> Tensor:
    """Vectors [..., d] with their halves turned as pairs by angles [..., d / 2]."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=-1)


def logits(
    q: Tensor, k: Tensor, inverse: Tensor, distances: Tensor, factors: Tensor, scale: float | None = None
) -> Tensor:
    """[b, h, t, t] in float64 from unrotated queries and keys: each query is turned by each of its distances.

    Args:
        q: [b, h, t, d].
        k: [b, h, t, d].
        inverse: frequencies [d / 2].
        distances: [t, t]; those of the future may be anything.
        factors: of each query, [t].
        scale: of the products; 1 / sqrt(d) unless given.
    """
    turned = rotated(q.double()[:, :, :, None], distances.double()[..., None] * inverse.double())
    products = torch.einsum("bhijd,bhjd->bhij", turned, k.double())
    return products * factors.double()[:, None] * (q.shape[-1] ** -0.5 if scale is None else scale)


def table(length: int, method: str, numbers: dict[str, Any], slip: str = "") -> Tensor:
    """Distances [t, t], 0 in the future."""
    rows = [[distance(i, j, method, numbers, slip) if j <= i else 0.0 for j in range(length)] for i in range(length)]
    return torch.tensor(rows, dtype=torch.float64)


def attended(scores: Tensor, v: Tensor) -> Tensor:
    """Causal softmax of logits [b, h, t, t], and what it makes of values."""
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.double().masked_fill(future, -math.inf).softmax(-1) @ v.double()
