"""DAPE V2."""

from typing import Any

import pytest
from torch import Tensor

from lpe_eval.model.encoding import Encoding, Scores
from tests.support.dape_bases import base_of, dape_base
from tests.support.golden_cases import Case, each
from tests.support.golden_outputs import check_all, geometry_of
from tests.support.official_parameters import build, fill, geometry
from tests.support.random_weights import LENGTH, close, filled, logits, scored
from tests.support.wrapped import BASES


@each("dape_v2", of=base_of)
def test_dape_v2_has_the_published_numbers(case: Case) -> None:
    dape = build(
        "dape_v2",
        geometry_of(case),
        hidden=case.fields["mlp_width"],
        kernel=case.fields["kernel"],
        base=dape_base(case),
    )
    check_all(case, fill(dape, case.params))


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("padding", ["symmetric", "left"])
def test_dape_v2_with_a_kernel_of_one_is_dape(base: Any, padding: str) -> None:
    shape = geometry(5)
    spec = {"name": base} if isinstance(base, str) else base
    first = filled("dape", shape, base=spec, hidden=7)
    second = filled("dape_v2", shape, base=spec, hidden=7, kernel=1, padding=padding)
    own = second.state_dict()
    second.load_state_dict({name: value.reshape(own[name].shape) for name, value in first.state_dict().items()})
    assert close(logits(second), logits(first))
    assert second.lookahead == first.lookahead == 0


def logits_of_prefix(encoding: Encoding, length: int) -> Tensor:
    whole = scored(encoding)
    bias = None if whole.bias is None else whole.bias[:, :length, :length]
    part = Scores(
        whole.logits[:, :, :length, :length],
        bias,
        whole.queries[:, :, :length],
        whole.keys[:, :, :length],
        whole.visible[:length, :length],
        whole.q_at[:length],
        whole.k_at[:length],
    )
    return encoding.adjust(part).detach().masked_fill(~part.visible, 0.0)


def test_dape_v2_depends_on_whether_text_follows_and_not_on_which_text() -> None:
    dape = filled("dape_v2", geometry(5), base={"name": "alibi"}, kernel=5)
    whole, alone = logits(dape, LENGTH)[:, :, :8, :8], logits(dape, 8)
    # Only the last kernel // 2 = 2 rows can tell.
    changed = [row for row in range(8) if not close(logits_of_prefix(dape, 8)[:, :, row], whole[:, :, row])]
    assert changed == [6, 7]
    assert alone.shape == whole.shape
    left = filled("dape_v2", geometry(5), base={"name": "alibi"}, kernel=5, padding="left")
    assert left.prefix_stable
    assert close(logits_of_prefix(left, 8), logits(left, LENGTH)[:, :, :8, :8])
