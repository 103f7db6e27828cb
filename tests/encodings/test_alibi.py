"""ALiBi."""

import pytest
import torch

from lpe_eval.errors import SpecError
from lpe_eval.model.build import build_encodings
from lpe_eval.model.distance_kernels import alibi_slopes
from lpe_eval.model.encoding import Geometry
from lpe_eval.model.encodings.alibi import Alibi
from lpe_eval.spec.encoding_spec import EncodingSpec
from tests.support.che_golden import GOLDEN_ENCODINGS, positional
from tests.support.golden_cases import Case, check, each, has, tensor, tolerance
from tests.support.golden_outputs import check_all, geometry_of
from tests.support.official_parameters import build, full_bias, geometry
from tests.support.random_weights import LENGTH, close, logits, probabilities

ROW_CONSTANT = {"fairseq_form", "nemo_causal_form", "mpt_bias_max"}
SPECIAL = {"bloom_padding", "falcon_bf16"}


@each("alibi", has("slopes"))
def test_alibi_has_the_published_slopes(case: Case) -> None:
    assert case.heads is not None
    check(case, "slopes", alibi_slopes(case.heads))
    check(case, "slopes", Alibi(geometry(case.heads), Alibi.Options()).slopes)


@each("alibi", lambda case: "slopes" not in case.outputs and case.id not in ROW_CONSTANT | SPECIAL)
def test_alibi_has_the_published_bias(case: Case) -> None:
    two_sided = "che" if case.id.startswith("che") else "symmetric"
    check_all(case, build("alibi", geometry_of(case), two_sided=two_sided))


@each("alibi", lambda case: case.id in ROW_CONSTANT)
@pytest.mark.parametrize("form", ["distance", "key"])
def test_published_alibi_that_is_constant_in_each_row_differs_by_that_constant(case: Case, form: str) -> None:
    bias_max = float(case.params.get("alibi_bias_max", 8))
    columns = case.fields["k_len"]
    mine = full_bias(build("alibi", geometry_of(case), form=form, bias_max=bias_max), columns, columns)
    golden = tensor(case.outputs["bias"]).expand_as(mine)
    # The softmax of a row sees differences to the diagonal only.
    mine, golden = (matrix - matrix.diagonal(dim1=-2, dim2=-1)[..., None] for matrix in (mine, golden))
    visible = torch.ones(columns, columns, dtype=torch.bool).tril()
    gap = (mine - golden)[:, visible].abs().max()
    assert gap <= tolerance(case, "bias")


@each("alibi", lambda case: case.id == "fairseq_form")
def test_the_key_form_of_alibi_is_fairseqs_without_any_shift(case: Case) -> None:
    check_all(case, build("alibi", geometry_of(case), form="key"))


@each("alibi", lambda case: case.id == "bloom_padding")
def test_bloom_takes_positions_from_the_padding_mask(case: Case) -> None:
    mask = torch.tensor(case.inputs["attention_mask"])
    positions = (mask.cumsum(-1) - 1).clamp(min=0) * mask
    alibi = build("alibi", geometry_of(case), form="key")
    biases = [alibi.bias(at[-1:], at) for at in positions]
    check(case, "bias", torch.stack([bias for bias in biases if bias is not None]))


@each("alibi", lambda case: case.id == "falcon_bf16")
def test_falcon_rounds_slopes_and_positions_to_bfloat16(case: Case) -> None:
    at = torch.tensor(case.inputs["positions"])
    alibi = build("alibi", geometry_of(case, head_width=64), form="key", distance_dtype="bfloat16")
    bias = alibi.bias(at[-1:], at)
    assert bias is not None
    check(case, "bias_at_positions", bias[:, 0])
    scaled = build("alibi", geometry_of(case, head_width=64), form="key", distance_dtype="bfloat16", scaled=True)
    divided = scaled.bias(at[-1:], at)
    assert divided is not None
    check(case, "bias_at_positions", divided[:, 0] * 8)


def test_the_bias_of_eight_heads_is_that_of_both_official_repositories():
    alibi = EncodingSpec.model_validate(GOLDEN_ENCODINGS["ALIBI"])
    [eight_heads] = build_encodings(alibi, Geometry(8, 8, 64, 7, causal=False), 1)
    at, golden = torch.arange(7), torch.tensor(positional()["alibi_bias_h8_T7"])
    torch.testing.assert_close(eight_heads.bias(at, at), golden, rtol=1e-6, atol=1e-6)


def test_the_key_form_of_alibi_is_alibi_after_the_softmax() -> None:
    shape = geometry(12)
    by_key, by_distance = build("alibi", shape, form="key").double(), build("alibi", shape).double()
    assert not close(logits(by_key), logits(by_distance))
    assert close(probabilities(by_key), probabilities(by_distance))


def test_two_sided_alibi_of_the_chomsky_code_adds_half_a_slope_to_the_past_alone() -> None:
    shape = geometry(6, causal=False)
    symmetric, che = build("alibi", shape), build("alibi", shape, two_sided="che")
    past = torch.ones(LENGTH, LENGTH).tril(-1)
    shift = full_bias(che, LENGTH, LENGTH) - full_bias(symmetric, LENGTH, LENGTH)
    assert close(shift, 0.5 * alibi_slopes(6)[:, None, None] * past, 1e-6)


def test_alibi_by_key_is_refused_where_the_future_is_visible() -> None:
    with pytest.raises(SpecError, match="causal"):
        build("alibi", geometry(3, 4, 7, causal=False), form="key")
