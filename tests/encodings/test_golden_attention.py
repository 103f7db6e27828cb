"""The whole attention step, from queries, keys and values to the context, against the authors' code."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lpe_eval.model.encoding import Encoding
from tests.support.golden_cases import Case, case, check, each, tensor, tolerance
from tests.support.official_parameters import build, fill, geometry, scores_of, transformer_xl, unmasked_scores

SPECS: dict[str, Any] = {
    "none": "none",
    "alibi": "alibi",
    "kerple_log": "kerple_log",
    "t5_neox": "t5",
    "rope": "rope",
    "mep_free3": "mep",
    "dape_kerple": {"name": "dape", "hidden": 8, "base": "kerple_log"},
    "dape_rope": {"name": "dape", "hidden": 8, "base": "rope"},
    "dape_v2_kerple": {"name": "dape_v2", "hidden": 8, "base": "kerple_log"},
    "fire": {"name": "fire", "hidden": 8, "threshold": 4.0},
    "cope": "cope",
    "transformer_xl": "transformer_xl",
}


def encodings_of(case: Case) -> list[str]:
    spec = SPECS[case.id]
    return [spec] if isinstance(spec, str) else [spec["name"], *([spec["base"]] if "base" in spec else [])]


def attention(encoding: Encoding, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The contract in five lines: what every attention path has to compute."""
    at = torch.arange(q.shape[2])
    q, k = encoding.rotate(q, k, at)
    logits = encoding.adjust(scores_of(encoding, q @ k.mT / q.shape[-1] ** 0.5, q, k))
    future = torch.ones(len(at), len(at), dtype=torch.bool).triu(1)
    probabilities = logits.masked_fill(future, float("-inf")).softmax(-1)
    return logits, probabilities, probabilities @ v


@each("attention", of=encodings_of)
def test_attention_with_each_encoding_is_the_published_one(case: Case) -> None:
    assert case.heads is not None
    assert case.head_dim is not None
    encoding = fill(build(SPECS[case.id], geometry(case.heads, case.head_dim)), case.params)
    q, k, v = (tensor(case.inputs[name]) for name in "qkv")
    logits, probabilities, context = attention(encoding, q, k, v)
    check(case, "logits_before_mask", logits.detach())
    check(case, "probs", probabilities.detach())
    # The context has no row of keys: every one of its numbers counts.
    golden = tensor(case.outputs["context"], torch.float64)
    assert (context.detach() - golden).abs().max() <= tolerance(case, "context")


@pytest.mark.parametrize("name", ["none", "rope", "transformer_xl"])
def test_the_whole_attention_step_is_that_of_released_code(name: str) -> None:
    golden = case("attention", name)
    q, k, v = (tensor(golden.inputs[each]) for each in "qkv")
    member = transformer_xl(golden) if name == "transformer_xl" else build(name, geometry(4, 8))
    at = torch.arange(q.shape[2])
    q, k = member.rotate(q, k, at)
    logits = member.adjust(unmasked_scores(q, k))
    visible = torch.ones(len(at), len(at), dtype=torch.bool).tril()
    probs = logits.masked_fill(~visible, float("-inf")).softmax(dim=-1)
    seen = golden._replace(compare="visible")
    check(seen, "logits_before_mask", logits)
    check(seen, "probs", probs)
    check(golden._replace(compare="all"), "context", probs @ v)
