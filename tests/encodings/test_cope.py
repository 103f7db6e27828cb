"""CoPE."""

import pytest
import torch

from lpe_eval.model.build import initialise
from lpe_eval.model.encoding import Scores
from tests.support.golden_cases import Case, each
from tests.support.golden_outputs import check_all, geometry_of
from tests.support.official_parameters import build, fill, geometry
from tests.support.random_weights import close, filled, logits, seeded


@each("cope")
def test_cope_has_the_published_numbers(case: Case) -> None:
    check_all(case, fill(build("cope", geometry_of(case), npos_max=case.fields["npos_max"]), case.params))


@pytest.mark.parametrize("causal", [True, False])
def test_cope_that_has_learned_nothing_is_no_encoding(causal: bool) -> None:
    shape = geometry(5, causal=causal)
    cope = build("cope", shape).double()
    initialise([cope], seeded())
    assert torch.equal(logits(cope), logits(build("none", shape)))


def test_cope_counts_keys_back_from_the_query_when_all_gates_are_open() -> None:
    cope = filled("cope", geometry(2, head_width=4), npos_max=4)
    at, q = torch.arange(6), torch.randn(1, 2, 6, 4, generator=seeded(), dtype=torch.float64)
    for causal in (True, False):
        cope.geometry = geometry(2, head_width=4, causal=causal)
        visible = torch.ones(6, 6, dtype=torch.bool)
        visible = visible.tril() if causal else visible
        open_gates = torch.full((1, 2, 6, 6), 40.0, dtype=torch.float64)
        got = cope.adjust(Scores(open_gates, None, q, q, visible, at, at)) - 40
        count = ((at[:, None] - at).abs() + 1).clamp(max=3)
        wanted = torch.einsum("bhqd,dqk->bhqk", q, cope.pos_emb[:, count])
        assert close(got[..., visible], wanted[..., visible])


def test_cope_stops_counting_only_where_a_count_cannot_change_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that is soon at the last position, one that lands on it at the end of a piece, one that never gets there,
    one with a row that is late, and one that begins to count far from the query."""
    monkeypatch.setattr("lpe_eval.model.fast.counted_gates._KEYS_AT_ONCE", 8)
    cope, length, at = filled("cope", geometry(5, head_width=4), npos_max=9), 70, torch.arange(70)
    gates = torch.full((1, 5, length, length), 40.0, dtype=torch.float64)
    gates[:, 1], gates[:, 2], gates[:, 3, 40], gates[:, 4, :, 20:] = 50.0, -8.0, -2.0, -800.0
    q = torch.randn(1, 5, length, 4, generator=seeded(), dtype=torch.float64)
    scores = Scores(gates, None, q, q, torch.ones(length, length, dtype=torch.bool).tril(), at, at)
    wanted = cope.adjust(scores).detach()
    with torch.no_grad():
        got = cope.adjust(scores)
    assert close(got[..., scores.visible], wanted[..., scores.visible])
