"""What every encoding says of itself, and options that are misspelt or cannot work."""

import re
import sys
from typing import Any

import pytest

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.model.encoding import Geometry
from lpe_eval.registry import ENCODINGS
from tests.support.encoding_forms import PLAIN, WRAPPERS, every_name, geometry
from tests.support.official_parameters import build
from tests.support.spelling import bases_of, written


@every_name
def test_it_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    member = ENCODINGS.load(name)
    described = sys.modules[member.__module__].__doc__
    assert member.title
    assert member.paper
    assert member.__doc__
    assert described
    assert member.bidirectional in ("published", "ours")
    assert isinstance(member.per_layer, bool)
    for number in re.findall(r"\d{4}\.\d{5}", member.paper):
        assert number in described
    assert member.paper.split()[0].strip(",") in described


def with_base(name: str) -> dict[str, Any]:
    return {"name": name, "base": {"name": bases_of(name, ["alibi"])[0]}} if name in WRAPPERS else {"name": name}


@every_name
def test_a_misspelt_option_is_answered_with_the_right_one(name: str) -> None:
    with pytest.raises(UnknownName, match=r"per_layr.*did you mean.*per_layer"):
        build({**with_base(name), "per_layr": True}, geometry())


@every_name
def test_a_wrong_value_of_an_option_is_a_spec_error_that_names_it(name: str) -> None:
    with pytest.raises(SpecError, match=r"per_layer.*perhaps"):
        build({**with_base(name), "per_layer": "perhaps"}, geometry())


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_without_a_base_says_how_to_write_one(name: str) -> None:
    with pytest.raises(SpecError, match=rf"{name}\({bases_of(name, ['alibi'])[0]}\)"):
        build(name, geometry())


@pytest.mark.parametrize("name", PLAIN)
def test_an_encoding_that_wraps_nothing_refuses_a_base(name: str) -> None:
    with pytest.raises(SpecError, match="wraps nothing"):
        build({"name": name, "base": {"name": "alibi"}}, geometry())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "t5", "buckets": 7}, "buckets"),
        ({"name": "t5", "buckets": 32, "max_distance": 16}, "max_distance"),
        ({"name": "sandwich", "dimension": 5}, "odd width"),
        ({"name": "mep", "kernels": ["tanh"]}, "12 heads"),
        ({"name": "mep", "kernels": ["polynomial"]}, "12 heads"),
        ({"name": "mep", "kernels": []}, "kernels"),
        ({"name": "mep", "kernels": ["exp", []]}, "kernels"),
        ({"name": "mep", "kernels": ["expo"]}, "kernels"),
        ({"name": "dape_v2", "kernel": 4, "base": {"name": "alibi"}}, "odd"),
        ({"name": "fire", "threshold": -1}, "threshold"),
        ({"name": "kerple_log", "form": "power"}, "form"),
    ],
    ids=lambda value: value if isinstance(value, str) else written(value),
)
def test_options_that_cannot_work_are_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(spec, geometry())


@pytest.mark.parametrize("name", ["rope", "xpos", "sinusoidal", "transformer_xl"])
def test_an_odd_width_is_refused_where_channels_are_paired(name: str) -> None:
    odd = Geometry(heads=3, head_width=5, width=15, train_length=16)
    with pytest.raises(SpecError):
        build(name, odd)
