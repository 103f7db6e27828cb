"""What is left is reckoned from a clock that the test holds, and compared with seconds that it knows."""

import pytest
import torch
from torch import nn

from lpe_eval.measure.layers import Passes, told_by_layer
from lpe_eval.measure.pace import Pace
from tests.support.closed_form import Uniform

LENGTHS = (256, 512, 1024, 4096)
TOKENS = 10_000


def seconds(length: int, factor: float = 1.0) -> float:
    """Of a token: a line in the length, as matrices and attention make it."""
    return factor * (1e-3 + 2e-6 * length)


def told(pace: Pace, model: str, length: int, now: list[float], each: float, tokens: int = TOKENS) -> None:
    pace.begin(model, length, f"{model} at {length}")
    for _ in range(4):
        now[0] += each * tokens / 4
        pace.done(tokens // 4)


def test_what_is_left_is_right_once_two_lengths_are_known():
    now = [0.0]
    asked = {(model, length): TOKENS for model in ("a", "b") for length in LENGTHS}
    pace = Pace(asked, lambda done, description=None, left=None: None, lambda: now[0])
    assert pace.left() is None
    for length in LENGTHS[:2]:
        told(pace, "a", length, now, seconds(length))
    whole = sum(seconds(length) for length in LENGTHS) * TOKENS
    first = sum(seconds(length) for length in LENGTHS[:2]) * TOKENS
    assert pace.left() == pytest.approx(2 * whole - first)
    for length in LENGTHS[2:]:
        told(pace, "a", length, now, seconds(length))
    assert pace.left() == pytest.approx(whole)
    # The second model is three times as slow, which its first length shows for that length, and the line for others.
    told(pace, "b", LENGTHS[0], now, seconds(LENGTHS[0], 3))
    told(pace, "b", LENGTHS[1], now, seconds(LENGTHS[1], 3))
    assert pace.left() == pytest.approx(3 * sum(seconds(length) for length in LENGTHS[2:]) * TOKENS)
    pace.pass_over("b", 1024)
    assert pace.left() == pytest.approx(3 * seconds(4096) * TOKENS)


def test_a_bar_that_reckons_by_itself_is_told_only_what_it_knows():
    found = []
    pace = Pace({("a", 8): 10}, lambda done, description=None: found.append((done, description)))
    pace.begin("a", 8, "a at 8, cell 1 of 1")
    pace.done(4)
    pace.pass_over("a", 8)
    assert found == [(0, "a at 8, cell 1 of 1"), (4, None), (6, None)]


def test_layers_tell_of_their_share_and_of_each_token_once():
    found: list[int] = []
    passes = Passes(3, found.append)
    passes.begin(100)
    for _ in range(2):
        passes.layer()
    assert found == [25, 25]
    # Memory ran out: half of the windows are tried again, and what was told of them is not told twice.
    passes.fail()
    for _ in range(2):
        passes.begin(50)
        for _ in range(5):
            passes.layer()
        passes.end()
    assert sum(found) == 100


class Layered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_hooks_are_there_for_the_pass_and_gone_after_it():
    module, found = Layered(), []
    model = Uniform(7)
    model.model = module  # pyright: ignore[reportAttributeAccessIssue]
    with told_by_layer(model, found.append) as passes:
        passes.begin(8)
        module(torch.zeros(1, 4))
        passes.end()
    assert found == [2, 2, 2, 2]
    assert not any(layer._forward_hooks for layer in module.layers)
    with told_by_layer(Uniform(7), found.append) as passes:
        passes.begin(5)
        passes.end()
    assert found[4:] == [5]
