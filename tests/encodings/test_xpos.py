"""xPos."""

import pytest
import torch

from lpe_eval.errors import LengthError
from lpe_eval.model.encoding import Geometry
from lpe_eval.model.encodings.xpos import XPos
from tests.support.at_positions import CAUSAL, CPU, TWO_SIDED, T, dots, initialised, same, seeded
from tests.support.golden_cases import Case, check, each, tensor
from tests.support.official_parameters import build, geometry


@each("xpos")
def test_xpos_turns_and_fades_as_released_code_does(case: Case) -> None:
    q, k = tensor(case.inputs["q"]), tensor(case.inputs["k"])
    if q.ndim == 3:
        q, k = q[:, None], k[:, None]
    length, rows = k.shape[2], q.shape[2]
    xpos = build("xpos", geometry(q.shape[1], 8), theta=case.params["base"], scale_base=case.params["scale_base"])
    assert isinstance(xpos, XPos)
    whole = torch.cat([torch.zeros_like(k[:, :, rows:]), q], dim=2)
    q_rot, k_rot = xpos.rotate(whole, k, torch.arange(length))
    q_rot = q_rot[:, :, length - rows :]
    shape = tensor(case.outputs["k_rot"]).shape
    dot = q_rot @ k_rot.transpose(-1, -2)
    check(case, "q_rot", q_rot.reshape(tensor(case.outputs["q_rot"]).shape))
    check(case, "k_rot", k_rot.reshape(shape))
    check(case, "dot", dot.reshape(tensor(case.outputs["dot"]).shape))


@pytest.mark.parametrize("geometry", [CAUSAL, TWO_SIDED], ids=["causal", "two-sided"])
def test_xpos_with_a_huge_scale_base_is_rope(geometry: Geometry) -> None:
    xpos, rope = initialised("xpos", geometry, scale_base=1e12), initialised("rope", geometry, layout="interleaved")
    same(dots(xpos, torch.arange(T)), dots(rope, torch.arange(T)))


def test_xpos_logits_do_not_depend_on_where_the_scale_is_centred() -> None:
    at = torch.arange(T)
    same(dots(initialised("xpos"), at), dots(initialised("xpos", centre="zero"), at))


def test_xpos_is_finite_to_its_longest_length_and_says_so_beyond() -> None:
    xpos = initialised("xpos", scale_base=2)
    longest = xpos.longest_length
    assert longest is not None
    at = xpos.positions(longest, CPU, seeded())
    ones = torch.ones(1, 1, longest, 8)
    q, k = xpos.rotate(ones, ones, at)
    assert bool((q @ k.transpose(-1, -2)).isfinite().all())
    with pytest.raises(LengthError, match=str(longest)):
        xpos.positions(longest + 1, CPU, seeded())
