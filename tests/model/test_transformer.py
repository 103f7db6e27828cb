"""The reference transformer: shapes, last rows, sharing, initial weights, and any encoding."""

import pytest
import torch

from lpe_eval.model.transformer import Transformer
from lpe_eval.spec.model_spec import ModelSpec
from tests.support.transformers import TOKENS, built, hidden


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("encoding", ["alibi", "sinusoidal", "rope", "dape(kerple_log)", "none"])
def test_the_last_rows_are_the_last_rows_of_all(encoding: str, norm: str):
    model = built(encoding, norm=norm)
    whole = hidden(model, TOKENS)
    assert whole.shape == (2, 13, 24)
    for rows in (1, 3, 9, 13):
        torch.testing.assert_close(hidden(model, TOKENS, rows), whole[:, 13 - rows :], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoding", ["alibi", "sinusoidal", "rope", "xpos", "cope", "dape_v2(kerple_log)"])
def test_a_causal_model_does_not_see_the_future(encoding: str):
    model = built(encoding)
    changed = TOKENS.clone()
    changed[:, 8:] = (changed[:, 8:] + 1) % 11
    torch.testing.assert_close(hidden(model, TOKENS)[:, :8], hidden(model, changed)[:, :8], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(hidden(model, TOKENS)[:, 8:], hidden(model, changed)[:, 8:])


def test_a_bidirectional_model_does():
    model = built("alibi", causal=False)
    changed = TOKENS.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 11
    assert not torch.allclose(hidden(model, TOKENS)[:, 0], hidden(model, changed)[:, 0])


def test_logits_of_tied_embeddings_are_products_with_the_embedding():
    model = built()
    states = hidden(model, TOKENS)
    torch.testing.assert_close(model.logits(states), states @ model.embedding.weight.T)
    untied = built(tied_embeddings=False)
    assert untied.head is not None and untied.logits(states).shape == (2, 13, 11)


@pytest.mark.parametrize(
    ("encoding", "distinct"),
    [
        ("kerple_log", 1),
        ("dape(kerple_log)", 3),
        ({"name": "kerple_log", "per_layer": True}, 3),
        ({"name": "dape", "per_layer": False, "base": {"name": "kerple_log"}}, 1),
    ],
    ids=str,
)
def test_layers_share_what_the_released_code_shares(encoding, distinct: int):
    assert len(built(encoding).encodings) == distinct


def test_initial_weights_depend_on_the_generator_alone():
    first, again, other = built(seed=4), built(seed=4), built(seed=5)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(first.embedding.weight, other.embedding.weight)


@pytest.mark.parametrize(
    "encoding", ["learned", "t5", "kerple_power", "fire", "cope", "dape_v2(kerple_log)", "transformer_xl"]
)
def test_no_parameter_is_left_uninitialised(encoding: str):
    shape = {"width": 24, "layers": 2, "heads": 3, "mlp_width": 40, "vocab_size": 11, "train_length": 16}
    model = Transformer(ModelSpec.model_validate({"encoding": encoding, **shape}))
    with torch.no_grad():
        poisoned = [each for each in model.parameters() if each.requires_grad]
        for parameter in model.embedding.parameters():
            parameter.fill_(float("nan"))
        for layer in model.layers:
            for linear in (module for module in layer.modules() if isinstance(module, torch.nn.Linear)):
                linear.weight.fill_(float("nan"))
                linear.bias.fill_(float("nan"))
    model.initialise(torch.Generator().manual_seed(0))
    assert all(each.isfinite().all() for each in poisoned)


def test_the_encodings_numbers_stay_float32_in_a_low_precision_model():
    model = built("dape(kerple_log)")
    model.put(torch.device("cpu"), torch.bfloat16)
    assert model.embedding.weight.dtype == torch.bfloat16
    assert {each.dtype for each in model.encodings.parameters()} == {torch.float32}
    assert hidden(model, TOKENS).dtype == torch.bfloat16
