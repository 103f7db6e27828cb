"""A leak is found at the lengths that are measured, and nothing but a leak is taken for one."""

import pytest
import torch
from torch import nn

from lpe_eval.errors import CausalLeakError, CodeError, LengthError
from lpe_eval.measure.probe import allowed_leak, leak_of, refuse_leak
from lpe_eval.model.language_model import LanguageModel
from tests.support.closed_form import Uniform


class Own(Uniform):
    """Hidden states made by a function of the tokens; notes the lengths at which it was asked."""

    def __init__(self, states) -> None:
        super().__init__(50)
        self.states, self.asked = states, []

    def hidden(self, tokens, rows, generator):
        self.asked.append(tokens.shape[1])
        return self.states(tokens)


def causal(tokens):
    """Each state is a running mean."""
    return (tokens.double().cumsum(1) / torch.arange(1, tokens.shape[1] + 1))[..., None].float()


def beyond(length: int):
    """Leaks in longer texts."""
    return lambda tokens: causal(tokens if tokens.shape[1] <= length else tokens.roll(-1, 1))


def broken_below(length: int, error: Exception):
    """Cannot run on shorter texts."""

    def states(tokens):
        if tokens.shape[1] < length:
            raise error
        return causal(tokens)

    return states


@pytest.mark.parametrize("lengths", [(64, 100), (100,), (50, 60, 4000), (16, 100)])
def test_a_leak_at_the_longest_length_is_found(lengths: tuple[int, ...]):
    refuse_leak(Own(beyond(99)))
    with pytest.raises(
        CausalLeakError, match=f"of a text of {max(lengths)} tokens, changing token {max(lengths) // 2}"
    ):
        refuse_leak(Own(beyond(99)), lengths)


def test_shorter_lengths_are_tried_while_they_cost_no_more_than_the_longest():
    model = Own(causal)
    refuse_leak(model, (4000, 16, 1000, 2000, 3000))
    assert model.asked == [48, 48, 1000, 1000, 2000, 2000, 4000, 4000]


@pytest.mark.parametrize("error", [LengthError("no"), CodeError("no"), RuntimeError("no"), MemoryError()])
def test_a_model_that_runs_only_on_longer_texts_is_tried_there(error: Exception):
    model = Own(broken_below(64, error))
    refuse_leak(model, (64, 128))
    assert model.asked[-4:] == [64, 64, 128, 128]
    with pytest.raises(type(error)):
        refuse_leak(Own(broken_below(64, error)), (32,))
    with pytest.raises(type(error)):
        refuse_leak(Own(broken_below(64, error)))


def test_states_that_are_not_finite_are_no_leak_unless_the_future_moves_them():
    refuse_leak(Own(lambda tokens: torch.full((*tokens.shape, 3), float("nan"))))
    refuse_leak(Own(lambda tokens: torch.cat([causal(tokens), torch.full((*tokens.shape, 1), -torch.inf)], -1)))

    def moved(tokens):
        return torch.where(tokens.flip(1)[..., None] % 2 == 0, torch.nan, causal(tokens))

    with pytest.raises(CausalLeakError):
        refuse_leak(Own(moved))


def test_a_small_leak_names_quantised_activations_and_a_large_one_does_not():
    def rounded(tokens):
        states = causal(tokens)
        step = (states.abs().max() + tokens.sum() / 1000) / 127
        return (states / step).round() * step

    with pytest.raises(CausalLeakError, match=r"per-tensor scale.*--allow-leak"):
        refuse_leak(Own(rounded))
    with pytest.raises(CausalLeakError) as caught:
        refuse_leak(Own(beyond(1)))
    assert "quantised" not in str(caught.value)


def test_a_leak_that_is_allowed_is_told():
    assert "sees the future" in allowed_leak(Own(beyond(1)), (), True)
    assert allowed_leak(Own(causal), (64,), True) == allowed_leak(Own(causal), (64,), False) == ""
    with pytest.raises(CausalLeakError):
        allowed_leak(Own(beyond(1)), (), False)
    model: LanguageModel = Own(causal)
    assert leak_of(model, (64,)) is None


class Remembers(nn.Module):
    """Keeps what the longest text so far made of it, as dynamic NTK does."""

    scale: torch.Tensor
    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1), persistent=False)
        self.register_buffer("seen", torch.zeros(3))
        self.longest, self.table = 8, None

    def forward(self, tokens):
        if tokens.shape[1] > self.longest:
            self.longest, self.extra = tokens.shape[1], tokens
            self.register_buffer("scale", torch.full((1,), 1 / self.longest), persistent=False)
            self.table, self.seen[1] = torch.arange(self.longest), 5.0
        return causal(tokens) * self.scale


def test_trying_leaves_no_trace():
    module = Remembers()
    model = Own(module)
    model.model = module  # pyright: ignore[reportAttributeAccessIssue]
    before = module(torch.arange(6)[None])
    held = module.scale
    refuse_leak(model, (64, 500))
    assert (module.longest, module.table) == (8, None) and "extra" not in vars(module)
    assert module.scale is held and module.seen.tolist() == [0, 0, 0]
    assert torch.equal(module(torch.arange(6)[None]), before)
