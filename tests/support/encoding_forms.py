"""Every encoding that the registry lists, in all its forms, and one attention step of it as an oracle would make it."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from lpe_eval.model.encoding import Encoding, EncodingWrapper, Geometry, Scores
from lpe_eval.registry import ENCODINGS
from tests.support.official_parameters import build
from tests.support.spelling import bases_of, written

BATCH, HEADS, HEAD_WIDTH, TRAIN_LENGTH = 2, 3, 4, 7
CPU = torch.device("cpu")
BASES = ("alibi", "none", "rope", "kerple_log")
NAMES = ENCODINGS.names()
WRAPPERS = [name for name in NAMES if issubclass(ENCODINGS.load(name), EncodingWrapper)]
PLAIN = [name for name in NAMES if name not in WRAPPERS]
VARIANTS: list[dict[str, Any]] = [
    {"name": "alibi", "form": "key"},
    {"name": "alibi", "two_sided": "che"},
    {"name": "kerple_log", "form": "three_parameter"},
    {"name": "kerple_log", "form": "nemo"},
    {"name": "kerple_log", "distance_dtype": "bfloat16"},
    {"name": "kerple_power", "form": "weight"},
    {"name": "kerple_power", "form": "bias_and_weight"},
    {"name": "kerple_power", "form": "original"},
    {"name": "mep", "kernels": ["gaussian", "exp", "t5", "kerple_log"]},
    {"name": "mep", "kernels": ["exp", ["exp_half", ["kerple_log", "gaussian"]]], "numerics": "as_published"},
    {"name": "fire", "future": "zero", "normaliser": "query", "threshold": 3.0},
    {"name": "cope", "query": "scaled", "npos_max": 3},
    {"name": "dape", "residual": False, "base": {"name": "alibi"}},
    {"name": "dape", "base": {"name": "cope"}},
    {"name": "dape", "base": {"name": "kerple_power", "form": "bias_and_weight"}},
    {"name": "dape", "base": {"name": "dape", "base": {"name": "fire"}}},
    {"name": "dape_v2", "kernel": 5, "base": {"name": "fire", "threshold": 8.0}},
    {"name": "dape_v2", "kernel": 1, "base": {"name": "alibi"}},
    {"name": "dape_v2", "kernel": 4, "padding": "left", "base": {"name": "alibi"}},
    {"name": "dape_v2", "base": {"name": "dape_v2", "kernel": 5, "base": {"name": "cope"}}},
    {"name": "remap", "group": 3, "window": 2, "division": "real", "base": {"name": "rope", "layout": "interleaved"}},
    {"name": "remap", "method": "rerope", "window": 3, "base": {"name": "rope", "fraction": 0.5}},
    {"name": "remap", "method": "leaky_rerope", "window": 2, "factor": 3.0, "base": {"name": "rope"}},
    {"name": "remap", "method": "dca", "chunk_size": 4, "local": 2, "base": {"name": "rope"}},
    {"name": "remap", "method": "dca", "length_factor": "vllm", "original_length": 3, "base": {"name": "rope"}},
    {"name": "remap", "method": "log_n", "original_length": 3, "base": {"name": "rope"}},
    {"name": "dape", "base": {"name": "remap", "base": {"name": "rope"}}},
    {"name": "randomized", "base": {"name": "remap", "window": 40, "base": {"name": "rope"}}},
    {"name": "remap", "group": 2, "window": 2, "base": {"name": "p_rope", "p": 0.5, "layout": "interleaved"}},
    {
        "name": "remap",
        "method": "rerope",
        "window": 3,
        "base": {"name": "tempered", "floor": 2, "base": {"name": "rope"}},
    },
    {"name": "remap", "method": "dca", "chunk_size": 4, "local": 2, "base": {"name": "fox", "rope": True}},
    {"name": "remap", "window": 3, "base": {"name": "sinks", "base": {"name": "rope"}}},
    {"name": "tempered", "base": {"name": "remap", "window": 3, "base": {"name": "rope"}}},
    {"name": "sinks", "base": {"name": "remap", "window": 3, "base": {"name": "rope"}}},
    {"name": "fox", "gate": "per_head"},
    {"name": "fox", "gate": "fixed", "decay_times": [2, 1024]},
    {"name": "fox", "rope": True, "bias_init": 5.0},
    {"name": "dape", "base": {"name": "fox"}},
    {"name": "dape_v2", "base": {"name": "fox"}},
    {"name": "tempered", "base": {"name": "fox"}},
    {"name": "cable", "scale": "sqrt_d"},
    {"name": "inkling", "extent": 3, "rank": 2, "scale": "d", "temperature": {"floor": 2, "strength": 0.5}},
    {"name": "inkling", "extent": 9, "clip": 0.5, "projection_bias": True},
    {"name": "randomized", "max_length": 64, "base": {"name": "inkling"}},
    {"name": "path", "forget_gate": True},
    {"name": "stick_breaking", "own_key": True},
    {"name": "stick_breaking", "rest": "dropped"},
    {"name": "stick_breaking", "rest": "dropped", "own_key": True},
    {"name": "sinks", "base": {"name": "cable"}},
    {"name": "sinks", "start": 1.0, "base": {"name": "stick_breaking", "rest": "dropped"}},
    {"name": "tempered", "rule": "ssmax", "base": {"name": "rope"}},
    {"name": "tempered", "rule": "llama4", "floor": 2, "base": {"name": "none"}},
    {"name": "tempered", "rule": "ministral", "floor": 2, "base": {"name": "rope"}},
    {"name": "tempered", "rule": "inkling", "floor": 2, "base": {"name": "alibi"}},
    {"name": "p_rope", "p": 0.75},
]
SPECS: list[dict[str, Any]] = [
    *({"name": name} for name in PLAIN),
    *({"name": name, "base": {"name": base}} for name in WRAPPERS for base in bases_of(name, BASES)),
    *VARIANTS,
]


every_spec = pytest.mark.parametrize("spec", SPECS, ids=written)
every_name = pytest.mark.parametrize("name", NAMES)
both_directions = pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def geometry(causal: bool = True, heads: int = HEADS) -> Geometry:
    return Geometry(heads, HEAD_WIDTH, heads * HEAD_WIDTH, TRAIN_LENGTH, causal)


def made(spec: dict[str, Any], causal: bool = True, heads: int = HEADS) -> Encoding:
    """The encoding in float64, with parameters drawn so that none of them is zero."""
    encoding = build(spec, geometry(causal, heads)).double()
    with torch.no_grad():
        for parameter in encoding.parameters():
            low = 0.05 if parameter.ndim else 0.5
            parameter.uniform_(low, 0.9, generator=seeded(parameter.numel()))
            # Mixed signs, but not for scalars and per-head parameters, some of which are clamped from below.
            if parameter.ndim > 1:
                parameter.sub_(0.5)
    return encoding


def serves(spec: dict[str, Any] | None, causal: bool) -> bool:
    if causal or spec is None:
        return True
    one_sided = spec.get("form") == "key" or ENCODINGS.load(spec["name"]).causal_only
    return not one_sided and serves(spec.get("base"), causal)


class Step(NamedTuple):
    """One attention step up to the softmax, as an attention path would make it from token embeddings."""

    scores: Scores
    logits: Tensor
    values: Tensor


def embeddings(length: int, heads: int = HEADS, seed: int = 1) -> Tensor:
    return torch.randn(BATCH, length, heads * HEAD_WIDTH, generator=seeded(seed), dtype=torch.float64)


def step(encoding: Encoding, x: Tensor, at: Tensor | None = None, rows: slice | None = None) -> Step:
    """The dense reference: the whole matrix, or a block of rows with the keys a path would keep."""
    shape, length = encoding.geometry, x.shape[1]
    at = encoding.positions(length, CPU, seeded(5)) if at is None else at
    width = shape.heads * shape.head_width
    mixing = torch.randn(3, width, width, generator=seeded(2), dtype=torch.float64).to(x.dtype)
    embedded = encoding.embed(x, at)
    features = encoding.features(embedded)
    q, k, v = ((embedded @ each).unflatten(-1, (shape.heads, shape.head_width)).transpose(1, 2) for each in mixing)
    q, k = encoding.rotate(q, k, at)
    rows = slice(0, length) if rows is None else rows
    end = min(length, rows.stop + encoding.lookahead) if shape.causal else length
    index = torch.arange(length)
    visible = torch.ones(rows.stop - rows.start, end, dtype=torch.bool)
    if shape.causal:
        visible = index[None, :end] <= index[rows, None]
    q, k = q[:, :, rows], k[:, :, :end]
    bias = encoding.bias(at[rows], at[:end])
    of_both = (None, None) if features is None else (features[:, :, rows], features[:, :, :end])
    scores = Scores(q @ k.mT / shape.head_width**0.5, bias, q, k, visible, at[rows], at[:end], *of_both)
    return Step(scores, encoding.adjust(scores), v)


def visible_logits(found: Step) -> Tensor:
    return found.logits.detach().masked_fill(~found.scores.visible, 0.0)


def same(left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, rtol=1e-9, atol=1e-9)
