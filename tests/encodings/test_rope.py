"""RoPE and its scalings."""

import math
from typing import Any

import pytest
import torch

from lpe_eval.errors import SpecError
from lpe_eval.model.build import build_encodings
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.model.encodings.rope import Rope
from lpe_eval.model.rotary import Frequencies
from lpe_eval.spec.encoding_spec import EncodingSpec
from tests.support.at_positions import T, dots, initialised, queries_and_keys, same
from tests.support.che_golden import GOLDEN_ENCODINGS, positional
from tests.support.golden_cases import Case, check, each, tensor
from tests.support.official_parameters import build, geometry


@each("rope")
def test_rope_turns_as_released_code_does(case: Case) -> None:
    q = tensor(case.inputs["q"])
    k = tensor(case.inputs.get("k", case.inputs["q"]))
    rope = build(
        "rope",
        geometry(q.shape[1], q.shape[3]),
        theta=case.params["base"],
        fraction=case.params["rotary_dims"] / q.shape[3],
        layout="interleaved" if "interleaved" in case.id else "half_split",
    )
    assert isinstance(rope, Rope)
    at = torch.tensor(case.inputs.get("positions", list(range(q.shape[2]))))
    q_rot, k_rot = rope.rotate(q, k, at)
    check(case, "q_rot", q_rot)
    if "k_rot" in case.outputs:
        check(case, "k_rot", k_rot)
    if "inv_freq" in case.outputs:
        check(case, "inv_freq", rope.frequencies(len(at)).inverse)


@each("rope_scaling")
def test_scaled_frequencies_are_those_of_released_code(case: Case) -> None:
    found = scaled_frequencies(case)
    check(case, "inv_freq", found.inverse)
    check(case, "attention_scaling", torch.tensor(found.attention_factor, dtype=torch.float64))


def scaled_frequencies(case: Case) -> Frequencies:
    given = case.params
    named = case.fields["variant"].removeprefix("hf:") if case.provenance == "hf_rope" else case.provenance
    kind = {
        "dynamic": "dynamic_ntk",
        "yarn_yarn": "yarn",
        "yarn_ntk": "ntk",
        "yarn_part": "ntk_by_parts",
        "yarn_dynamic": "dynamic_ntk",
        "yarn_dynamic_yarn": "dynamic_yarn",
    }.get(named, named)
    scaling: dict[str, Any] = {"type": kind} | {
        name: given[name]
        for name in (
            *("factor", "alpha", "beta_fast", "beta_slow", "truncate", "attention_factor", "mscale", "mscale_all_dim"),
            *("long_factor", "short_factor", "low_freq_factor", "high_freq_factor"),
        )
        if name in given
    }
    if "ntk" in given:
        scaling["factor"] = given["ntk"]
    # The original length goes in once as an option and once through the geometry.
    trained = given.get("original_max_position_embeddings", given.get("max_position_embeddings", 2048))
    shape = geometry(1, 2 * len(case.outputs["inv_freq"]), train_length=trained)
    length = given.get("seq_len") or trained
    implied = build("rope", shape, theta=given["rope_theta"], scaling=scaling)
    stated = build(
        "rope",
        geometry(1, shape.head_width),
        theta=given["rope_theta"],
        scaling=scaling | {"original_length": trained},
    )
    assert isinstance(implied, Rope) and isinstance(stated, Rope)
    found = implied.frequencies(length)
    assert torch.equal(found.inverse, stated.frequencies(length).inverse)
    return found


def test_rotations_are_those_of_the_official_repository():
    found, shape = positional(), Geometry(2, 8, 16, 7, causal=False)
    [rope] = build_encodings(EncodingSpec.model_validate(GOLDEN_ENCODINGS["ROTARY"]), shape, 1)
    given = torch.tensor(found["rope_in"]).transpose(1, 2)
    turned, _ = rope.rotate(given, given, torch.arange(7))
    torch.testing.assert_close(turned.transpose(1, 2), torch.tensor(found["rope_out"]), rtol=1e-6, atol=1e-6)


NEUTRAL = [
    {"type": "linear", "factor": 1},
    {"type": "ntk", "alpha": 1},
    {"type": "yarn", "factor": 1},
    {"type": "ntk_by_parts", "factor": 1},
    {"type": "llama3", "factor": 1},
    {"type": "longrope", "factor": 1, "short_factor": (1, 1, 1, 1), "long_factor": (1, 1, 1, 1)},
]


@pytest.mark.parametrize("scaling", NEUTRAL, ids=[each["type"] for each in NEUTRAL])
def test_a_scaling_by_one_is_plain_rope_at_every_length(scaling: dict[str, Any]) -> None:
    at = torch.arange(40)
    same(dots(initialised("rope", scaling=scaling), at), dots(initialised("rope"), at), 1e-6)


def test_dynamic_ntk_by_one_is_plain_rope_up_to_the_train_length_and_not_beyond() -> None:
    plain, dynamic = initialised("rope"), initialised("rope", scaling={"type": "dynamic_ntk", "factor": 1})
    same(dots(dynamic, torch.arange(16)), dots(plain, torch.arange(16)), 1e-6)
    assert not torch.allclose(dots(dynamic, torch.arange(17)), dots(plain, torch.arange(17)), atol=1e-2)


def test_dynamic_yarn_is_rope_up_to_the_train_length_and_yarn_with_the_quotient_beyond() -> None:
    dynamic = initialised("rope", scaling={"type": "dynamic_yarn"})
    same(dots(dynamic, torch.arange(16)), dots(initialised("rope"), torch.arange(16)), 1e-6)
    yarn = initialised("rope", scaling={"type": "yarn", "factor": 2.5})
    same(dots(dynamic, torch.arange(40)), dots(yarn, torch.arange(40)), 1e-6)


def test_only_scalings_that_look_at_the_length_change_a_prefix() -> None:
    assert initialised("rope").prefix_stable
    assert initialised("rope", scaling={"type": "yarn", "factor": 4}).prefix_stable
    assert not initialised("rope", scaling={"type": "dynamic_ntk", "factor": 4}).prefix_stable
    assert not initialised("rope", scaling={"type": "dynamic_yarn"}).prefix_stable


def test_the_attention_factor_multiplies_every_logit_by_its_square() -> None:
    def yarn(factor: float) -> Encoding:
        return initialised("rope", scaling={"type": "yarn", "factor": 4, "attention_factor": factor})

    at = torch.arange(T)
    same(dots(yarn(1.5), at), 2.25 * dots(yarn(1.0), at), 1e-5)


def test_the_two_layouts_are_one_rotation_of_permuted_channels() -> None:
    at, (q, k) = torch.arange(T), queries_and_keys()
    # Channel 2i of the interleaved layout is i of the half-split one, and 2i + 1 is i + 4.
    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])
    halves = initialised("rope").rotate(q, k, at)
    pairs = initialised("rope", layout="interleaved").rotate(q[..., order], k[..., order], at)
    for half, pair in zip(halves, pairs, strict=True):
        same(pair, half[..., order], 0)


@pytest.mark.parametrize(
    "options", [{}, {"layout": "interleaved"}, {"fraction": 0.5}, {"scaling": NEUTRAL[2]}], ids=str
)
def test_rope_logits_depend_on_the_offset_alone(options: dict[str, Any]) -> None:
    rope = initialised("rope", angle_dtype="float64", **options)
    same(dots(rope, torch.arange(T)), dots(rope, torch.arange(T) + 1000), 1e-10)


def test_partial_rope_leaves_the_other_channels_alone() -> None:
    q, k = queries_and_keys()
    turned, _ = initialised("rope", fraction=0.25).rotate(q, k, torch.arange(T))
    assert torch.equal(turned[..., 2:], q[..., 2:])
    assert not torch.allclose(turned[:, :, 1:, :2], q[:, :, 1:, :2])


def test_bfloat16_angles_make_positions_256_and_257_one() -> None:
    q = torch.ones(1, 1, 2, 8)
    at = torch.tensor([256, 257])
    rounded, _ = initialised("rope", angle_dtype="bfloat16").rotate(q, q, at)
    exact, _ = initialised("rope").rotate(q, q, at)
    assert torch.equal(rounded[:, :, 0], rounded[:, :, 1])
    assert not torch.allclose(exact[:, :, 0], exact[:, :, 1])


def test_casting_the_module_to_half_precision_does_not_touch_the_angles() -> None:
    at = torch.arange(T)
    same(dots(initialised("rope").to(torch.bfloat16), at), dots(initialised("rope"), at), 0)


def test_frequencies_of_a_length_are_those_of_the_rotation() -> None:
    scaling = {"type": "longrope", "factor": 2, "short_factor": [1] * 4, "long_factor": [2] * 4}
    rope = initialised("rope", scaling=scaling)
    assert isinstance(rope, Rope)
    same(rope.frequencies(17).inverse * 2, rope.frequencies(16).inverse, 0)
    assert rope.frequencies(16).attention_factor == pytest.approx(math.sqrt(1.25))


WRONG = [
    ("rope", {"fraction": 0.1}, "even number"),
    ("rope", {"scaling": {"type": "longrope", "factor": 2, "short_factor": [1], "long_factor": [1]}}, "need 4"),
    ("rope", {"scaling": {"type": "longrope", "short_factor": [1], "long_factor": [1]}}, "attention_factor"),
    ("rope", {"scaling": {"type": "linear", "factor": 2, "beta_fast": 3}}, "beta_fast"),
    ("rope", {"scaling": {"type": "ntk", "alpha": 2}, "fraction": 0.25}, "NTK"),
    ("rope", {"scaling": {"type": "llama3", "factor": 2, "high_freq_factor": 1}}, "high_freq_factor"),
]


@pytest.mark.parametrize(("name", "options", "message"), WRONG, ids=str)
def test_options_that_do_not_fit_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        initialised(name, **options)
