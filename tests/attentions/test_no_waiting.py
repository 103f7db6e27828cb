"""No layer asks a device for a value: on the device of tensors without values, asking is an error."""

from typing import Any

import pytest
import torch

from lpe_eval.model.attention import AttentionPath
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.attentions.checkpointed import Checkpointed
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.model.fast import interpolation
from lpe_eval.model.mask import Mask
from lpe_eval.model.positions import Known, consecutive, highest, known_of, noted, part, run_on
from lpe_eval.spec.encoding_spec import EncodingSpec
from tests.support.attending import built
from tests.support.encoding_forms import SPECS, serves
from tests.support.spelling import written

META = torch.device("meta")
LENGTH = 600
"""Long enough that positions matter on a GPU, and longer than the train length of FIRE."""
MORE: list[dict[str, Any]] = [
    {"name": "rope", "scaling": {"type": "dynamic_ntk", "factor": 2.0}},
    {"name": "randomized", "base": {"name": "rope", "scaling": {"type": "dynamic_ntk", "factor": 2.0}}},
    {"name": "dape", "base": {"name": "transformer_xl"}},
    {"name": "randomized", "base": {"name": "fire"}},
]


def on_meta(spec: dict[str, Any], causal: bool) -> Encoding:
    geometry = Geometry(4, 8, 32, LENGTH if "learned" in written(spec) else 64, causal)
    encodings = build_encodings(EncodingSpec.model_validate(spec), geometry, 1)
    initialise(encodings, torch.Generator().manual_seed(3))
    return encodings[0].to(META)


@pytest.mark.parametrize("path", [Blocked, Checkpointed, Dense], ids=lambda path: path.__name__.lower())
@pytest.mark.parametrize("causal", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("spec", [*SPECS, *MORE], ids=written)
def test_an_encoding_asks_for_no_value_on_a_path(spec: dict[str, Any], causal: bool, path: type[AttentionPath]):
    if not serves(spec, causal):
        return
    encoding = on_meta(spec, causal)
    if encoding.label.startswith("randomized(") and encoding.capabilities.adjusts and path is Dense:
        return  # row by row, which takes long and is the same in blocks
    length = min(300, encoding.longest_length or 300) if encoding.label.startswith("randomized(") else LENGTH
    with torch.set_grad_enabled(path is Checkpointed):
        at = encoding.positions(length, META, torch.Generator().manual_seed(1))
        encoding.embed(torch.zeros(1, length, 32, device=META), at)
        q, k, v = (torch.zeros(1, 4, length, 8, device=META) for _ in range(3))
        q, k = encoding.rotate(q, k, at)
        features = encoding.features(torch.zeros(1, length, 32, device=META))
        for mask in (Mask(causal), *([Mask(window=150), Mask(chunk=128)] if causal else [])):
            context = path.attend(q[:, :, 40:], k, v, encoding, at, mask, features)
            assert context.shape == (1, 4, length - 40, 8)


def test_asking_would_be_noticed():
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool((torch.arange(5, device=META) > 0).all())


def test_positions_on_a_device_carry_what_is_known_of_them():
    at = run_on(10, META)
    assert known_of(at) == Known(0, 9, 1)
    assert known_of(part(at, slice(3, 7))) == Known(3, 6, 1)
    assert known_of(part(at, slice(3, 7), backwards=True)) == Known(6, 3, -1)
    assert known_of(part(part(at, slice(3, 9), backwards=True), slice(1, 3))) == Known(7, 6, -1)
    assert known_of(at + 0) is None and known_of(at[2:]) is None
    assert not consecutive(at[2:]) and consecutive(part(at, slice(2, None)))
    assert highest(noted(torch.arange(3, device=META) * 5, Known(0, 10, 0))) == 10


@pytest.mark.parametrize("length", [1, 2, 9])
def test_what_is_known_on_a_device_is_what_there_is_to_see_on_the_cpu(length: int):
    here, there = torch.arange(length), run_on(length, META)
    for rows in (slice(0, length), slice(length // 2, length), slice(0, 1)):
        for backwards in (False, True):
            seen, known = (known_of(part(at, rows, backwards)) for at in (here, there))
            assert seen is not None and known is not None
            assert (seen.lowest, seen.highest) == (known.lowest, known.highest)
            assert len(range(length)[rows]) == 1 or seen == known


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("text", ["fire", "dape(fire)"])
def test_fire_from_its_pieces_is_its_network(text: str, causal: bool, monkeypatch: pytest.MonkeyPatch):
    encoding = built(text, causal, train_length=16)
    q_at, k_at = torch.arange(20, 50), torch.arange(50)
    with torch.no_grad():
        wanted = encoding.bias(q_at, k_at)
    inner = getattr(encoding, "inner", encoding)
    described = inner.interpolation()
    offset = q_at[:, None] - k_at[None, :]
    numerator = described.psi(described.distance(offset))
    normaliser = torch.maximum(described.threshold, described.reach(q_at, k_at).float())
    with torch.no_grad():
        found = interpolation._from_pieces(described, numerator, normaliser)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
