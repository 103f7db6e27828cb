"""What can be written for an encoding, and for one in each layer."""

from typing import Any

import pytest
from pydantic import ValidationError

from lpe_eval.errors import SpecError
from lpe_eval.spec.encoding_spec import EncodingSpec, split_outside
from lpe_eval.spec.fingerprint import canonical, fingerprint
from lpe_eval.spec.model_spec import ModelSpec
from lpe_eval.spec.tasks import parse_spec


@pytest.mark.parametrize(
    ("text", "flat", "told"),
    [
        ("alibi", {"name": "alibi"}, "alibi"),
        ("dape(kerple-log)", {"name": "dape", "base": {"name": "kerple_log"}}, "dape(kerple_log)"),
        ("p_rope[p=0.5, theta=1e6]", {"name": "p_rope", "p": 0.5, "theta": 1e6}, "p_rope"),
        (
            "tempered(p_rope[p=0.5])[rule=ssmax]",
            {"name": "tempered", "rule": "ssmax", "base": {"name": "p_rope", "p": 0.5}},
            "tempered(p_rope)",
        ),
        ("fox[gate=fixed, decay_times=[2, 8]]", {"name": "fox", "gate": "fixed", "decay_times": [2, 8]}, "fox"),
        ("rope*3,none", [{"encoding": {"name": "rope"}, "times": 3}, {"encoding": {"name": "none"}}], "rope*3,none"),
        ("rope [ window = 512 ]", [{"encoding": {"name": "rope"}, "window": 512}], "rope[window=512]"),
        (
            "rope[chunk=8,theta=1e6] * 3, tempered(none)",
            [
                {"encoding": {"name": "rope", "theta": 1e6}, "chunk": 8, "times": 3},
                {"encoding": {"name": "tempered", "base": {"name": "none"}}},
            ],
            "rope[chunk=8]*3,tempered(none)",
        ),
    ],
)
def test_the_short_form_is_the_nested_one(text: str, flat: Any, told: str) -> None:
    found = EncodingSpec.parse(text)
    assert found.model_dump() == flat
    assert str(found) == told
    assert EncodingSpec.model_validate(flat) == found == EncodingSpec.model_validate(text)
    assert EncodingSpec.model_validate(found.model_dump(mode="json")) == found


def test_a_schedule_of_texts_is_the_schedule() -> None:
    assert EncodingSpec.model_validate(["rope[window=4]*3", "none"]) == EncodingSpec.parse("rope[window=4]*3,none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rope[window=0]*3,none", "a window is a number of tokens, 1 or more, not 0"),
        ("rope[window=-4]", "not -4"),
        ("rope[window=1.5]", "not 1.5"),
        ("rope[window=all]", "not 'all'"),
        ("rope[window=true]", "not True"),
        ("none[chunk=0]", "a chunk is a number of tokens"),
        ("rope[window=4,chunk=4]", "a window or chunks, not both"),
        ("rope*0,none", "for 1 layer or more, not for 0"),
        ("rope*3,", "does not name an encoding"),
        ("rope**3", "does not name an encoding"),
        ("rope[512]*3,none", "is not KEY=VALUE"),
        ("rope[theta=", "does not name an encoding"),
        ("rope]window=4[", "does not name an encoding"),
        ("dape(rope*3,none)", "does not name an encoding"),
    ],
)
def test_what_is_no_schedule_is_refused_in_a_sentence(text: str, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        EncodingSpec.parse(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        [],
        [{"encoding": "rope", "window": 0}],
        [{"encoding": "rope", "times": 0}],
        [{"encoding": "rope", "window": 4, "chunk": 4}],
        [{"encoding": "rope*3,none"}],
        [{"name": "rope"}],
        {"name": "dape", "base": ["rope", "none"]},
        {"theta": 3},
    ],
    ids=str,
)
def test_a_schedule_that_cannot_be_is_an_error_of_its_spec(value: Any) -> None:
    with pytest.raises(ValidationError):
        EncodingSpec.model_validate(value)


def model(**fields: Any) -> ModelSpec:
    return parse_spec(fields, ModelSpec, "model")


def test_a_schedule_is_repeated_to_the_depth_and_must_fit_it() -> None:
    assert [str(each) for each in model(encoding="rope*3,none", layers=8).encoding.by_layer(8)] == [
        *["rope*3"] * 3, "none", *["rope*3"] * 3, "none",
    ]  # fmt: skip
    with pytest.raises(SpecError, match=r"rope\*3,none has 4 layers and the model 6, which is no multiple"):
        model(encoding="rope*3,none", layers=6)


def test_layers_may_be_the_schedule() -> None:
    assert model(layers="rope[window=8]*3,none") == model(encoding="rope[window=8]*3,none", layers=4)
    assert model(layers=["rope*3", "none"]).layers == 4
    assert model(layers="6", encoding="alibi").layers == 6
    with pytest.raises(SpecError, match="layers"):
        model(layers="rope*3,none", encoding="alibi")


@pytest.mark.parametrize("schedule", ["rope[window=4]", "rope,none[chunk=4]"])
def test_windows_of_bidirectional_models_are_refused(schedule: str) -> None:
    with pytest.raises(SpecError, match="needs a causal model"):
        model(encoding=schedule, causal=False)


def test_what_was_written_before_schedules_came_has_the_same_text_and_hash() -> None:
    spec = model(encoding="dape(kerple_log)")
    assert canonical(spec.model_dump(mode="json")["encoding"]) == '{"base":{"name":"kerple_log"},"name":"dape"}'
    assert fingerprint(spec.model_dump(mode="json")).startswith("21c59bdceda1c892")


def test_commas_inside_brackets_separate_nothing() -> None:
    assert split_outside("a(b,c)[d=1,e=[2,3]],f") == ["a(b,c)[d=1,e=[2,3]]", "f"]
    assert split_outside("") == [""]
