"""Builds our encodings with the parameters of the authors' state dicts, by official name."""

from typing import Any

import torch
from torch import Tensor, nn

from lpe_eval.model.build import build_encodings
from lpe_eval.model.encoding import Encoding, EncodingWrapper, Geometry, Scores
from lpe_eval.model.encodings.transformer_xl import TransformerXL
from lpe_eval.spec.encoding_spec import EncodingSpec
from tests.support.golden_cases import Case, tensor

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


def unmasked_scores(q: Tensor, k: Tensor) -> Scores:
    """Scaled products of queries and keys, without a bias and with every key in sight."""
    at = torch.arange(k.shape[2])
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return Scores(logits, None, q, k, torch.ones(len(at), len(at), dtype=torch.bool), at, at)


def transformer_xl(case: Case, **options: Any) -> TransformerXL:
    names = {
        "r_w_bias": "content_bias",
        "r_r_bias": "relative_bias",
        "r_net.weight": "linear_in_out",
    }
    assert case.heads is not None and case.head_dim is not None
    causal = case.direction != "bidirectional"
    member = build("transformer_xl", geometry(case.heads, case.head_dim, causal=causal), **options)
    assert isinstance(member, TransformerXL)
    if "r_w_bias" in case.params:
        state = {name: tensor(case.params[name]) for name in names}
    else:
        state = {name: tensor(case.params[theirs]) for name, theirs in names.items()}
        state["r_net.weight"] = state["r_net.weight"].T
    member.load_state_dict(state)
    return member
