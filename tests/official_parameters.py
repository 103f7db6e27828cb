"""Builds our encodings with the parameters of the authors' state dicts, by official name."""

from typing import Any

import torch
from golden_cases import tensor
from torch import Tensor, nn

from lpe_eval.model.build import build_encodings
from lpe_eval.model.encoding import Encoding, EncodingWrapper, Geometry, Scores
from lpe_eval.spec.encoding_spec import EncodingSpec

OURS = {
    "kerple_b": "bias_p",
    "kerple_a": "bias_a",
    "kerple_p": "exponent",
    "L_multiplier": "multiplier",
    "mlp.0.weight": "first.weight",
    "mlp.0.bias": "first.bias",
    "mlp.2.weight": "second.weight",
    "mlp.2.bias": "second.bias",
    "mlp2.0.weight": "first.weight",
    "mlp2.0.bias": "first.bias",
    "mlp2.2.weight": "second.weight",
    "mlp2.2.bias": "second.bias",
}
NO_PARAMETER = {
    "slopes",  # of ALiBi: recomputed
    "init_L",  # an option of fire
    "base",
    "scale",
    "num_buckets",
    "max_distance",
    "rpe_num_buckets",
    "rpe_max_distance",
    "alibi_bias_max",
    "D",
}


def build(spec: dict[str, Any] | str, geometry: Geometry, **options: Any) -> Encoding:
    """One encoding from its name or nested dictionary."""
    flat = {"name": spec} if isinstance(spec, str) else dict(spec)
    return build_encodings(EncodingSpec.model_validate({**flat, **options}), geometry, layers=1)[0]


def geometry(heads: int, head_width: int = 8, train_length: int = 16, causal: bool = True) -> Geometry:
    return Geometry(heads, head_width, heads * head_width, train_length, causal)


def fill(encoding: Encoding, params: dict[str, Any]) -> Encoding:
    """Copies every official parameter into the one parameter of ours that it is; none may be left over."""
    filled: set[int] = set()
    for official, value in params.items():
        if official in NO_PARAMETER:
            continue
        owner: nn.Module = encoding
        if isinstance(encoding, EncodingWrapper) and not official.startswith("mlp2."):
            owner = encoding.inner
        wanted = OURS.get(official, official)
        ours = dict(owner.named_parameters())
        found = [ours[wanted]] if wanted in ours else [ours[name] for name in ours if name.endswith(f".{wanted}")]
        if official.startswith(("bias_", "weight")) and not found:
            continue  # of a kernel that this mean does not use
        assert len(found) == 1, official
        with torch.no_grad():
            found[0].copy_(tensor(value, found[0].dtype).reshape(found[0].shape))
        filled.add(id(found[0]))
    missing = [name for name, each in encoding.named_parameters() if id(each) not in filled]
    assert not missing, missing
    return encoding


def full_bias(encoding: Encoding, rows: int, columns: int) -> Tensor:
    """The bias of the last `rows` queries of a sequence of `columns` tokens."""
    at = torch.arange(columns)
    bias = encoding.bias(at[columns - rows :], at)
    assert bias is not None
    return bias


def scores_of(encoding: Encoding, logits: Tensor, queries: Tensor | None = None, keys: Tensor | None = None) -> Scores:
    """What attention would hand to `adjust`: the queries are the last positions."""
    rows, columns = logits.shape[-2:]
    at = torch.arange(columns)
    visible = torch.ones(rows, columns, dtype=torch.bool)
    if encoding.geometry.causal:
        visible = visible.tril(columns - rows)
    queries = logits.new_zeros(*logits.shape[:-1], encoding.geometry.head_width) if queries is None else queries
    keys = logits.new_zeros(*logits.shape[:2], columns, encoding.geometry.head_width) if keys is None else keys
    q_at = at[columns - rows :]
    return Scores(logits, encoding.bias(q_at, at), queries, keys, visible, q_at, at)
