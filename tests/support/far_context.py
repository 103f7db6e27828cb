"""Sums of texts whose losses at each length are known: models that make use of so much context and no more."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lpe_eval.table import BlockSum, CellKey

LENGTHS = (128, 256, 512, 1024, 2048, 4096)
STRIDE = 1024


def text(
    losses: Sequence[float],
    lengths: Sequence[int] = LENGTHS,
    documents: int = 12,
    blocks: int = 3,
    noise: float = 0.0,
    seed: int = 0,
    tokens: int = 256,
) -> dict[int, list[BlockSum]]:
    """Blocks of unequal difficulty; a length costs its loss more, and has noise of its own in every block."""
    draw = np.random.default_rng(seed)
    level = draw.uniform(-0.3, 0.3, (documents, blocks))
    found = {}
    for length, loss in zip(lengths, losses, strict=True):
        means = loss + level + noise * draw.standard_normal((documents, blocks))
        found[length] = [
            BlockSum(f"doc-{d}", f"digest {d}", b, float(means[d, b]) * tokens, tokens, tokens, 0)
            for d in range(documents)
            for b in range(blocks)
        ]
    return found


def copier(window: int, distances: Sequence[int], lengths: Sequence[int] = LENGTHS) -> list[float]:
    """Losses of a copier with a window: nothing for a repeat within window and length, ln 256 for others."""
    return [
        math.log(256) * sum(distance > min(window, length) for distance in distances) / len(distances)
        for length in lengths
    ]


def cells(
    of_models: Mapping[str, Mapping[int, Sequence[BlockSum]]], k: int = 256, stride: int = STRIDE
) -> dict[CellKey, Sequence[BlockSum]]:
    """Cells of `anchored`, as `gate_runs.run_of` takes them."""
    return {
        CellKey(model, f"anchored-{k}", length, stride): blocks
        for model, found in of_models.items()
        for length, blocks in found.items()
    }


def changed(
    found: Mapping[int, Sequence[BlockSum]], change: Callable[[int], float], noise: float = 0.0, seed: int = 1
) -> dict[int, list[BlockSum]]:
    """The same text under another model, which loses `change` nats more at each length."""
    draw = np.random.default_rng(seed)
    return {
        length: [
            block._replace(nll_nats=block.nll_nats + block.n_tokens * (change(length) + noise * draw.standard_normal()))
            for block in blocks
        ]
        for length, blocks in found.items()
    }
