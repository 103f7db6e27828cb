"""Encodings that act through positions, against the numbers of the authors' own code."""

from typing import Any

import pytest
import torch
from golden_cases import Case, case, cases, check, tensor
from torch import Tensor

from lpe_eval.model.build import build_encodings
from lpe_eval.model.encoding import Encoding, Geometry, Scores
from lpe_eval.model.encodings.randomized import drawn_offsets, one_row, two_sides
from lpe_eval.model.encodings.rope import Rope
from lpe_eval.model.encodings.sinusoidal import Sinusoidal
from lpe_eval.model.encodings.transformer_xl import TransformerXL
from lpe_eval.model.encodings.xpos import XPos
from lpe_eval.model.rotary import Frequencies
from lpe_eval.spec.encoding_spec import EncodingSpec

CPU = torch.device("cpu")


def build(name: str, geometry: Geometry, **options: Any) -> Encoding:
    return build_encodings(EncodingSpec.model_validate({"name": name, **options}), geometry, layers=1)[0]


def geometry(heads: int, head_width: int, causal: bool = True, train_length: int = 16) -> Geometry:
    return Geometry(heads, head_width, heads * head_width, train_length, causal)


def by_id(file: str, ids: str = "") -> Any:
    found = [each for each in cases(file) if ids in each.id]
    return pytest.mark.parametrize("golden", found, ids=[each.id for each in found])


def scores(q: Tensor, k: Tensor) -> Scores:
    at = torch.arange(k.shape[2])
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return Scores(logits, None, q, k, torch.ones(len(at), len(at), dtype=torch.bool), at, at)


@by_id("rope")
def test_rope_turns_as_released_code_does(golden: Case) -> None:
    q = tensor(golden.inputs["q"])
    k = tensor(golden.inputs.get("k", golden.inputs["q"]))
    rope = build(
        "rope",
        geometry(q.shape[1], q.shape[3]),
        theta=golden.params["base"],
        fraction=golden.params["rotary_dims"] / q.shape[3],
        layout="interleaved" if "interleaved" in golden.id else "half_split",
    )
    assert isinstance(rope, Rope)
    at = torch.tensor(golden.inputs.get("positions", list(range(q.shape[2]))))
    q_rot, k_rot = rope.rotate(q, k, at)
    check(golden, "q_rot", q_rot)
    if "k_rot" in golden.outputs:
        check(golden, "k_rot", k_rot)
    if "inv_freq" in golden.outputs:
        check(golden, "inv_freq", rope.frequencies(len(at)).inverse)


@by_id("rope_scaling")
def test_scaled_frequencies_are_those_of_released_code(golden: Case) -> None:
    found = scaled_frequencies(golden)
    check(golden, "inv_freq", found.inverse)
    check(golden, "attention_scaling", torch.tensor(found.attention_factor, dtype=torch.float64))


def scaled_frequencies(golden: Case) -> Frequencies:
    given = golden.params
    named = golden.fields["variant"].removeprefix("hf:") if golden.provenance == "hf_rope" else golden.provenance
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
    shape = geometry(1, 2 * len(golden.outputs["inv_freq"]), train_length=trained)
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


@by_id("xpos")
def test_xpos_turns_and_fades_as_released_code_does(golden: Case) -> None:
    q, k = tensor(golden.inputs["q"]), tensor(golden.inputs["k"])
    if q.ndim == 3:
        q, k = q[:, None], k[:, None]
    length, rows = k.shape[2], q.shape[2]
    xpos = build("xpos", geometry(q.shape[1], 8), theta=golden.params["base"], scale_base=golden.params["scale_base"])
    assert isinstance(xpos, XPos)
    whole = torch.cat([torch.zeros_like(k[:, :, rows:]), q], dim=2)
    q_rot, k_rot = xpos.rotate(whole, k, torch.arange(length))
    q_rot = q_rot[:, :, length - rows :]
    shape = tensor(golden.outputs["k_rot"]).shape
    dot = q_rot @ k_rot.transpose(-1, -2)
    check(golden, "q_rot", q_rot.reshape(tensor(golden.outputs["q_rot"]).shape))
    check(golden, "k_rot", k_rot.reshape(shape))
    check(golden, "dot", dot.reshape(tensor(golden.outputs["dot"]).shape))


SINUSOIDAL = {
    "neox_T5_D8": {},
    "fairseq_T5_D8_pad1": {"form": "fairseq"},
    "fairseq_T5_D8_pad0": {"form": "fairseq", "offset": 1},
    "fairseq_padding_T5_D8": {"form": "fairseq"},
    "fairseq_odd_D9": {"form": "fairseq"},
    "deepmind_T5_D8": {},
    "chomsky_T5_D8": {"order": "descending"},
    "deepmind_two_sided_T5_D8": {},
}


@by_id("sinusoidal")
def test_sinusoids_are_those_of_released_code(golden: Case) -> None:
    sinusoidal = build("sinusoidal", geometry(1, golden.params["D"]), **SINUSOIDAL[golden.id])
    assert isinstance(sinusoidal, Sinusoidal)
    if golden.id == "fairseq_padding_T5_D8":
        # Padding gets nothing and is not counted; the encoding never sees padding, so only the tokens are given.
        tokens = torch.tensor([0, 2, 3, 4])
        embedding = torch.zeros(5, 8)
        embedding[tokens] = sinusoidal.table(torch.arange(4))
        check(golden, "embedding", embedding)
    elif golden.id == "deepmind_two_sided_T5_D8":
        check(golden, "table", sinusoidal.table(torch.arange(-5, 5)))
    else:
        at = sinusoidal.positions(5, CPU, torch.Generator())
        check(golden, next(iter(golden.outputs)), sinusoidal.embed(torch.zeros(1, 5, golden.params["D"]), at)[0])


def transformer_xl(golden: Case, **options: Any) -> TransformerXL:
    names = {
        "r_w_bias": "content_bias",
        "r_r_bias": "relative_bias",
        "r_net.weight": "linear_in_out",
    }
    assert golden.heads is not None and golden.head_dim is not None
    causal = golden.direction != "bidirectional"
    member = build("transformer_xl", geometry(golden.heads, golden.head_dim, causal), **options)
    assert isinstance(member, TransformerXL)
    if "r_w_bias" in golden.params:
        state = {name: tensor(golden.params[name]) for name in names}
    else:
        state = {name: tensor(golden.params[theirs]) for name, theirs in names.items()}
        state["r_net.weight"] = state["r_net.weight"].T
    member.load_state_dict(state)
    return member


@by_id("transformer_xl")
def test_transformer_xl_has_the_logits_of_released_code(golden: Case) -> None:
    member = transformer_xl(golden, distance="future" if golden.id == "deepmind_relative" else "past")
    logits = member.adjust(scores(tensor(golden.inputs["q"]), tensor(golden.inputs["k"])))
    already_scaled = golden.provenance == "dape_xl"
    check(golden, "logits", logits if already_scaled else logits * member.geometry.head_width**0.5)


@pytest.mark.parametrize("name", ["none", "rope", "transformer_xl"])
def test_the_whole_attention_step_is_that_of_released_code(name: str) -> None:
    golden = case("attention", name)
    q, k, v = (tensor(golden.inputs[each]) for each in "qkv")
    member = transformer_xl(golden) if name == "transformer_xl" else build(name, geometry(4, 8))
    at = torch.arange(q.shape[2])
    q, k = member.rotate(q, k, at)
    logits = member.adjust(scores(q, k))
    visible = torch.ones(len(at), len(at), dtype=torch.bool).tril()
    probs = logits.masked_fill(~visible, float("-inf")).softmax(dim=-1)
    seen = golden._replace(compare="visible")
    check(seen, "logits_before_mask", logits)
    check(seen, "probs", probs)
    check(golden._replace(compare="all"), "context", probs @ v)


@pytest.mark.parametrize("case_id", ["noisy_alibi_symmetric", "noisy_alibi_both_sides"])
def test_alibi_at_drawn_distances_is_deepminds(case_id: str) -> None:
    golden = case("randomized", case_id)
    both = "drawn_left" in golden.inputs
    wrapper = build(
        "randomized",
        geometry(6, 4, causal=False),
        base={"name": "alibi", "two_sided": "che"},
        both_sides=both,
        max_length=golden.params["noise_max_length"],
    )

    def distances(name: str) -> Tensor:
        return torch.tensor([0, *sorted(golden.inputs[name])])

    at = two_sides(distances("drawn_left"), distances("drawn_right")) if both else distances("drawn_distances")
    bias = wrapper.bias(at, at)
    assert bias is not None
    check(golden, "bias", bias)


def test_sinusoids_at_drawn_positions_are_deepminds() -> None:
    golden = case("randomized", "noisy_sin_cos")
    wrapper = build("randomized", geometry(1, golden.params["D"]), base="sinusoidal")
    at = torch.tensor(golden.inputs["drawn_positions"]).sort().values
    check(golden, "table", wrapper.embed(torch.zeros(1, 5, golden.params["D"]), at)[0])


def test_rope_at_drawn_positions_is_deepminds() -> None:
    golden = case("randomized", "noisy_rotary")
    wrapper = build("randomized", geometry(6, 6), base={"name": "rope", "layout": "interleaved"})
    q = tensor(golden.inputs["q"])
    at = torch.tensor(golden.inputs["drawn_positions"]).sort().values
    check(golden, "q_rot", wrapper.rotate(q, q, at)[0])


def test_the_index_defect_of_deepminds_noisy_transformer_xl_is_explained() -> None:
    """The shipped code reads row N-1 for the token itself and the future, and row N-x for a past key at x."""
    golden = case("randomized", "noisy_relative_as_shipped")
    inner = transformer_xl(golden)
    whole = scores(tensor(golden.inputs["q"]), tensor(golden.inputs["k"]))
    at = torch.tensor([0, *sorted(golden.inputs["drawn_right"])])
    (offsets, column), longest = drawn_offsets(at, at), golden.params["noise_max_length"]
    meant = offsets[column]
    shipped = torch.where(meant > 0, longest - meant, longest - 1)
    logits = torch.cat([inner.adjust(one_row(whole, row, shipped[row])) for row in range(len(at))], dim=2)
    check(golden, "logits", logits * 4**0.5)
