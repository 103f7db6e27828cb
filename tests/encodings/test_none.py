"""No positions at all."""

import torch

from tests.support.transformers import TOKENS, built, hidden


def test_without_positions_a_bidirectional_model_ignores_the_order():
    model = built("none", causal=False)
    order = torch.randperm(13, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(hidden(model, TOKENS)[:, order], hidden(model, TOKENS[:, order]), rtol=1e-5, atol=1e-5)
