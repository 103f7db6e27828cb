"""Every bias and every adjustment of the scores, against numbers from the authors' own code."""

from typing import Any

import golden_cases
import pytest
import torch
from golden_cases import Case, cases, tensor, tolerance
from official_parameters import build, fill, full_bias, geometry, scores_of
from torch import Tensor

from lpe_eval.model.build import initialise
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.model.encodings.alibi import Alibi, alibi_slopes
from lpe_eval.model.encodings.kerple_log import clamped
from lpe_eval.model.encodings.t5 import T5

MEP_NAMES = {"gauss": "gaussian"}


def each(file: str, wanted: Any = lambda case: True) -> pytest.MarkDecorator:
    found = [case for case in cases(file) if wanted(case)]
    assert found
    return pytest.mark.parametrize("case", found, ids=[case.id for case in found])


def check(case: Case, output: str, got: Tensor) -> None:
    golden_cases.check(case, output, got.detach())


def has(*outputs: str) -> Any:
    return lambda case: any(output in case.outputs for output in outputs)


def geometry_of(case: Case, head_width: int = 8, train_length: int = 16) -> Geometry:
    heads = case.heads or 4
    return geometry(heads, case.head_dim or head_width, train_length, causal=case.direction != "bidirectional")


def check_all(case: Case, encoding: Encoding) -> None:
    """Compares every output that a bias or an adjustment explains."""
    rows, columns = case.fields["q_len"], case.fields["k_len"]
    known = {"bias", "logits", "bias_by_distance", "params_after_forward"}
    assert set(case.outputs) <= known, set(case.outputs) - known
    if "bias" in case.outputs:
        at = torch.arange(columns)
        at = torch.tensor([int(p) for p in case.inputs["positions"]]) if "positions" in case.inputs else at
        bias = encoding.bias(at[columns - rows :], at)
        assert bias is not None
        check(case, "bias", bias)
    if "logits" in case.outputs:
        queries = tensor(case.inputs["q"]) if "q" in case.inputs else None
        check(case, "logits", encoding.adjust(scores_of(encoding, tensor(case.inputs["logits"]), queries)))
    if "bias_by_distance" in case.outputs:
        golden = tensor(case.outputs["bias_by_distance"])
        bias = encoding.bias_by_offset(torch.arange(golden.shape[-1]))
        assert bias is not None
        check(case, "bias_by_distance", bias)
        whole = full_bias(encoding, golden.shape[-1], golden.shape[-1])
        check(case, "bias_by_distance", whole[:, -1].flip(-1))


# ALiBi


@each("alibi", has("slopes"))
def test_alibi_has_the_published_slopes(case: Case) -> None:
    assert case.heads is not None
    check(case, "slopes", alibi_slopes(case.heads))
    check(case, "slopes", Alibi(geometry(case.heads), Alibi.Options()).slopes)


ROW_CONSTANT = {"fairseq_form", "nemo_causal_form", "mpt_bias_max"}
SPECIAL = {"bloom_padding", "falcon_bf16"}


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


# KERPLE


def kerple(case: Case) -> Encoding:
    shape = geometry_of(case)
    if case.provenance == "nemo_kerple":
        return fill(build("kerple_log", shape, form="nemo"), case.params)
    if case.id.startswith("low_precision"):
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[case.id[-4:]]
        return fill(build("kerple_log", shape, distance_dtype=dtype), case.params)
    if case.provenance == "kerple_log":
        return fill(build("kerple_log", shape), case.params)
    forms = {"power_ap_ap": "bias_and_weight", "power_weight_only": "weight", "power_original": "original"}
    form = forms.get(case.id, "bias")
    return fill(build("kerple_power", shape, form=form), {} if form == "original" else case.params)


@each("kerple", lambda case: not case.id.startswith("low_precision"))
def test_kerple_has_the_published_numbers(case: Case) -> None:
    check_all(case, kerple(case))


@each("kerple", has("params_after_forward"))
def test_kerple_computes_with_the_clamped_parameters_and_keeps_the_weights(case: Case) -> None:
    encoding = kerple(case)
    before = {name: value.clone() for name, value in encoding.named_parameters()}
    full_bias(encoding, 3, 3) if encoding.capabilities.offset_bias else None
    assert all(torch.equal(value, before[name]) for name, value in encoding.named_parameters())
    for name, golden in case.outputs["params_after_forward"].items():
        own = encoding.slopes if case.id == "power_original" else getattr(encoding, name)
        high = 2.0 if name.endswith("_p") and case.provenance == "kerple_power" else float("inf")
        gap = (clamped(own, 0.01, high) - tensor(golden)).abs().max()
        assert gap <= 4 * case.fp64_gap.get(f"params_after_forward.{name}", 0.0) + 2e-6


@each("kerple", lambda case: case.id.startswith("low_precision"))
def test_kerple_in_low_precision_rounds_as_published_runs_did(case: Case) -> None:
    at = torch.tensor(case.inputs["distances"])
    bias = kerple(case).bias_by_offset(at)
    assert bias is not None
    check(case, "bias_at_distances", bias)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[case.id[-4:]]
    check(case, "distance_cast", at.to(dtype))


# T5


@each("t5", has("bucket"))
def test_t5_has_the_published_buckets(case: Case) -> None:
    options = T5.Options(buckets=case.params["num_buckets"], max_distance=case.params["max_distance"])
    shape = geometry(4, causal=case.direction == "causal")
    bucket = T5(shape, options).bucket(torch.tensor(case.inputs["distance_i_minus_j"]))
    assert bucket.tolist() == case.outputs["bucket"]


@each("t5", has("bias", "bias_by_distance"))
def test_t5_has_the_published_bias(case: Case) -> None:
    raw = case.params["scale"] == 1.0
    shape = geometry_of(case, head_width=round(case.params["scale"] ** 2))
    check_all(case, fill(build("t5", shape, scale="none" if raw else "sqrt_head_width"), case.params))


# FIRE


@each("fire")
def test_fire_has_the_published_numbers(case: Case) -> None:
    train_length = int(case.inputs.get("noise_seq_length", 16))
    threshold: Any = "half_train_length" if "noise_seq_length" in case.inputs else float(case.params["init_L"])
    encoding = build(
        "fire",
        geometry_of(case, train_length=train_length),
        hidden=case.fields["mlp_width"],
        eps=case.fields["eps"],
        threshold=threshold,
        normaliser="query",
    )
    check_all(case, fill(encoding, case.params))


# DAPE and DAPE V2


def dape_base(case: Case) -> dict[str, Any]:
    if "c" in case.params:
        threshold = float(case.params["init_L"])
        hidden = case.fields["mlp_width"]
        return {"name": "fire", "activation": "leaky_relu", "threshold": threshold, "hidden": hidden}
    return {"name": "kerple_log" if "bias_p" in case.params else "alibi" if "slopes" in case.params else "none"}


@each("dape_v1", lambda case: case.id != "dape_rope")
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


@each("dape_v2")
def test_dape_v2_has_the_published_numbers(case: Case) -> None:
    dape = build(
        "dape_v2",
        geometry_of(case),
        hidden=case.fields["mlp_width"],
        kernel=case.fields["kernel"],
        base=dape_base(case),
    )
    check_all(case, fill(dape, case.params))


# CoPE


@each("cope")
def test_cope_has_the_published_numbers(case: Case) -> None:
    check_all(case, fill(build("cope", geometry_of(case), npos_max=case.fields["npos_max"]), case.params))


# MEP


def renamed(kernels: list[Any]) -> list[Any]:
    return [renamed(each) if isinstance(each, list) else MEP_NAMES.get(each, each) for each in kernels]


def mep(case: Case, **options: Any) -> Encoding:
    kernels = renamed(case.fields["kernels"])
    return fill(build("mep", geometry_of(case), kernels=kernels, **options), case.params)


def uses_tanh(case: Case) -> bool:
    return "tanh" in str(case.fields["kernels"])


@each("mep", lambda case: not case.id.startswith("underflow") and not uses_tanh(case))
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


# Sandwich


@each("sandwich")
def test_sandwich_has_the_numbers_of_nemo(case: Case) -> None:
    check_all(case, build("sandwich", geometry_of(case), dimension=case.params["D"]))


@pytest.mark.parametrize("first_index", [0, 1])
def test_sandwich_sums_its_cosines_from_the_first_index(first_index: int) -> None:
    shape = geometry(3)
    bias = build("sandwich", shape, dimension=4, first_index=first_index, centred=False).bias_by_offset(
        torch.tensor([5])
    )
    n = torch.tensor([first_index, first_index + 1], dtype=torch.float64)
    total = torch.cos(5 / 10000 ** (2 * n / 4)).sum()
    assert bias is not None
    assert torch.allclose(bias[:, 0].double(), total / (8 * torch.tensor([1.0, 2.0, 3.0]).double() / 3))


# The initial values of the released code


def test_kerple_starts_in_the_published_ranges() -> None:
    encoding = build("kerple_power", geometry(64), form="bias_and_weight")
    initialise([encoding], torch.Generator().manual_seed(3))
    for name, high in {"bias_p": 2.0, "bias_a": 1.0, "wei_p": 2.0, "wei_a": 1.0}.items():
        values = getattr(encoding, name).detach()
        assert 0 <= float(values.min()) < 0.2 * high
        assert 0.8 * high < float(values.max()) <= high


def test_the_gradient_of_a_clamped_parameter_is_that_of_the_value_it_is_clamped_to() -> None:
    encoding = build("kerple_log", geometry(2))
    with torch.no_grad():
        encoding.bias_p.copy_(torch.tensor([-3.0, 0.01]))
        encoding.bias_a.fill_(0.5)
    encoding.bias_by_offset(torch.arange(5)).sum().backward()
    assert float(encoding.bias_p.grad[0]) == float(encoding.bias_p.grad[1]) != 0.0
