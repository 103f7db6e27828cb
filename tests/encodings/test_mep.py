"""MEP, the mean of kernels."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.attentions.toeplitz import Toeplitz
from lpe_eval.model.build import build_encodings
from lpe_eval.model.distance_kernels import alibi_slopes
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.model.mask import Mask
from lpe_eval.spec.encoding_spec import EncodingSpec
from tests.support.attending import scored
from tests.support.golden_cases import Case, check, each, tensor
from tests.support.golden_outputs import check_all, geometry_of
from tests.support.official_parameters import build, fill, full_bias, geometry
from tests.support.random_weights import LENGTH, close, filled

MEP_NAMES = {"gauss": "gaussian"}


def renamed(kernels: list[Any]) -> list[Any]:
    return [renamed(each) if isinstance(each, list) else MEP_NAMES.get(each, each) for each in kernels]


def mep(case: Case, **options: Any) -> Encoding:
    kernels = renamed(case.fields["kernels"])
    return fill(build("mep", geometry_of(case), kernels=kernels, **options), case.params)


def encodings_in(case: Case) -> list[str]:
    """Kernels that are encodings of their own."""
    return [name for name in ("t5", "kerple_log") if name in str(case.fields["kernels"])]


def uses_tanh(case: Case) -> bool:
    return "tanh" in str(case.fields["kernels"])


@each("mep", lambda case: not case.id.startswith("underflow") and not uses_tanh(case), of=encodings_in)
@pytest.mark.parametrize("numerics", ["stable", "as_published"])
def test_mep_has_the_published_numbers(case: Case, numerics: str) -> None:
    check_all(case, mep(case, numerics=numerics))


@each("mep", uses_tanh)
@pytest.mark.parametrize("numerics", ["stable", "as_published"])
def test_mep_with_the_tanh_kernel_has_the_published_mean(case: Case, numerics: str) -> None:
    golden = tensor(case.outputs["bias_by_distance"])
    bias = mep(case, numerics=numerics).bias_by_offset(torch.arange(golden.shape[-1]))
    assert bias is not None
    # The published 1e-6 + 1 + tanh(..) keeps 1e-6 to a few steps of 6e-8 only, so the mean is compared, not its log.
    assert (bias.exp() - golden.exp()).abs().max() <= 1e-6


def first_infinity(bias: Tensor) -> list[int]:
    return [int(row.nonzero()[0]) if bool(row.any()) else -1 for row in bias.isinf()]


@each("mep", lambda case: case.id.startswith("underflow"))
def test_mep_as_published_underflows_where_the_published_code_does(case: Case) -> None:
    dtype = "bfloat16" if case.id.endswith("bf16") else "float32"
    published = mep(case, numerics="as_published", distance_dtype=dtype)
    bias = published.bias_by_offset(torch.arange(case.fields["k_len"]))
    assert bias is not None
    assert first_infinity(bias) == case.outputs["first_minus_inf_distance"]
    check(case, "bias_at_distances", bias[:, case.inputs["distances"]])
    stable = mep(case).bias_by_offset(torch.arange(100_000))
    assert stable is not None
    assert bool(stable.isfinite().all())


@pytest.mark.parametrize(("kernel", "encoding"), [("exp", "alibi"), ("kerple_log", "kerple_log"), ("t5", "t5")])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [3, 8, 12])
def test_the_mean_of_one_kernel_is_that_kernels_own_encoding(
    causal: bool, heads: int, kernel: str, encoding: str
) -> None:
    shape = geometry(heads, causal=causal)
    alone, mean = filled(encoding, shape), filled("mep", shape, kernels=[kernel])
    if kernel != "exp":
        mean.learned[kernel].load_state_dict(alone.state_dict())
    assert close(full_bias(mean, LENGTH, LENGTH), full_bias(alone, LENGTH, LENGTH))


def test_the_kernels_of_a_mean_have_the_formulas_they_are_named_after() -> None:
    shape, distance = geometry(12), torch.arange(20, dtype=torch.float64)
    slopes = alibi_slopes(12).double()[:, None]
    formulas = {
        "exp": torch.exp(-slopes * distance),
        "exp_half": torch.exp(-slopes * distance / 2),
        "gaussian": torch.exp(-slopes * distance**2),
    }
    for kernel, values in formulas.items():
        for numerics in ("stable", "as_published"):
            bias = filled("mep", shape, kernels=[kernel], numerics=numerics).bias_by_offset(torch.arange(20))
            assert bias is not None
            assert close(bias.exp(), values, 1e-6)
    for numerics in ("stable", "as_published"):
        bias = filled("mep", shape, kernels=["polynomial", "tanh"], numerics=numerics).bias_by_offset(torch.arange(20))
        assert bias is not None
        first_head = ((1 + 0.01 * distance) ** -0.6914 + 1e-6 + 1 + torch.tanh(-0.25737 * distance)) / 2
        assert close(bias[0].exp(), first_head, 1e-6)


def test_stable_numerics_and_published_numerics_give_the_same_bias_where_nothing_underflows() -> None:
    kernels = ["exp", ["gaussian", ["kerple_log", "exp_half"]], "t5"]
    stable = filled("mep", geometry(6), kernels=kernels)
    published = filled("mep", geometry(6), kernels=kernels, numerics="as_published")
    published.load_state_dict(stable.state_dict())
    assert close(full_bias(stable, 200, 200), full_bias(published, 200, 200), 1e-6)


def test_keys_too_far_to_be_seen_do_not_disturb_the_fused_kernel():
    """MEP as published gives far keys minus infinity: whole tiles of the kernel hold nothing else."""
    spec = EncodingSpec(name="mep", options={"kernels": ["exp", "gaussian"], "numerics": "as_published"})
    encoding = build_encodings(spec, Geometry(3, 8, 24, 64), 1)[0]
    bias = encoding.bias_by_offset(torch.tensor([0, 1999]))
    assert bias is not None
    assert bias[0, 1] == -torch.inf
    expected = scored(Dense, encoding, 2000, 2000, Mask())
    torch.testing.assert_close(scored(Toeplitz, encoding, 2000, 2000, Mask()), expected, rtol=2e-5, atol=2e-5)
