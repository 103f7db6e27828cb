"""Temperatures of queries."""

from typing import Any

import pytest
import torch

from lpe_eval.errors import SpecError
from lpe_eval.model.build import build_encodings
from lpe_eval.model.encodings.tempered import Tempered
from lpe_eval.spec.encoding_spec import EncodingSpec
from tests.support.golden_cases import Case, check, each, has, tensor
from tests.support.golden_layers import check_layer, layered, made
from tests.support.official_parameters import build, geometry

RULES = {"llama4": "llama4", "ministral3": "ministral", "inkling": "inkling", "logn": "log_n", "ssmax": "ssmax"}
FLOORS = ("floor_scale", "original_max_position_embeddings", "log_scaling_n_floor", "training_length")
STRENGTHS = ("attn_scale", "beta", "log_scaling_alpha")


def spec_of(case: Case) -> dict[str, Any]:
    base: dict[str, Any] = {"name": "none"}
    if "rope_base" in case.fields:
        base = {"name": "rope", "theta": case.fields["rope_base"]}
    numbers = {
        ours: case.fields[name]
        for ours, names in (("floor", FLOORS), ("strength", STRENGTHS))
        for name in names
        if name in case.fields
    }
    return {"name": "tempered", "rule": RULES[case.fields["rule"]], **numbers, "base": base}


@each("temperature", has("factor"))
def test_factors_are_the_published_ones(case: Case) -> None:
    tempered = build(spec_of(case), geometry(2))
    assert isinstance(tempered, Tempered)
    check(case, "factor", tempered.factor(tensor(case.inputs["positions"], torch.int64))[0])


@each("temperature", has("logits"))
def test_layers_are_the_published_ones(case: Case) -> None:
    names = {"scale": "scale"} if case.fields["rule"] == "ssmax" else {}
    check_layer(case, layered(made(case, spec_of(case), names), case))


@pytest.mark.parametrize(
    ("rule", "first", "at"),
    [("llama4", 8191, 8191), ("ministral", 16384, 16384), ("inkling", 128000, 128000), ("log_n", 16, 16)],
)
def test_official_floors_are_the_default(rule: str, first: int, at: int) -> None:
    tempered = build({"name": "tempered", "rule": rule, "base": "none"}, geometry(2, train_length=16))
    assert isinstance(tempered, Tempered)
    factors = tempered.factor(torch.tensor([0, first - 1, at]))[0]
    assert factors[:2].tolist() == [1.0, 1.0]
    assert factors[2] > 1
    other = {"llama4": "position", "ministral": "keys"}.get(rule)
    if other is not None:
        moved = build({"name": "tempered", "rule": rule, "counts": other, "base": "none"}, geometry(2))
        assert isinstance(moved, Tempered)
        assert moved.factor(torch.tensor([at]))[0] == (1 if other == "position" else factors[2])


def test_the_paper_s_start_of_ssmax() -> None:
    tempered = build({"name": "tempered", "rule": "ssmax", "base": "none"}, geometry(2, train_length=1024))
    assert isinstance(tempered, Tempered)
    assert tempered.scale.tolist() == pytest.approx([0.1685] * 2, abs=1e-4)


def test_every_layer_learns_a_scale_and_what_is_inside_is_shared_as_without_it() -> None:
    spec = EncodingSpec.model_validate({"name": "tempered", "rule": "ssmax", "base": "t5"})
    first, second = build_encodings(spec, geometry(2), 2)
    assert isinstance(first, Tempered)
    assert isinstance(second, Tempered)
    assert first.scale is not second.scale
    assert first.inner is second.inner
    spec = EncodingSpec.model_validate({"name": "sinks", "base": "fox"})
    first, second = build_encodings(spec, geometry(2), 2)
    assert not set(first.parameters()) & set(second.parameters())


@pytest.mark.parametrize(
    "options", [{"rule": "ssmax", "floor": 4}, {"rule": "log_n", "start": 1.0}, {"rule": "log_n", "floor": 1}]
)
def test_options_that_say_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="tempered by"):
        build({"name": "tempered", "base": "none", **options}, geometry(2))
