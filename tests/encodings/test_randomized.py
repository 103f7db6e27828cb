"""Randomized positions around any encoding."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lpe_eval.errors import LengthError, SpecError
from lpe_eval.model.build import build_encodings
from lpe_eval.model.drawn_distances import drawn_offsets, one_row, two_sides
from lpe_eval.model.encoding import Geometry, Scores
from lpe_eval.spec.encoding_spec import EncodingSpec
from tests.support.at_positions import CAUSAL, CPU, TWO_SIDED, T, dots, initialised, same, scores_at, seeded
from tests.support.golden_cases import Case, check, each, tensor
from tests.support.official_parameters import build, geometry, transformer_xl, unmasked_scores


@each("randomized", lambda case: "alibi" in case.id)
def test_alibi_at_drawn_distances_is_deepminds(case: Case) -> None:
    both = "drawn_left" in case.inputs
    wrapper = build(
        "randomized",
        geometry(6, 4, causal=False),
        base={"name": "alibi", "two_sided": "che"},
        both_sides=both,
        max_length=case.params["noise_max_length"],
    )

    def distances(name: str) -> Tensor:
        return torch.tensor([0, *sorted(case.inputs[name])])

    at = two_sides(distances("drawn_left"), distances("drawn_right")) if both else distances("drawn_distances")
    bias = wrapper.bias(at, at)
    assert bias is not None
    check(case, "bias", bias)


@each("randomized", lambda case: case.id == "noisy_sin_cos")
def test_sinusoidal_at_drawn_positions_is_deepminds(case: Case) -> None:
    wrapper = build("randomized", geometry(1, case.params["D"]), base="sinusoidal")
    at = torch.tensor(case.inputs["drawn_positions"]).sort().values
    check(case, "table", wrapper.embed(torch.zeros(1, 5, case.params["D"]), at)[0])


@each("randomized", lambda case: case.id == "noisy_rotary")
def test_rope_at_drawn_positions_is_deepminds(case: Case) -> None:
    wrapper = build("randomized", geometry(6, 6), base={"name": "rope", "layout": "interleaved"})
    q = tensor(case.inputs["q"])
    at = torch.tensor(case.inputs["drawn_positions"]).sort().values
    check(case, "q_rot", wrapper.rotate(q, q, at)[0])


@each("randomized", lambda case: case.id == "noisy_relative_as_shipped")
def test_the_index_defect_of_deepminds_noisy_transformer_xl_is_explained(case: Case) -> None:
    """The shipped code reads row N-1 for the token itself and the future, and row N-x for a past key at x."""
    inner = transformer_xl(case)
    whole = unmasked_scores(tensor(case.inputs["q"]), tensor(case.inputs["k"]))
    at = torch.tensor([0, *sorted(case.inputs["drawn_right"])])
    (offsets, column), longest = drawn_offsets(at, at), case.params["noise_max_length"]
    meant = offsets[column]
    shipped = torch.where(meant > 0, longest - meant, longest - 1)
    logits = torch.cat([inner.adjust(one_row(whole, row, shipped[row])) for row in range(len(at))], dim=2)
    check(case, "logits", logits * 4**0.5)


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
    encoding = initialised(name, geometry, **options)
    at = encoding.positions(T, CPU, seeded())
    rows, keys = slice(4, 7), 7 if geometry.causal else T
    whole, block = scores_at(encoding, at), scores_at(encoding, at, rows, keys)
    visible = block.visible
    same(encoding.adjust(block)[..., visible], encoding.adjust(whole)[:, :, rows, :keys][..., visible])


def test_drawn_positions_are_distinct_ascending_and_in_range() -> None:
    encoding = initialised("randomized", base="rope", max_length=40)
    draws = seeded()
    first, second = encoding.positions(30, CPU, draws), encoding.positions(30, CPU, draws)
    for at in (first, second):
        assert bool((at[1:] > at[:-1]).all()) and int(at[0]) >= 0 and int(at[-1]) < 40
    assert not torch.equal(first, second)
    assert torch.equal(first, encoding.positions(30, CPU, seeded()))


def test_every_position_is_drawn_equally_often() -> None:
    encoding, draws = initialised("randomized", base="rope", max_length=10), seeded()
    counts = sum(torch.bincount(encoding.positions(4, CPU, draws), minlength=10) for _ in range(2000))
    assert isinstance(counts, Tensor)
    # Binomial(2000, 0.4): five standard deviations are 110.
    assert int((counts - 800).abs().max()) < 110


def test_drawn_distances_keep_zero_for_the_token_itself() -> None:
    encoding = initialised("randomized", base="alibi", max_length=12)
    assert encoding.positions(12, CPU, seeded()).tolist() == list(range(12))
    assert int(encoding.positions(3, CPU, seeded())[0]) == 0
    assert encoding.positions(1, CPU, seeded()).tolist() == [0]


@pytest.mark.parametrize("base", ["rope", "alibi", "sinusoidal", "none", "fire", "transformer_xl"])
def test_a_longer_input_than_the_range_is_refused_while_drawing(base: str) -> None:
    encoding = initialised("randomized", base=base, max_length=20)
    with pytest.raises(LengthError, match="raise its option max_length"):
        encoding.positions(21, CPU, seeded())
    plain = initialised("randomized", base=base, max_length=20, at_evaluation="plain").eval()
    assert plain.positions(21, CPU, seeded()).tolist() == list(range(21))


def test_randomized_rope_without_a_draw_is_rope() -> None:
    encoding = initialised("randomized", base="rope", at_evaluation="plain").eval()
    at = encoding.positions(T, CPU, seeded())
    assert torch.equal(dots(encoding, at), dots(initialised("rope"), torch.arange(T)))
    assert encoding.prefix_stable and not encoding.train().prefix_stable


@pytest.mark.parametrize("both_sides", [False, True])
@pytest.mark.parametrize("base", ["alibi", "transformer_xl"])
def test_randomized_distances_without_a_draw_are_the_plain_encoding(base: str, both_sides: bool) -> None:
    wrapped = initialised("randomized", TWO_SIDED, base=base, at_evaluation="plain", both_sides=both_sides).eval()
    inner = initialised(base, TWO_SIDED)
    at = wrapped.positions(T, CPU, seeded())
    same(wrapped.adjust(scores_at(wrapped, at)), inner.adjust(scores_at(inner, torch.arange(T))), 1e-6)


def test_evaluation_draws_as_training_does_unless_told_otherwise() -> None:
    encoding = initialised("randomized", base="rope").eval()
    assert encoding.positions(T, CPU, seeded()).tolist() != list(range(T))
    assert not encoding.prefix_stable


def test_a_randomized_rotation_still_puts_nothing_on_the_logits() -> None:
    uses = initialised("randomized", base="rope").capabilities
    assert uses.rotates and not (uses.offset_bias or uses.general_bias or uses.adjusts)
    assert initialised("randomized", base="alibi").capabilities.general_bias


def test_one_sided_distances_read_the_rows_of_the_table_that_the_released_code_reads():
    # The released function itself, given the same draw and weights, agrees to 2e-6 of 20.
    longest, drawn = 9, torch.tensor([0, 2, 5, 6, 8])
    base = {"name": "transformer_xl", "distance": "future"}
    spec = {"name": "randomized", "max_length": longest, "one_sided": True, "base": base}
    [encoding] = build_encodings(EncodingSpec.model_validate(spec), Geometry(2, 4, 8, 5, causal=False), 1)
    generator = torch.Generator().manual_seed(0)
    inner = encoding.inner
    for weight in inner.parameters():
        weight.data.normal_(generator=generator)
    queries, keys = (torch.randn(1, 2, 5, 4, generator=generator) for _ in range(2))
    plain = queries @ keys.transpose(-1, -2) / 2
    seen = torch.ones(5, 5).bool()
    found = encoding.adjust(Scores(plain, None, queries, keys, seen, drawn, drawn))
    angle = torch.arange(longest)[:, None] * 10000.0 ** (-torch.arange(0, 8, 2) / 8)
    table = torch.cat([angle.sin(), angle.cos()], dim=1) @ inner.r_net.weight.T
    for i in range(5):
        for j in range(5):
            row = table[longest - drawn[i - j] if j < i else longest - 1].view(2, 4)
            content = ((queries[0, :, i] + inner.r_w_bias) * keys[0, :, j]).sum(-1)
            position = ((queries[0, :, i] + inner.r_r_bias) * row).sum(-1)
            torch.testing.assert_close(found[0, :, i, j], (content + position) / 2, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("base", "causal"), [("alibi", False), ("rope", False), ("transformer_xl", True)])
def test_one_sided_distances_of_anything_else_are_refused(base: str, causal: bool):
    spec = EncodingSpec.model_validate({"name": "randomized", "one_sided": True, "base": {"name": base}})
    with pytest.raises(SpecError, match="one_sided only as the released code is"):
        build_encodings(spec, Geometry(2, 4, 8, 5, causal=causal), 1)


WRONG = [
    ("randomized", {"base": "fire", "draw": "distances"}, "draw: positions"),
    ("randomized", {"base": "rope", "both_sides": True}, "both_sides"),
    ("randomized", {"base": "learned"}, "make it longer"),
]


@pytest.mark.parametrize(("name", "options", "message"), WRONG, ids=str)
def test_options_that_do_not_fit_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        initialised(name, **options)
