"""Every encoding with the future in sight, in the encoder of the algorithmic problems."""

import re
import sys
from typing import Any

import pytest
import torch

from lpe_eval.model.build import build_encodings
from lpe_eval.model.encoding import EncodingWrapper, Geometry
from lpe_eval.model.transformer import Transformer
from lpe_eval.registry import ENCODINGS
from lpe_eval.spec.encoding_spec import EncodingSpec
from tests.support.che_models import TOKENS, che_model, seeded
from tests.support.spelling import bases_of

CPU = torch.device("cpu")
NAMES = ENCODINGS.names()
WRAPPERS = [name for name in NAMES if issubclass(ENCODINGS.load(name), EncodingWrapper)]
SPECS: list[Any] = [
    *(name for name in NAMES if name not in WRAPPERS and name != "p_rope" and not ENCODINGS.load(name).causal_only),
    *(f"{name}({base})" for name in WRAPPERS for base in bases_of(name, ["kerple_log"])),
    "randomized(rope)",
    # Of a head of 4 channels, its default turns none.
    {"name": "p_rope", "p": 0.75},
    {"name": "alibi", "two_sided": "che"},
    {"name": "alibi", "two_sided": "past_only"},
    {"name": "kerple_log", "future": "zero"},
    {"name": "kerple_power", "future": "zero", "form": "bias_and_weight"},
    {"name": "fire", "future": "zero"},
    {"name": "mep", "kernels": ["exp", "t5"]},
    {"name": "dape", "base": {"name": "kerple_log", "future": "zero"}},
    {"name": "randomized", "both_sides": True, "base": {"name": "kerple_log"}},
]
MIRRORED = {
    "none", "alibi", "kerple_log", "kerple_power", "mep", "sandwich", "fire", "cope", "inkling",
    "dape(kerple_log)", "randomized(kerple_log)", "sinks(kerple_log)", "tempered(kerple_log)",
}  # fmt: skip
"""Encodings for which a string read backwards gives the states backwards; their docstrings say so."""
SYMMETRIC_IN_WORDS = r"\|i - j\||mirror\s+image|as\s+a\s+set|on both\s+sides"
every_spec = pytest.mark.parametrize("spec", SPECS, ids=str)


def small(spec: Any) -> Transformer:
    """A bidirectional post-norm model in float64 with encodings in float32, none of whose numbers is zero."""
    model = che_model(spec, width=24, heads=6, layers=2, mlp_width=32, train_length=16, embedding_scale=24**0.5)
    with torch.no_grad():
        for number, parameter in enumerate(model.encodings.parameters()):
            parameter.add_(torch.rand(parameter.shape, generator=seeded(number)) * 0.7 + 0.05)
    model.put(CPU, torch.float64)
    return model.requires_grad_(False).eval()


@every_spec
@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_every_encoding_runs_with_the_future_in_sight_on_every_path(spec: Any, length: int):
    model, tokens = small(spec), torch.randint(0, 3, (2, length), generator=seeded(length))
    model.attention = "dense"
    wanted = model(tokens, seeded(4))
    assert wanted.shape == (2, length, 24)
    assert bool(wanted.isfinite().all())
    for path in ("auto", "blocked"):
        model.attention = path
        torch.testing.assert_close(model(tokens, seeded(4)), wanted, rtol=1e-5, atol=1e-5)
        last = model(tokens, seeded(4), rows=1)
        torch.testing.assert_close(last, wanted[:, -1:], rtol=1e-5, atol=1e-5)


@every_spec
def test_every_encoding_is_trained_with_the_future_in_sight(spec: Any):
    model = small(spec).float().train().requires_grad_(True)
    model.logits(model(TOKENS[:, :16], seeded(4), rows=1)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


@every_spec
def test_every_token_sees_every_other(spec: Any):
    model, changed = small(spec), TOKENS[:, :16].clone()
    before = model(changed, seeded(4))
    for place in (0, 9, 15):
        changed = TOKENS[:, :16].clone()
        changed[:, place] = (changed[:, place] + 1) % 3
        assert bool(((model(changed, seeded(4)) - before).abs().amax((0, 2)) > 1e-9).all())


@every_spec
def test_an_encoding_tells_left_from_right_or_says_that_it_does_not(spec: Any):
    model, tokens = small(spec), TOKENS[:, :16]
    there, back = model(tokens, seeded(4)), model(tokens.flip(1), seeded(4)).flip(1)
    gap = float((there - back).abs().max())
    if spec in list(MIRRORED):
        assert gap < 1e-6
        innermost = ENCODINGS.load(spec.rpartition("(")[2].rstrip(")"))
        assert re.search(SYMMETRIC_IN_WORDS, sys.modules[innermost.__module__].__doc__ or "")
    else:
        assert gap > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_form_for_both_directions_that_is_ours_is_described(name: str):
    member = ENCODINGS.load(name)
    if member.bidirectional == "ours":
        told = "Causal models only" if member.causal_only else r"[Bb]idirectional"
        assert re.search(told, sys.modules[member.__module__].__doc__ or "")


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "alibi", "two_sided": "past_only"},
        {"name": "kerple_log", "future": "zero"},
        {"name": "kerple_power", "future": "zero"},
    ],
    ids=str,
)
def test_a_future_at_distance_zero_looks_to_every_query_like_itself(spec: dict[str, Any]):
    at, geometry = torch.arange(9), Geometry(4, 8, 32, 16, causal=False)
    [one_sided] = build_encodings(EncodingSpec.model_validate(spec), geometry, 1)
    [symmetric] = build_encodings(EncodingSpec(name=spec["name"]), geometry, 1)
    bias, both = one_sided.bias(at, at), symmetric.bias(at, at)
    past = torch.ones(9, 9).tril().bool()
    assert torch.equal(bias[:, past], both[:, past])
    assert torch.equal(bias[:, ~past], torch.zeros_like(bias[:, ~past]))
