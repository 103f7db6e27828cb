"""Encodings that act through positions: what they must share with each other, and where they must stop."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lpe_eval.errors import LengthError, SpecError
from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, Geometry, Scores
from lpe_eval.model.encodings.rope import Rope
from lpe_eval.model.encodings.sinusoidal import Sinusoidal
from lpe_eval.spec.encoding_spec import EncodingSpec

CPU = torch.device("cpu")
CAUSAL = Geometry(heads=3, head_width=8, width=24, train_length=16)
TWO_SIDED = Geometry(heads=3, head_width=8, width=24, train_length=16, causal=False)
T = 11


def build(name: str, geometry: Geometry = CAUSAL, **options: Any) -> Encoding:
    found = build_encodings(EncodingSpec.model_validate({"name": name, **options}), geometry, layers=1)
    initialise(found, seeded())
    return found[0]


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def queries_and_keys(length: int = T, width: int = 8) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, 2, 3, length, width, generator=seeded(1), dtype=torch.float64)
    return drawn[0], drawn[1]


def dots(encoding: Encoding, at: Tensor) -> Tensor:
    q, k = encoding.rotate(*queries_and_keys(len(at)), at)
    return q @ k.transpose(-1, -2)


def scores(encoding: Encoding, at: Tensor, rows: slice = slice(None), keys: int | None = None) -> Scores:
    q, k = (each.float() for each in queries_and_keys(len(at)))
    q, k, k_at = q[:, :, rows], k[:, :, :keys], at[:keys]
    visible = torch.ones(len(at), len(at), dtype=torch.bool)
    visible = visible.tril() if encoding.geometry.causal else visible
    logits = q @ k.transpose(-1, -2) / math.sqrt(8)
    return Scores(logits, encoding.bias(at[rows], k_at), q, k, visible[rows, :keys], at[rows], k_at)


def same(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


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
    same(dots(build("rope", scaling=scaling), at), dots(build("rope"), at), 1e-6)


def test_dynamic_ntk_by_one_is_plain_rope_up_to_the_train_length_and_not_beyond() -> None:
    plain, dynamic = build("rope"), build("rope", scaling={"type": "dynamic_ntk", "factor": 1})
    same(dots(dynamic, torch.arange(16)), dots(plain, torch.arange(16)), 1e-6)
    assert not torch.allclose(dots(dynamic, torch.arange(17)), dots(plain, torch.arange(17)), atol=1e-2)


def test_dynamic_yarn_is_rope_up_to_the_train_length_and_yarn_with_the_quotient_beyond() -> None:
    dynamic = build("rope", scaling={"type": "dynamic_yarn"})
    same(dots(dynamic, torch.arange(16)), dots(build("rope"), torch.arange(16)), 1e-6)
    yarn = build("rope", scaling={"type": "yarn", "factor": 2.5})
    same(dots(dynamic, torch.arange(40)), dots(yarn, torch.arange(40)), 1e-6)


def test_only_scalings_that_look_at_the_length_change_a_prefix() -> None:
    assert build("rope").prefix_stable
    assert build("rope", scaling={"type": "yarn", "factor": 4}).prefix_stable
    assert not build("rope", scaling={"type": "dynamic_ntk", "factor": 4}).prefix_stable
    assert not build("rope", scaling={"type": "dynamic_yarn"}).prefix_stable


def test_the_attention_factor_multiplies_every_logit_by_its_square() -> None:
    def yarn(factor: float) -> Encoding:
        return build("rope", scaling={"type": "yarn", "factor": 4, "attention_factor": factor})

    at = torch.arange(T)
    same(dots(yarn(1.5), at), 2.25 * dots(yarn(1.0), at), 1e-5)


def test_the_two_layouts_are_one_rotation_of_permuted_channels() -> None:
    at, (q, k) = torch.arange(T), queries_and_keys()
    # Channel 2i of the interleaved layout is i of the half-split one, and 2i + 1 is i + 4.
    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])
    halves = build("rope").rotate(q, k, at)
    pairs = build("rope", layout="interleaved").rotate(q[..., order], k[..., order], at)
    for half, pair in zip(halves, pairs, strict=True):
        same(pair, half[..., order], 0)


@pytest.mark.parametrize(
    "options", [{}, {"layout": "interleaved"}, {"fraction": 0.5}, {"scaling": NEUTRAL[2]}], ids=str
)
def test_rope_logits_depend_on_the_offset_alone(options: dict[str, Any]) -> None:
    rope = build("rope", angle_dtype="float64", **options)
    same(dots(rope, torch.arange(T)), dots(rope, torch.arange(T) + 1000), 1e-10)


def test_partial_rope_leaves_the_other_channels_alone() -> None:
    q, k = queries_and_keys()
    turned, _ = build("rope", fraction=0.25).rotate(q, k, torch.arange(T))
    assert torch.equal(turned[..., 2:], q[..., 2:])
    assert not torch.allclose(turned[:, :, 1:, :2], q[:, :, 1:, :2])


def test_bfloat16_angles_make_positions_256_and_257_one() -> None:
    q = torch.ones(1, 1, 2, 8)
    at = torch.tensor([256, 257])
    rounded, _ = build("rope", angle_dtype="bfloat16").rotate(q, q, at)
    exact, _ = build("rope").rotate(q, q, at)
    assert torch.equal(rounded[:, :, 0], rounded[:, :, 1])
    assert not torch.allclose(exact[:, :, 0], exact[:, :, 1])


def test_casting_the_module_to_half_precision_does_not_touch_the_angles() -> None:
    at = torch.arange(T)
    same(dots(build("rope").to(torch.bfloat16), at), dots(build("rope"), at), 0)


@pytest.mark.parametrize("geometry", [CAUSAL, TWO_SIDED], ids=["causal", "two-sided"])
def test_xpos_with_a_huge_scale_base_is_rope(geometry: Geometry) -> None:
    xpos, rope = build("xpos", geometry, scale_base=1e12), build("rope", geometry, layout="interleaved")
    same(dots(xpos, torch.arange(T)), dots(rope, torch.arange(T)))


def test_xpos_logits_do_not_depend_on_where_the_scale_is_centred() -> None:
    at = torch.arange(T)
    same(dots(build("xpos"), at), dots(build("xpos", centre="zero"), at))


def test_xpos_is_finite_to_its_longest_length_and_says_so_beyond() -> None:
    xpos = build("xpos", scale_base=2)
    longest = xpos.longest_length
    assert longest is not None
    at = xpos.positions(longest, CPU, seeded())
    ones = torch.ones(1, 1, longest, 8)
    q, k = xpos.rotate(ones, ones, at)
    assert bool((q @ k.transpose(-1, -2)).isfinite().all())
    with pytest.raises(LengthError, match=str(longest)):
        xpos.positions(longest + 1, CPU, seeded())


def test_the_sinusoidal_layouts_hold_the_same_columns() -> None:
    concatenated, interleaved = build("sinusoidal"), build("sinusoidal", form="interleaved")
    assert isinstance(concatenated, Sinusoidal) and isinstance(interleaved, Sinusoidal)
    at = torch.arange(T)
    assert torch.equal(interleaved.table(at)[:, ::2], concatenated.table(at)[:, :12])
    assert torch.equal(interleaved.table(at)[:, 1::2], concatenated.table(at)[:, 12:])


def test_scaled_tokens_are_multiplied_by_the_root_of_the_width_and_positions_are_not() -> None:
    x, at = torch.randn(2, T, 24, generator=seeded()), torch.arange(T)
    plain, scaled = build("sinusoidal"), build("sinusoidal", scale_tokens=True)
    same(scaled.embed(x, at) - plain.embed(x, at), (math.sqrt(24) - 1) * x)


def test_counting_down_is_counting_up_read_backwards() -> None:
    down, up = build("sinusoidal", order="descending"), build("sinusoidal", offset=1)
    zeros, at = torch.zeros(1, T, 24), torch.arange(T)
    assert torch.equal(down.embed(zeros, at), up.embed(zeros, at).flip(1))
    assert up.prefix_stable and not down.prefix_stable


def test_learned_positions_end_with_their_table() -> None:
    learned = build("learned", offset=2)
    x = torch.zeros(1, 16, 24)
    weight = learned.get_parameter("weight")
    assert weight.shape == (18, 24)
    assert torch.equal(learned.embed(x, learned.positions(16, CPU, seeded()))[0], weight[2:])
    with pytest.raises(LengthError, match="16 tokens, not 17"):
        learned.positions(17, CPU, seeded())
    assert build("learned", length=100).longest_length == 100


def test_learned_values_come_from_the_generator() -> None:
    first, again = build("learned", length=4000), build("learned", length=4000)
    assert torch.equal(first.get_parameter("weight"), again.get_parameter("weight"))
    assert float(first.get_parameter("weight").detach().std()) == pytest.approx(0.02, rel=0.01)


def naive_transformer_xl(member: Encoding, whole: Scores) -> Tensor:
    """The formula of the paper, one pair of tokens at a time."""
    u, v, w = (member.get_parameter(name) for name in ("r_w_bias", "r_r_bias", "r_net.weight"))
    result = torch.empty_like(whole.logits)
    for row, i in enumerate(whole.q_at.tolist()):
        for column, j in enumerate(whole.k_at.tolist()):
            angle = (i - j) * 10000.0 ** (-torch.arange(12, dtype=torch.float64) / 12)
            key_of_offset = (w @ torch.cat([angle.sin(), angle.cos()]).float()).view(3, 8)
            q, k = whole.queries[:, :, row], whole.keys[:, :, column]
            result[:, :, row, column] = (((q + u) * k).sum(-1) + ((q + v) * key_of_offset).sum(-1)) / math.sqrt(8)
    return result


@pytest.mark.parametrize("at", [torch.arange(6), torch.tensor([0, 3, 4, 90, 500, 1700])], ids=["plain", "sampled"])
def test_transformer_xl_is_its_formula(at: Tensor) -> None:
    member = build("transformer_xl", TWO_SIDED, angle_dtype="float64")
    whole = scores(member, at)
    same(member.adjust(whole), naive_transformer_xl(member, whole))


DRAWN = [
    ("transformer_xl", {}),
    ("randomized", {"base": "alibi"}),
    ("randomized", {"base": "alibi", "draw": "positions"}),
    ("randomized", {"base": "alibi", "both_sides": True}),
    ("randomized", {"base": "kerple_log"}),
    ("randomized", {"base": "transformer_xl"}),
    ("randomized", {"base": "transformer_xl", "both_sides": True}),
    ("randomized", {"base": {"name": "dape", "base": "alibi"}}),
]


@pytest.mark.parametrize("geometry", [CAUSAL, TWO_SIDED], ids=["causal", "two-sided"])
@pytest.mark.parametrize(("name", "options"), DRAWN, ids=str)
def test_a_block_of_rows_has_the_logits_of_the_full_matrix(
    name: str, options: dict[str, Any], geometry: Geometry
) -> None:
    encoding = build(name, geometry, **options)
    at = encoding.positions(T, CPU, seeded())
    rows, keys = slice(4, 7), 7 if geometry.causal else T
    whole, block = scores(encoding, at), scores(encoding, at, rows, keys)
    visible = block.visible
    same(encoding.adjust(block)[..., visible], encoding.adjust(whole)[:, :, rows, :keys][..., visible])


def test_drawn_positions_are_distinct_ascending_and_in_range() -> None:
    encoding = build("randomized", base="rope", max_length=40)
    draws = seeded()
    first, second = encoding.positions(30, CPU, draws), encoding.positions(30, CPU, draws)
    for at in (first, second):
        assert bool((at[1:] > at[:-1]).all()) and int(at[0]) >= 0 and int(at[-1]) < 40
    assert not torch.equal(first, second)
    assert torch.equal(first, encoding.positions(30, CPU, seeded()))


def test_every_position_is_drawn_equally_often() -> None:
    encoding, draws = build("randomized", base="rope", max_length=10), seeded()
    counts = sum(torch.bincount(encoding.positions(4, CPU, draws), minlength=10) for _ in range(2000))
    assert isinstance(counts, Tensor)
    # Binomial(2000, 0.4): five standard deviations are 110.
    assert int((counts - 800).abs().max()) < 110


def test_drawn_distances_keep_zero_for_the_token_itself() -> None:
    encoding = build("randomized", base="alibi", max_length=12)
    assert encoding.positions(12, CPU, seeded()).tolist() == list(range(12))
    assert int(encoding.positions(3, CPU, seeded())[0]) == 0
    assert encoding.positions(1, CPU, seeded()).tolist() == [0]


@pytest.mark.parametrize("base", ["rope", "alibi", "sinusoidal", "none", "fire", "transformer_xl"])
def test_a_longer_input_than_the_range_is_refused_while_drawing(base: str) -> None:
    encoding = build("randomized", base=base, max_length=20)
    with pytest.raises(LengthError, match="raise its option max_length"):
        encoding.positions(21, CPU, seeded())
    plain = build("randomized", base=base, max_length=20, at_evaluation="plain").eval()
    assert plain.positions(21, CPU, seeded()).tolist() == list(range(21))


def test_randomized_rope_without_a_draw_is_rope() -> None:
    encoding = build("randomized", base="rope", at_evaluation="plain").eval()
    at = encoding.positions(T, CPU, seeded())
    assert torch.equal(dots(encoding, at), dots(build("rope"), torch.arange(T)))
    assert encoding.prefix_stable and not encoding.train().prefix_stable


@pytest.mark.parametrize("both_sides", [False, True])
@pytest.mark.parametrize("base", ["alibi", "transformer_xl"])
def test_randomized_distances_without_a_draw_are_the_plain_encoding(base: str, both_sides: bool) -> None:
    wrapped = build("randomized", TWO_SIDED, base=base, at_evaluation="plain", both_sides=both_sides).eval()
    inner = build(base, TWO_SIDED)
    at = wrapped.positions(T, CPU, seeded())
    same(wrapped.adjust(scores(wrapped, at)), inner.adjust(scores(inner, torch.arange(T))), 1e-6)


def test_evaluation_draws_as_training_does_unless_told_otherwise() -> None:
    encoding = build("randomized", base="rope").eval()
    assert encoding.positions(T, CPU, seeded()).tolist() != list(range(T))
    assert not encoding.prefix_stable


def test_a_randomized_rotation_still_puts_nothing_on_the_logits() -> None:
    uses = build("randomized", base="rope").capabilities
    assert uses.rotates and not (uses.offset_bias or uses.general_bias or uses.adjusts)
    assert build("randomized", base="alibi").capabilities.general_bias


WRONG = [
    ("rope", {"fraction": 0.1}, "even number"),
    ("rope", {"scaling": {"type": "longrope", "factor": 2, "short_factor": [1], "long_factor": [1]}}, "need 4"),
    ("rope", {"scaling": {"type": "longrope", "short_factor": [1], "long_factor": [1]}}, "attention_factor"),
    ("rope", {"scaling": {"type": "linear", "factor": 2, "beta_fast": 3}}, "beta_fast"),
    ("rope", {"scaling": {"type": "ntk", "alpha": 2}, "fraction": 0.25}, "NTK"),
    ("rope", {"scaling": {"type": "llama3", "factor": 2, "high_freq_factor": 1}}, "high_freq_factor"),
    ("randomized", {"base": "fire", "draw": "distances"}, "draw: positions"),
    ("randomized", {"base": "rope", "both_sides": True}, "both_sides"),
    ("randomized", {"base": "learned"}, "make it longer"),
]


@pytest.mark.parametrize(("name", "options", "message"), WRONG, ids=str)
def test_options_that_do_not_fit_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(name, **options)


def test_an_odd_width_is_refused_where_channels_are_paired() -> None:
    odd = Geometry(heads=3, head_width=5, width=15, train_length=16)
    for name in ("rope", "xpos", "sinusoidal", "transformer_xl"):
        with pytest.raises(SpecError):
            build(name, odd)


def test_frequencies_of_a_length_are_those_of_the_rotation() -> None:
    rope = build("rope", scaling={"type": "longrope", "factor": 2, "short_factor": [1] * 4, "long_factor": [2] * 4})
    assert isinstance(rope, Rope)
    same(rope.frequencies(17).inverse * 2, rope.frequencies(16).inverse, 0)
    assert rope.frequencies(16).attention_factor == pytest.approx(math.sqrt(1.25))
