"""Sandwich."""

import pytest
import torch

from tests.support.golden_cases import Case, each
from tests.support.golden_outputs import check_all, geometry_of
from tests.support.official_parameters import build, geometry


@each("sandwich")
def test_sandwich_has_the_numbers_of_nemo(case: Case) -> None:
    check_all(case, build("sandwich", geometry_of(case), dimension=case.params["D"]))


@pytest.mark.parametrize("first_index", [0, 1])
def test_sandwich_sums_its_cosines_from_the_first_index(first_index: int) -> None:
    shape = geometry(3)
    bias = build("sandwich", shape, dimension=4, first_index=first_index, centred=False).bias_by_offset(
        torch.tensor([5])
    )
    n = torch.tensor([first_index, first_index + 1], dtype=torch.float64)
    total = torch.cos(5 / 10000 ** (2 * n / 4)).sum()
    assert bias is not None
    assert torch.allclose(bias[:, 0].double(), total / (8 * torch.tensor([1.0, 2.0, 3.0]).double() / 3))
