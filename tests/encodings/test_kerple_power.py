"""KERPLE, power form."""

from typing import Any

import pytest
import torch

from lpe_eval.model.build import initialise
from lpe_eval.model.distance_kernels import alibi_slopes
from lpe_eval.model.encoding import Encoding
from tests.support.golden_cases import Case, each, has
from tests.support.golden_outputs import check_all, check_clamped, geometry_of
from tests.support.official_parameters import build, fill, full_bias, geometry
from tests.support.random_weights import LENGTH, close, filled

FORMS = {"power_ap_ap": "bias_and_weight", "power_weight_only": "weight", "power_original": "original"}


def is_power(case: Case) -> bool:
    return case.provenance == "kerple_power"


def kerple_power(case: Case) -> Encoding:
    form = FORMS.get(case.id, "bias")
    return fill(build("kerple_power", geometry_of(case), form=form), {} if form == "original" else case.params)


@each("kerple", is_power)
def test_kerple_has_the_published_numbers(case: Case) -> None:
    check_all(case, kerple_power(case))


@each("kerple", lambda case: is_power(case) and has("params_after_forward")(case))
def test_kerple_computes_with_the_clamped_parameters_and_keeps_the_weights(case: Case) -> None:
    encoding = kerple_power(case)
    kept = (lambda name: encoding.slopes) if case.id == "power_original" else encoding.get_parameter
    check_clamped(case, encoding, kept, lambda name: 2.0 if name.endswith("_p") else float("inf"))


def test_kerple_starts_in_the_published_ranges() -> None:
    encoding = build("kerple_power", geometry(64), form="bias_and_weight")
    initialise([encoding], torch.Generator().manual_seed(3))
    for name, high in {"bias_p": 2.0, "bias_a": 1.0, "wei_p": 2.0, "wei_a": 1.0}.items():
        values = getattr(encoding, name).detach()
        assert 0 <= float(values.min()) < 0.2 * high
        assert 0.8 * high < float(values.max()) <= high


@pytest.mark.parametrize("heads", [1, 2, 4, 6, 8, 12])
def test_kerple_power_with_alibis_slopes_is_alibi_unless_a_slope_is_below_the_clamp(heads: int) -> None:
    shape, slopes = geometry(heads), alibi_slopes(heads)
    power = build("kerple_power", shape)
    with torch.no_grad():
        power.bias_p.fill_(1.0)
        power.bias_a.copy_(slopes)
    original, alibi = build("kerple_power", shape, form="original"), build("alibi", shape)
    bias = full_bias(alibi, LENGTH, LENGTH)
    for encoding in (power, original):
        agree = (full_bias(encoding, LENGTH, LENGTH).detach() - bias).abs().amax((1, 2)) <= 1e-6
        assert agree.tolist() == (slopes >= 0.01).tolist()
    assert int((slopes < 0.01).sum()) == {1: 1, 2: 1, 4: 1, 6: 1, 8: 2, 12: 2}[heads]


@pytest.mark.parametrize("spec", [{"name": "kerple_power"}], ids=str)
def test_both_directions_of_kerple_are_one_another_mirrored(spec: dict[str, Any]) -> None:
    both = full_bias(filled(spec, geometry(4, causal=False)), LENGTH, LENGTH)
    past = full_bias(filled(spec, geometry(4)), LENGTH, LENGTH).tril()
    assert close(both, both.mT)
    assert close(both.tril(), past)
