"""Every attention path equals the dense oracle, for every encoding, values and gradients."""

import pytest
import torch

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.model.attention import choose, visible_keys
from lpe_eval.model.attentions import blocked
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, EncodingWrapper, Geometry
from lpe_eval.registry import ATTENTIONS, ENCODINGS
from lpe_eval.spec.encoding_spec import EncodingSpec

CPU = torch.device("cpu")


def every_encoding() -> list[str]:
    names = []
    for name in ENCODINGS.names():
        wraps = issubclass(ENCODINGS.load(name), EncodingWrapper)
        names += [f"{name}({inner})" for inner in ("alibi", "none", "rope", "kerple_log")] if wraps else [name]
    return names


def built(text: str, causal: bool, heads: int = 3, train_length: int = 64) -> Encoding:
    geometry = Geometry(heads, 8, heads * 8, train_length, causal)
    encodings = build_encodings(EncodingSpec.parse(text), geometry, 1)
    generator = torch.Generator().manual_seed(3)
    initialise(encodings, generator)
    for parameter in encodings[0].parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, generator=generator)
    return encodings[0]


def attended(path, encoding: Encoding, rows: int, length: int, causal: bool, dtype=torch.float32, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    at = encoding.positions(length, CPU, torch.Generator().manual_seed(5))
    heads = encoding.geometry.heads
    q, k, v = (torch.randn(2, heads, length, 8, generator=draw).to(dtype).requires_grad_() for _ in range(3))
    turned_q, turned_k = (each.to(dtype) for each in encoding.rotate(q, k, at))
    context = path.attend(turned_q[:, :, length - rows :], turned_k, v, encoding, at, causal)
    learned = [each for each in encoding.parameters() if each.requires_grad]
    weights = torch.randn(context.shape, generator=draw)
    gradients = torch.autograd.grad((context.float() * weights).sum(), [q, k, v, *learned], allow_unused=True)
    return context, gradients


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch):
    """Blocks of a few rows, so that a short text has many of them and a ragged last one."""
    monkeypatch.setattr(blocked, "_BLOCK_LOGITS", 1)
    monkeypatch.setattr(blocked, "_FEWEST_ROWS", 5)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("text", every_encoding())
@pytest.mark.parametrize("name", [each for each in ATTENTIONS.names() if each != "dense"])
def test_a_path_equals_the_oracle(name: str, text: str, causal: bool, small_blocks):
    path, encoding = ATTENTIONS.load(name), built(text, causal)
    if not path.serves(encoding, CPU):
        with pytest.raises(SpecError, match="cannot compute"):
            choose(name, encoding, CPU)
        return
    for rows, length in ((33, 33), (7, 33), (20, 33), (1, 1)):
        context, gradients = attended(path, encoding, rows, length, causal)
        expected, wanted = attended(Dense, encoding, rows, length, causal)
        torch.testing.assert_close(context, expected, rtol=2e-5, atol=2e-5)
        for gradient, other in zip(gradients, wanted, strict=True):
            if other is None or gradient is None:
                assert gradient is None or not gradient.any()
                assert other is None or not other.any()
            else:
                scale = max(1.0, other.abs().max().item())
                torch.testing.assert_close(gradient / scale, other / scale, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("text", ["alibi", "rope", "dape(kerple_log)", "cope"])
def test_bfloat16_stays_near_float32(text: str):
    encoding = built(text, causal=True)
    for name in ATTENTIONS.names():
        path = ATTENTIONS.load(name)
        if path.serves(encoding, CPU):
            low, _ = attended(path, encoding, 33, 33, True, torch.bfloat16)
            high, _ = attended(Dense, encoding, 33, 33, True)
            assert low.dtype == torch.bfloat16
            torch.testing.assert_close(low.float(), high, rtol=0.1, atol=0.1)


def test_the_path_is_chosen_by_what_the_encoding_does():
    assert choose("auto", built("rope", True), CPU)[0] == "sdpa"
    assert choose("auto", built("dape(rope)", True), CPU)[0] == "blocked"
    assert choose("dense", built("rope", True), CPU)[0] == "dense"


def test_an_unknown_path_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownName, match="did you mean blocked"):
        choose("bloked", built("rope", True), CPU)


def test_the_causal_mask_shows_each_row_its_past_and_itself():
    mask = visible_keys(slice(2, 4), 4, 5, True, CPU)
    assert mask.tolist() == [[True, True, True, False], [True, True, True, True]]
    assert visible_keys(slice(2, 4), 5, 5, False, CPU).all()
