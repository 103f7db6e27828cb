"""Stick-breaking attention."""

import pytest
import torch

from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.block import probabilities
from lpe_eval.model.mask import Mask
from lpe_eval.model.scores import Scores
from tests.support.golden_cases import Case, check, each
from tests.support.golden_layers import heads_of, layered
from tests.support.official_parameters import build, geometry
from tests.support.random_weights import seeded


@each("stick_breaking")
def test_stick_breaking_has_the_published_numbers(case: Case) -> None:
    shape, everything = geometry(case.heads or 0, case.head_dim or 0), case._replace(compare="all")
    q, k, _ = heads_of(case)
    at, own_key = torch.arange(q.shape[2]), bool(case.fields["attend_current"])
    for rest, output in (("own_value", "context_with_remainder"), ("dropped", "context")):
        encoding = build("stick_breaking", shape, rest=rest, own_key=own_key)
        check(everything, output, layered(encoding, case).context)
        visible = torch.ones(len(at), len(at), dtype=torch.bool).tril()
        scores = Scores(q @ k.mT * q.shape[-1] ** -0.5, None, q, k, visible, at, at)
        weights = probabilities(encoding, scores, slice(0, len(at)))
        if rest == "dropped":
            check(case, "weights", weights)
            check(everything, "remainder", 1 - weights.sum(-1))
        else:
            torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


@pytest.mark.parametrize("own_key", [True, False])
def test_weights_are_what_nearer_keys_have_left(own_key: bool) -> None:
    encoding = build("stick_breaking", geometry(2), rest="dropped", own_key=own_key)
    q, k, v = (torch.randn(1, 2, 9, 8, generator=seeded(each), dtype=torch.float64) for each in range(3))
    taken, wanted = torch.sigmoid(q @ k.mT / 8**0.5), torch.zeros(1, 2, 9, 8, dtype=torch.float64)
    for i in range(9):
        left = torch.ones(1, 2, dtype=torch.float64)
        for j in range(i if own_key else i - 1, -1, -1):
            wanted[:, :, i] += (left * taken[:, :, i, j])[..., None] * v[:, :, j]
            left = left * (1 - taken[:, :, i, j])
    found = Dense.attend(q, k, v, encoding, torch.arange(9), Mask())
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_a_window_hides_what_would_take_from_the_stick() -> None:
    encoding = build("stick_breaking", geometry(2), rest="dropped")
    q, k, v = (torch.randn(1, 2, 9, 8, generator=seeded(each)) for each in range(3))
    near = Dense.attend(q, k, v, encoding, torch.arange(9), Mask(window=3))
    alone = Dense.attend(q[:, :, 6:], k[:, :, 6:], v[:, :, 6:], encoding, torch.arange(3), Mask())
    torch.testing.assert_close(near[:, :, 8], alone[:, :, 2])
