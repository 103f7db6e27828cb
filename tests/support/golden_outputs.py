"""Compares encodings with the outputs of golden cases."""

from collections.abc import Callable

import torch
from torch import Tensor

from lpe_eval.model.distance_kernels import clamped
from lpe_eval.model.encoding import Encoding, Geometry
from tests.support.golden_cases import Case, check, tensor
from tests.support.official_parameters import full_bias, geometry, scores_of


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


def check_clamped(case: Case, encoding: Encoding, kept: Callable[[str], Tensor], high: Callable[[str], float]) -> None:
    """Computing a bias leaves the weights as they are, and their clamped values are those that the official run kept.

    Args:
        case: the golden case, with parameters after a forward pass.
        encoding: the encoding that holds the case's parameters.
        kept: our parameter of an official name.
        high: the upper bound of a parameter, by official name.
    """
    before = {name: value.clone() for name, value in encoding.named_parameters()}
    full_bias(encoding, 3, 3) if encoding.capabilities.offset_bias else None
    assert all(torch.equal(value, before[name]) for name, value in encoding.named_parameters())
    for name, golden in case.outputs["params_after_forward"].items():
        gap = (clamped(kept(name), 0.01, high(name)) - tensor(golden)).abs().max()
        assert gap <= 4 * case.fp64_gap.get(f"params_after_forward.{name}", 0.0) + 2e-6
