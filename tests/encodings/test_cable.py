"""CABLE."""

import torch

from tests.support.golden_cases import Case, check, each, tensor
from tests.support.golden_layers import check_layer, layered, made
from tests.support.official_parameters import build, geometry
from tests.support.random_weights import seeded

NAMES = {"penalty.weight": "h_attn.weight", "penalty.bias": "h_attn.bias"}


@each("cable")
def test_cable_has_the_published_numbers(case: Case) -> None:
    cable = made(case, "cable", NAMES)
    levels = cable.features(tensor(case.inputs["x"]))
    assert levels is not None
    check(case, "bias", levels - levels.mT)
    check_layer(case, layered(cable, case))


def test_cable_is_fox_with_the_other_sign() -> None:
    cable, fox = build("cable", geometry(3), scale="sqrt_d"), build("fox", geometry(3))
    cable.initialise(seeded())
    state = {name.replace("penalty", "gate"): -value for name, value in cable.state_dict().items()}
    fox.load_state_dict(state)
    x = torch.randn(2, 9, 24, generator=seeded(1))
    of_cable, of_fox = cable.features(x), fox.features(x)
    assert of_cable is not None
    assert of_fox is not None
    torch.testing.assert_close(of_cable, of_fox, rtol=1e-6, atol=1e-6)
    q = torch.randn(2, 3, 9, 8, generator=seeded(2))
    assert cable.rotate(q, q, torch.arange(9))[0] is q
