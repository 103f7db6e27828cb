"""FoX."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from lpe_eval.errors import SpecError
from lpe_eval.model.attentions.levels import Levels
from lpe_eval.model.encodings.fox import Fox
from lpe_eval.model.mask import Mask
from lpe_eval.model.token_levels import log_sigmoid_of
from tests.support.golden_cases import Case, check, each, has, tensor
from tests.support.golden_layers import check_layer, layered, made
from tests.support.official_parameters import build, geometry
from tests.support.random_weights import seeded

NAMES = {"gate.weight": "fgate_proj.weight", "gate.bias": "fgate_proj.bias"}


@each("fox", has("logits"))
def test_fox_has_the_published_numbers(case: Case) -> None:
    fox = made(case, "fox", NAMES)
    assert isinstance(fox, Fox)
    x = tensor(case.inputs["x"])
    check(case._replace(compare="all"), "log_gate", log_sigmoid_of(x, fox.gate))
    levels = fox.features(x)
    assert levels is not None
    check(case, "bias", levels - levels.mT)
    check_layer(case, layered(fox, case, Mask(window=case.fields.get("window"))))


@each("fox", has("bias_by_distance"))
def test_fixed_gates_are_alibi_with_slopes_by_decay_time(case: Case) -> None:
    times = [case.params["decay_time_min"], case.params["decay_time_max"]]
    fox = build("fox", geometry(case.heads or 0, 2), gate="fixed", decay_times=times)
    assert isinstance(fox, Fox)
    assert not list(fox.parameters())
    check(case, "fgate_bias", fox.bias_of_gate)
    check(case, "log_gate", logsigmoid(fox.bias_of_gate)[:, None].expand(-1, 8))
    bias = fox.bias_by_offset(torch.arange(8))
    assert bias is not None
    check(case, "bias_by_distance", bias)


@pytest.mark.parametrize("start", [0.0, 5.0])
def test_gates_start_where_they_are_told_to(start: float) -> None:
    fox = build("fox", geometry(3), bias_init=start)
    assert isinstance(fox, Fox)
    fox.initialise(seeded())
    assert fox.gate.bias.tolist() == [start] * 3
    assert 0.01 < float(fox.gate.weight.detach().std()) < 0.03
    constant = build("fox", geometry(2), gate="per_head", decay_times=[4, 64])
    constant.initialise(seeded())
    slopes = constant.bias_by_offset(torch.tensor([1]))
    assert slopes is not None
    torch.testing.assert_close(slopes[:, 0], torch.tensor([-1 / 4, -1 / 64]))


def test_gates_that_are_open_are_no_encoding_and_rope_can_be_inside() -> None:
    x, at = torch.randn(2, 9, 24, generator=seeded()), torch.arange(9)
    q, k = (torch.randn(2, 3, 9, 8, generator=seeded(each)) for each in (1, 2))
    fox = build("fox", geometry(3), bias_init=60.0)
    fox.initialise(seeded())
    features = fox.features(x)
    assert features is not None
    assert features.abs().max() < 1e-20
    inside = build("fox", geometry(3), rope=True).rotate(q, k, at)
    rope = build("rope", geometry(3), theta=500000.0).rotate(q, k, at)
    assert all(torch.equal(*pair) for pair in zip(inside, rope, strict=True))


def test_fixed_gates_without_times_are_refused() -> None:
    with pytest.raises(SpecError, match="decay_times"):
        build("fox", geometry(3), gate="fixed")


LENGTH = 16384
WEIGH = 1024.0
"""Far below this no weight is left: exp(-104) is zero in float32."""


@pytest.mark.parametrize("start", [0.0, 3.0, 6.0], ids=["half", "long", "longer"])
def test_logits_and_contexts_are_exact_at_16384_tokens(start: float) -> None:
    """Against float64: rows here and there, logits of the contract and the context of the fast path."""
    fox = build("fox", geometry(2, head_width=16), bias_init=start)
    fox.initialise(seeded())
    draw = seeded(3)
    x = torch.randn(1, LENGTH, 32, generator=draw)
    q, k, v = (torch.randn(1, 2, LENGTH, 16, generator=draw) for _ in range(3))
    assert isinstance(fox, Fox)
    with torch.no_grad():
        features = fox.features(x)
        assert features is not None
        context = Levels.attend(q, k, v, fox, torch.arange(LENGTH), Mask(), features)
        gates = logsigmoid(x.double() @ fox.gate.weight.double().T + fox.gate.bias.double()).transpose(1, 2)
        sums = gates.cumsum(-1)
        for row in (0, 1, 700, 767, 768, 9000, LENGTH - 1):
            seen = slice(0, row + 1)
            added = sums[:, :, row, None] - sums[:, :, seen]
            exact = torch.einsum("bhd,bhkd->bhk", q[:, :, row].double(), k[:, :, seen].double()) / 4 + added
            weights = exact.softmax(-1)
            wanted = torch.einsum("bhk,bhkd->bhd", weights, v[:, :, seen].double())
            torch.testing.assert_close(context[:, :, row].double(), wanted, rtol=0, atol=3e-5)
            of_row = features[:, :, row, None], features[:, :, seen]
            logits = torch.einsum("bhd,bhkd->bhk", q[:, :, row], k[:, :, seen]) / 4
            found = (logits + (of_row[0] - of_row[1].mT)[:, :, 0]).float().double()
            near = added > -WEIGH
            assert (found - exact)[near].abs().max() < 1e-4
            # Beyond, float32 itself is coarser than that, and nothing but its own rounding is left.
            assert ((found - exact).abs() <= exact.abs() * 2**-23 + 1e-5).all()
    assert math.isfinite(float(context.sum()))
