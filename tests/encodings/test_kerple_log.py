"""KERPLE, logarithmic form."""

from typing import Any

import pytest
import torch

from lpe_eval.model.encoding import Encoding
from tests.support.golden_cases import Case, check, each, has
from tests.support.golden_outputs import check_all, check_clamped, geometry_of
from tests.support.official_parameters import build, fill, full_bias, geometry
from tests.support.random_weights import LENGTH, close, filled


def is_log(case: Case) -> bool:
    return case.provenance != "kerple_power"


def kerple_log(case: Case) -> Encoding:
    shape = geometry_of(case)
    if case.provenance == "nemo_kerple":
        return fill(build("kerple_log", shape, form="nemo"), case.params)
    if case.id.startswith("low_precision"):
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[case.id[-4:]]
        return fill(build("kerple_log", shape, distance_dtype=dtype), case.params)
    return fill(build("kerple_log", shape), case.params)


@each("kerple", lambda case: is_log(case) and not case.id.startswith("low_precision"))
def test_kerple_has_the_published_numbers(case: Case) -> None:
    check_all(case, kerple_log(case))


@each("kerple", lambda case: is_log(case) and has("params_after_forward")(case))
def test_kerple_computes_with_the_clamped_parameters_and_keeps_the_weights(case: Case) -> None:
    encoding = kerple_log(case)
    check_clamped(case, encoding, encoding.get_parameter, lambda name: float("inf"))


@each("kerple", lambda case: case.id.startswith("low_precision"))
def test_kerple_in_low_precision_rounds_as_published_runs_did(case: Case) -> None:
    at = torch.tensor(case.inputs["distances"])
    bias = kerple_log(case).bias_by_offset(at)
    assert bias is not None
    check(case, "bias_at_distances", bias)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[case.id[-4:]]
    check(case, "distance_cast", at.to(dtype))


@pytest.mark.parametrize("spec", [{"name": "kerple_log"}, {"name": "kerple_log", "form": "three_parameter"}], ids=str)
def test_both_directions_of_kerple_are_one_another_mirrored(spec: dict[str, Any]) -> None:
    both = full_bias(filled(spec, geometry(4, causal=False)), LENGTH, LENGTH)
    past = full_bias(filled(spec, geometry(4)), LENGTH, LENGTH).tril()
    assert close(both, both.mT)
    assert close(both.tril(), past)


def test_three_parameter_kerple_with_exponents_of_one_is_kerple() -> None:
    plain = filled("kerple_log", geometry(4))
    three = filled("kerple_log", geometry(4), form="three_parameter")
    three.load_state_dict({**plain.state_dict(), "exponent": torch.ones(4)})
    assert close(full_bias(three, LENGTH, LENGTH), full_bias(plain, LENGTH, LENGTH))


def test_the_gradient_of_a_clamped_parameter_is_that_of_the_value_it_is_clamped_to() -> None:
    encoding = build("kerple_log", geometry(2))
    with torch.no_grad():
        encoding.bias_p.copy_(torch.tensor([-3.0, 0.01]))
        encoding.bias_a.fill_(0.5)
    encoding.bias_by_offset(torch.arange(5)).sum().backward()
    assert float(encoding.bias_p.grad[0]) == float(encoding.bias_p.grad[1]) != 0.0
