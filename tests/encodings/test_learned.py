"""Learned positions."""

import pytest
import torch

from lpe_eval.errors import LengthError
from tests.support.at_positions import CPU, initialised, seeded


def test_learned_positions_end_with_their_table() -> None:
    learned = initialised("learned", offset=2)
    x = torch.zeros(1, 16, 24)
    weight = learned.get_parameter("weight")
    assert weight.shape == (18, 24)
    assert torch.equal(learned.embed(x, learned.positions(16, CPU, seeded()))[0], weight[2:])
    with pytest.raises(LengthError, match="16 tokens, not 17"):
        learned.positions(17, CPU, seeded())
    assert initialised("learned", length=100).longest_length == 100


def test_learned_values_come_from_the_generator() -> None:
    first, again = initialised("learned", length=4000), initialised("learned", length=4000)
    assert torch.equal(first.get_parameter("weight"), again.get_parameter("weight"))
    assert float(first.get_parameter("weight").detach().std()) == pytest.approx(0.02, rel=0.01)
