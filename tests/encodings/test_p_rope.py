"""p-RoPE."""

import pytest
import torch

from lpe_eval.model.encodings.p_rope import PRope
from lpe_eval.model.scores import Geometry
from tests.support.golden_cases import Case, check, each, has, tensor
from tests.support.official_parameters import build, geometry
from tests.support.random_weights import seeded


def p_rope(width: int, **options: float) -> PRope:
    found = build("p_rope", Geometry(2, width, 2 * width, 16), **options)
    assert isinstance(found, PRope)
    return found


@each("p_rope", has("inv_freq"))
def test_p_rope_has_the_published_numbers_from_none_turning_to_all(case: Case) -> None:
    given = case.params
    member = p_rope(case.head_dim or 0, p=given["p"], theta=given["base"], factor=given["factor"])
    check(case, "inv_freq", member.frequencies())
    if "q" in case.inputs:
        at = tensor(case.inputs["positions"], torch.int64)
        q, k = member.rotate(tensor(case.inputs["q"]), tensor(case.inputs["k"]), at)
        check(case, "q_rot", q)
        check(case, "k_rot", k)
        check(case, "dot", q @ k.mT)


@each("p_rope", has("global_inv_freq"))
def test_gemma_4_has_it_in_full_layers_and_rope_in_windowed_ones(case: Case) -> None:
    for layer in ("global", "sliding"):
        rope = case.fields[f"{layer}_rope"]
        part = rope.get("partial_rotary_factor", 1.0)
        member = p_rope(case.fields[f"{layer}_head_dim"], p=part, theta=rope["rope_theta"])
        check(case, f"{layer}_inv_freq", member.frequencies())


@pytest.mark.parametrize(("p", "other"), [(1.0, "rope"), (0.0, "none")])
def test_all_pairs_are_rope_and_none_are_none(p: float, other: str) -> None:
    q, k = (torch.randn(2, 2, 9, 8, generator=seeded(each)) for each in (1, 2))
    mine = p_rope(8, p=p).rotate(q, k, torch.arange(9))
    assert all(
        torch.equal(*pair) for pair in zip(mine, build(other, geometry(2)).rotate(q, k, torch.arange(9)), strict=True)
    )
