"""The relative positions of Transformer-XL."""

import math

import pytest
import torch
from torch import Tensor

from lpe_eval.model.encoding import Encoding, Scores
from tests.support.at_positions import TWO_SIDED, initialised, same, scores_at
from tests.support.golden_cases import Case, check, each, tensor
from tests.support.official_parameters import transformer_xl, unmasked_scores


@each("transformer_xl")
def test_transformer_xl_has_the_logits_of_released_code(case: Case) -> None:
    member = transformer_xl(case, distance="future" if case.id == "deepmind_relative" else "past")
    logits = member.adjust(unmasked_scores(tensor(case.inputs["q"]), tensor(case.inputs["k"])))
    already_scaled = case.provenance == "dape_xl"
    check(case, "logits", logits if already_scaled else logits * member.geometry.head_width**0.5)


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
    member = initialised("transformer_xl", TWO_SIDED, angle_dtype="float64")
    whole = scores_at(member, at)
    same(member.adjust(whole), naive_transformer_xl(member, whole))
