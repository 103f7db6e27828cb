"""DAPE, and what it shares with DAPE V2."""

from typing import Any

import pytest
import torch

from tests.support.dape_bases import base_of, dape_base
from tests.support.golden_cases import Case, check, each, tensor
from tests.support.golden_outputs import check_all, geometry_of
from tests.support.official_parameters import build, fill, full_bias, geometry, scores_of
from tests.support.random_weights import LENGTH, close, filled, logits, scored
from tests.support.wrapped import BASES


@each("dape_v1", lambda case: case.id != "dape_rope", of=base_of)
def test_dape_has_the_published_numbers(case: Case) -> None:
    dape = build("dape", geometry_of(case), hidden=case.fields["mlp_width"], base=dape_base(case))
    check_all(case, fill(dape, case.params))


@each("dape_v1", lambda case: case.id == "dape_rope")
def test_dape_reads_the_logits_of_rotated_queries_and_keys(case: Case) -> None:
    dape = fill(build("dape", geometry_of(case), hidden=case.fields["mlp_width"], base={"name": "rope"}), case.params)
    q, k = dape.rotate(tensor(case.inputs["q"]), tensor(case.inputs["k"]), torch.arange(9))
    logits = q @ k.mT / 8**0.5
    check(case, "scaled_logits_after_rope", logits)
    check(case, "logits", dape.adjust(scores_of(dape, logits)))


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("wrapper", ["dape", "dape_v2"])
@pytest.mark.parametrize("causal", [True, False])
def test_dape_whose_last_layer_is_zero_is_what_it_wraps(base: Any, wrapper: str, causal: bool) -> None:
    shape = geometry(6, causal=causal)
    spec = {"name": base} if isinstance(base, str) else base
    if spec.get("form") == "key" and not causal:
        return
    alone, wrapped = filled(spec, shape), filled(wrapper, shape, base=spec)
    wrapped.inner.load_state_dict(alone.state_dict())
    assert not close(logits(wrapped), logits(alone))
    with torch.no_grad():
        wrapped.second.weight.zero_()
        wrapped.second.bias.zero_()
    assert close(logits(wrapped), logits(alone))


def test_dape_is_the_network_of_the_paper_applied_to_each_pair_of_tokens() -> None:
    dape = filled("dape", geometry(5), base={"name": "kerple_log"}, hidden=7)
    scores = scored(dape)
    bias = scores.bias
    assert bias is not None
    got = dape.adjust(scores)
    for row, column in [(0, 0), (4, 1), (10, 10), (10, 0)]:
        pair = torch.cat([scores.logits[:, :, row, column], bias[None, :, row, column].expand(2, -1)], dim=1)
        network = dape.second(torch.nn.functional.leaky_relu(dape.first(pair)))
        assert close(got[:, :, row, column], scores.logits[:, :, row, column] + bias[:, row, column] + network)


@pytest.mark.parametrize("wrapper", ["dape", "dape_v2"])
def test_without_its_residual_dape_does_not_add_the_bias_again(wrapper: str) -> None:
    spec = {"base": {"name": "alibi"}}
    whole, bare = filled(wrapper, geometry(5), **spec), filled(wrapper, geometry(5), residual=False, **spec)
    bias = full_bias(whole, LENGTH, LENGTH).tril()
    assert close(logits(whole) - bias, logits(bare))
