"""A stack of models computes what each of them computes alone, and trains each as it would train alone."""

import pytest
import torch
from torch.nn import functional as F

from lpe_eval.errors import SpecError
from lpe_eval.model.transformer import Transformer
from lpe_eval.train.stack import Stack
from tests.support.stacks import ENCODINGS, RATES, encoder


def strings(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    length = 7 + 3 * step
    return (
        torch.randint(4, (5, length), generator=generator),
        torch.randint(3, (5, 1 + 2 * step), generator=generator),
    )


def trained_alone(model: Transformer, rate: float, steps: int, clip_norm: float) -> tuple[list[float], list[float]]:
    """What a person would write: PyTorch's own clipping and Adam, one model."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    losses, norms = [], []
    for step in range(steps):
        tokens, targets = strings(step)
        logits = model.logits(model(tokens, torch.Generator().manual_seed(step), targets.shape[1]))
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)))
        losses.append(float(loss.detach()))
        optimizer.step()
    return losses, norms


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_a_run_of_a_stack_is_the_run_alone_to_rounding(encoding):
    stack = Stack([encoder(encoding, seed) for seed in (1, 2, 3)], RATES, clip_norm=0.5)
    together = [stack.step(*strings(step), torch.Generator().manual_seed(step)) for step in range(3)]
    for run, (seed, rate) in enumerate(zip((1, 2, 3), RATES, strict=True)):
        alone = encoder(encoding, seed)
        losses, norms = trained_alone(alone, rate, steps=3, clip_norm=0.5)
        assert [float(loss[run]) for loss, _ in together] == pytest.approx(losses, rel=2e-5, abs=1e-6)
        assert [float(norm[run]) for _, norm in together] == pytest.approx(norms, rel=1e-3, abs=1e-5)
        # Adam divides by the gradient's size, so where a gradient is nothing but rounding a weight may
        # go either way; the answers may not.
        with torch.no_grad():
            tokens, draws = strings(3)[0], torch.Generator()
            expected = alone.logits(alone(tokens, draws.manual_seed(9)))
            found = stack.models[run].logits(stack.models[run](tokens, draws.manual_seed(9)))
            of_stack = stack.answer(tokens, draws.manual_seed(9))[run]
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(of_stack, found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoding", ["sinusoidal", "alibi"])
def test_runs_share_the_masks_of_dropout(encoding):
    stack = Stack([encoder(encoding, seed, dropout=0.3) for seed in (1, 2, 3)], RATES, clip_norm=0.5)
    losses = [stack.step(*strings(step), torch.Generator().manual_seed(step))[0] for step in range(2)]
    alone, _ = trained_alone(encoder(encoding, 2, dropout=0.3), RATES[1], steps=2, clip_norm=0.5)
    assert [float(loss[1]) for loss in losses] == pytest.approx(alone, rel=2e-5)


def test_a_norm_above_the_limit_is_clipped_run_by_run():
    models = [encoder("none", 1), encoder("none", 1)]
    with torch.no_grad():
        models[1].head.weight.mul_(30)
    stack = Stack(models, (1e-3, 1e-3), clip_norm=1.0)
    before = stack.weights.clone()
    _, norms = stack.step(*strings(1), torch.Generator())
    assert norms[0] < norms[1]
    # After one step the first moment is a tenth of the gradient that was used.
    used = torch.linalg.vector_norm(stack.first_moment * 10, dim=1)
    torch.testing.assert_close(used, norms.clamp(max=1.0), rtol=1e-4, atol=1e-4)
    assert (stack.weights != before).any(1).all()


def test_a_run_that_diverges_leaves_the_others_alone():
    def losses(broken: bool) -> list[float]:
        models = [encoder("kerple_log", seed) for seed in (1, 2)]
        if broken:
            with torch.no_grad():
                models[0].head.weight.fill_(float("nan"))
        stack = Stack(models, (1e-3, 1e-3), clip_norm=1.0)
        return [float(stack.step(*strings(step), torch.Generator())[0][1]) for step in range(3)]

    assert losses(True) == losses(False)


def test_the_models_of_a_stack_are_as_trained_as_it_is():
    models = [encoder("learned", seed) for seed in (1, 2)]
    stack = Stack(models, (1e-2, 1e-2), clip_norm=1.0)
    before = [model.layers[0].mlp_in.weight.clone() for model in models]
    stack.step(*strings(0), torch.Generator())
    for model, old, row in zip(models, before, stack.weights, strict=True):
        assert not torch.equal(model.layers[0].mlp_in.weight, old)
        assert torch.equal(torch.cat([each.flatten() for each in model.parameters()]), row)


def test_a_restored_stack_of_fire_goes_on_to_the_bit():
    def stack() -> Stack:
        return Stack([encoder("fire", seed) for seed in (1, 2)], (1e-3, 1e-2), clip_norm=1.0)

    first, second = stack(), stack()
    first.step(*strings(0), torch.Generator())
    second.restore(
        {key: each.clone() if isinstance(each, torch.Tensor) else each for key, each in first.state().items()}
    )
    for each in (first, second):
        each.step(*strings(1), torch.Generator())
    assert torch.equal(first.weights, second.weights)


def test_a_state_of_other_models_is_refused():
    stack = Stack([encoder("none", 1)], (1e-3,), clip_norm=1.0)
    other = Stack([encoder("none", 1, width=8)], (1e-3,), clip_norm=1.0)
    with pytest.raises(ValueError, match="has the shape"):
        stack.restore(other.state())


def test_bfloat16_products_stay_near_those_of_float32():
    exact = Stack([encoder("rope", seed) for seed in (1, 2)], (1e-3, 1e-3), clip_norm=1.0)
    rough = Stack([encoder("rope", seed) for seed in (1, 2)], (1e-3, 1e-3), 1.0, torch.bfloat16)
    for step in range(3):
        a, b = (each.step(*strings(step), torch.Generator())[0] for each in (exact, rough))
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)
        assert not torch.equal(a, b)
    assert rough.weights.dtype == torch.float32


def test_a_tied_head_cannot_be_stacked():
    tied = {"tied_embeddings": True, "outputs": None, "head_bias": False}
    with pytest.raises(SpecError, match="a head of their own"):
        Stack([encoder("none", 1, **tied)], (1e-3,), clip_norm=1.0)
