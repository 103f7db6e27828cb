"""A form that is made fast computes the formula that stands in the encoding's file, values and gradients."""

import inspect

import pytest
import torch
from torch import Tensor

from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, Geometry, Scores
from lpe_eval.model.encodings.cope import Cope
from lpe_eval.model.encodings.dape import Dape
from lpe_eval.model.encodings.dape_v2 import DapeV2
from lpe_eval.model.encodings.fire import Fire
from lpe_eval.model.fast import counted_gates, pieces
from lpe_eval.model.fast.computed_by import computed_by
from lpe_eval.spec.encoding_spec import EncodingSpec

HEADS, WIDTH = 3, 8


def built(text: str, causal: bool = True, **options) -> Encoding:
    spec = EncodingSpec.parse(text).model_copy(update={"options": options})
    encodings = build_encodings(spec, Geometry(HEADS, WIDTH, HEADS * WIDTH, 40, causal), 1)
    draw = torch.Generator().manual_seed(3)
    initialise(encodings, draw)
    with torch.no_grad():
        for parameter in encodings[0].parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return encodings[0]


def scores_of(encoding: Encoding, q_at: Tensor, k_at: Tensor, causal: bool) -> Scores:
    draw = torch.Generator().manual_seed(1)
    q, k = (torch.randn(2, HEADS, len(at), WIDTH, generator=draw) for at in (q_at, k_at))
    visible = k_at[None, :] <= q_at[:, None] if causal else torch.ones(len(q_at), len(k_at), dtype=torch.bool)
    return Scores(q @ k.transpose(-1, -2), encoding.bias(q_at, k_at), q, k, visible, q_at, k_at)


def both_agree(encoding: Encoding, method, *arguments) -> None:
    """The method as it is called and its formula, without gradients and with them."""
    formula = inspect.unwrap(method)
    assert formula is not method
    wanted = formula(encoding, *arguments)
    learned = [each for each in encoding.parameters() if each.requires_grad]
    with torch.no_grad():
        torch.testing.assert_close(method(encoding, *arguments), wanted, rtol=2e-5, atol=2e-5)
    found = method(encoding, *arguments)
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-5)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    gradients, others = (
        torch.autograd.grad((each * weights).sum(), learned, allow_unused=True, retain_graph=True)
        for each in (found, wanted)
    )
    for gradient, other in zip(gradients, others, strict=True):
        assert (gradient is None) == (other is None)
        if gradient is not None and other is not None:
            scale = max(1.0, other.abs().max().item())
            torch.testing.assert_close(gradient / scale, other / scale, rtol=1e-4, atol=1e-4)


FIRES = [
    {},
    {"activation": "leaky_relu", "threshold": 7.0},
    {"hidden": 1, "normaliser": "query"},
    {"hidden": 31, "future": "zero", "initial_c": 2.0},
]
BLOCKS = {
    "below the threshold": (torch.arange(20), torch.arange(20)),
    "forwards": (torch.arange(50, 90), torch.arange(90)),
    "backwards": (torch.arange(50, 90).flip(0), torch.arange(90)),
    "one row": (torch.arange(60, 61), torch.arange(61)),
    "with gaps": (torch.arange(30, 35) ** 2, torch.arange(35) ** 2),
}


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("options", FIRES)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_fire_computed_fast_is_its_formula(causal: bool, options: dict, block: str):
    both_agree(built("fire", causal, **options), Fire.bias, *BLOCKS[block])


SQUARES = [(33, 33), (7, 33), (1, 1), (2, 2)]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch):
    """A few rows or keys at once, so that a short block has many pieces and a ragged last one."""
    monkeypatch.setattr(pieces, "_HIDDEN_NUMBERS", 32 * 35 * 2)
    monkeypatch.setattr(counted_gates, "_KEYS_AT_ONCE", 7)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("text", ["dape(kerple_log)", "dape(fire)", "dape(none)", "dape(rope)"])
def test_dape_computed_fast_is_its_formula(text: str, residual: bool, small_pieces):
    encoding = built(text, residual=residual)
    assert isinstance(encoding, Dape)
    for rows, length in SQUARES:
        at = torch.arange(length)
        scores = scores_of(encoding, at[length - rows :].flip(0), at, causal=True)
        both_agree(encoding, Dape.corrected, scores.logits, scores.bias)


@pytest.mark.parametrize("options", [{}, {"kernel": 5, "residual": False}, {"kernel": 4, "padding": "left"}])
@pytest.mark.parametrize("text", ["dape_v2(kerple_log)", "dape_v2(none)"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_dape_v2_computed_fast_is_its_formula(causal: bool, text: str, options: dict, small_pieces):
    encoding = built(text, causal, **options)
    assert isinstance(encoding, DapeV2)
    for rows, length in SQUARES:
        at = torch.arange(length)
        scores = scores_of(encoding, at[length - rows :].flip(0), at, causal)
        both_agree(encoding, DapeV2.corrected, scores.logits, scores.bias, scores.visible)


@pytest.mark.parametrize("options", [{}, {"npos_max": 3}, {"npos_max": 1, "query": "scaled"}])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_cope_computed_fast_is_its_formula(causal: bool, options: dict, small_pieces):
    encoding = built("cope", causal, **options)
    assert isinstance(encoding, Cope)
    for rows, length in SQUARES:
        at = torch.arange(length)
        scores = scores_of(encoding, at[length - rows :].flip(0), at, causal)
        formula, of_whole = inspect.unwrap(Cope.positioned), scores.queries @ encoding.pos_emb
        wanted = formula(encoding, scores, of_whole).detach()
        with torch.no_grad():
            found = encoding.positioned(scores, of_whole)
        # What lies in the future of a causal model is never looked at.
        torch.testing.assert_close(found[..., scores.visible], wanted[..., scores.visible], rtol=2e-5, atol=2e-5)


def test_an_encoding_that_overrides_a_method_of_fire_or_dape_is_computed_by_its_own():
    class Halved(Fire):
        def bias(self, q_at: Tensor, k_at: Tensor) -> Tensor:
            return super().bias(q_at, k_at) / 2

    class Doubled(Dape):
        def adjust(self, scores: Scores) -> Tensor:
            return 2 * super().adjust(scores)

    shape, at = Geometry(HEADS, WIDTH, HEADS * WIDTH, 16), torch.arange(40)
    fire = Fire(shape, Fire.Options())
    halved = Halved(shape, Halved.Options())
    halved.load_state_dict(fire.state_dict())
    assert torch.equal(halved.bias(at, at), fire.bias(at, at) / 2)
    dape = Dape(shape, Dape.Options(), fire)
    doubled = Doubled(shape, Doubled.Options(), fire)
    doubled.load_state_dict(dape.state_dict())
    scores = scores_of(dape, at, at, causal=True)
    assert torch.equal(doubled.adjust(scores), 2 * dape.adjust(scores))


def test_where_a_form_has_no_answer_the_formula_is_computed():
    @computed_by(lambda number: None if number else 7)
    def formula(number: int) -> int:
        """What it says."""
        return number

    assert [formula(0), formula(1), formula(2)] == [7, 1, 2]
    assert formula.__doc__ == "What it says."
