"""Attention sinks."""

import torch

from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.encodings.sinks import Sinks
from lpe_eval.model.mask import Mask
from tests.support.golden_cases import Case, check, each, has
from tests.support.golden_layers import check_layer, heads_of, layered, made
from tests.support.official_parameters import build, geometry
from tests.support.random_weights import seeded


# StreamingLLM and LM-Infinite, the other cases of the file, are no members; `test_golden_slips.py` has their formulas.
@each("sinks", has("full_sink_mass"))
def test_sinks_have_the_published_numbers(case: Case) -> None:
    spec = {"name": "sinks", "base": {"name": "rope", "theta": case.fields["rope_base"]}}
    encoding = made(case, spec, {"sinks": "sinks"})
    for prefix, mask in (("sliding_", Mask(window=case.fields["window"])), ("full_", Mask())):
        check_layer(case, layered(encoding, case, mask), prefix)
        # The value of a key that is always one shows how much the row keeps.
        q, k, v = heads_of(case)
        at = torch.arange(k.shape[2])
        kept = Dense.attend(*encoding.rotate(q, k, at), torch.ones_like(v), encoding, at, mask)[..., 0]
        check(case._replace(compare="all"), f"{prefix}sink_mass", 1 - kept.detach())


def test_a_sink_is_one_more_key_whose_value_is_zero() -> None:
    encoding = build({"name": "sinks", "base": "alibi"}, geometry(3))
    encoding.initialise(seeded())
    assert isinstance(encoding, Sinks)
    assert 0 < float(encoding.sinks.detach().abs().max()) < 0.1
    q, k, v = (torch.randn(2, 3, 9, 8, generator=seeded(each)) for each in range(3))
    at = torch.arange(9)
    bias = encoding.bias(at, at)
    assert bias is not None
    future = torch.ones(9, 9, dtype=torch.bool).triu(1)
    logits = (q @ k.mT / 8**0.5 + bias).masked_fill(future, float("-inf"))
    more = encoding.sinks[:, None, None].expand(2, 3, 9, 1)
    weights = torch.cat([more, logits], dim=-1).softmax(-1)[..., 1:]
    torch.testing.assert_close(Dense.attend(q, k, v, encoding, at, Mask()), weights @ v)


def test_a_sink_far_below_is_none_and_all_can_start_at_one_number() -> None:
    encoding = build({"name": "sinks", "start": -100.0, "base": "none"}, geometry(3))
    encoding.initialise(seeded())
    q, k, v = (torch.randn(2, 3, 9, 8, generator=seeded(each)) for each in range(3))
    plain = build("none", geometry(3))
    found, wanted = (Dense.attend(q, k, v, each, torch.arange(9), Mask()) for each in (encoding, plain))
    assert torch.equal(found, wanted)
