"""Every attention path equals the dense oracle, for every encoding, values and gradients."""

import pytest
import torch

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.model import attention
from lpe_eval.model.attention import choose, visible_keys
from lpe_eval.model.attentions import toeplitz
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.attentions.toeplitz import Toeplitz
from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, EncodingWrapper, Geometry
from lpe_eval.model.encodings import cope, dape, dape_v2
from lpe_eval.model.encodings.fire import Fire
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
    monkeypatch.setattr(attention, "_BLOCK_LOGITS", 1)
    monkeypatch.setattr(attention, "_FEWEST_ROWS", 5)
    monkeypatch.setattr(dape, "_HIDDEN_NUMBERS", 32 * 33 * 2)
    monkeypatch.setattr(dape_v2, "_HIDDEN_NUMBERS", 32 * 35 * 2)
    monkeypatch.setattr(cope, "_KEYS_AT_ONCE", 7)
    monkeypatch.setattr(toeplitz, "_ROWS", 5)


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


def scored(path, encoding: Encoding, rows: int, length: int, causal: bool, gradients: bool = False):
    """The context alone: as evaluation has it, or by the forms that serve gradients."""
    draw, heads = torch.Generator().manual_seed(1), encoding.geometry.heads
    with torch.set_grad_enabled(gradients):
        at = encoding.positions(length, CPU, torch.Generator().manual_seed(5))
        q, k, v = (torch.randn(2, heads, length, 8, generator=draw) for _ in range(3))
        q, k = encoding.rotate(q, k, at)
        return path.attend(q[:, :, length - rows :], k, v, encoding, at, causal).detach()


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("text", every_encoding())
@pytest.mark.parametrize("name", [each for each in ATTENTIONS.names() if each != "dense"])
def test_a_path_without_gradients_equals_the_oracle_with_them(name: str, text: str, causal: bool, small_blocks):
    path, encoding = ATTENTIONS.load(name), built(text, causal, train_length=33 if text == "learned" else 16)
    if path.serves(encoding, CPU):
        for rows, length in ((33, 33), (7, 33), (20, 33), (1, 1), (2, 2)):
            expected = scored(Dense, encoding, rows, length, causal, gradients=True)
            torch.testing.assert_close(scored(path, encoding, rows, length, causal), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("text", ["alibi", "kerple_log", "mep", "fire", "dape(kerple_log)", "dape_v2(fire)", "t5"])
def test_a_long_text_of_full_blocks_equals_the_oracle(text: str, causal: bool):
    encoding = built(text, causal, train_length=256)
    path, length = choose("auto", encoding, CPU)[1], 1111
    for rows in (length, 300):
        expected = scored(Dense, encoding, rows, length, causal, gradients=True)
        torch.testing.assert_close(scored(path, encoding, rows, length, causal), expected, rtol=2e-5, atol=2e-5)


def test_keys_too_far_to_be_seen_do_not_disturb_the_fused_kernel():
    """MEP as published gives far keys minus infinity: whole tiles of the kernel hold nothing else."""
    spec = EncodingSpec(name="mep", options={"kernels": ["exp", "gaussian"], "numerics": "as_published"})
    encoding = build_encodings(spec, Geometry(3, 8, 24, 64), 1)[0]
    bias = encoding.bias_by_offset(torch.tensor([0, 1999]))
    assert bias is not None
    assert bias[0, 1] == -torch.inf
    expected = scored(Dense, encoding, 2000, 2000, True)
    torch.testing.assert_close(scored(Toeplitz, encoding, 2000, 2000, True), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_positions_with_gaps_have_no_table_and_are_served_all_the_same(causal: bool):
    encoding, at = built("kerple_log", causal), torch.arange(21) ** 2
    q, k, v = (torch.randn(2, 3, 21, 8, generator=torch.Generator().manual_seed(each)) for each in range(3))
    context, expected = (path.attend(q[:, :, 4:], k, v, encoding, at, causal) for path in (Toeplitz, Dense))
    torch.testing.assert_close(context, expected, rtol=2e-5, atol=2e-5)


def test_a_bias_of_rows_that_run_backwards_is_a_view_of_one_row_of_numbers():
    encoding, at = built("alibi", True), torch.arange(12)
    backwards, forwards = encoding.bias(at[4:9].flip(0), at), encoding.bias(at[4:9], at)
    assert backwards is not None
    assert forwards is not None
    assert torch.equal(backwards.flip(1), forwards)
    assert backwards.stride()[1:] == (1, 1)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@pytest.mark.parametrize("train_length", [4, 64, 512])
def test_fire_in_segments_is_fire_by_its_network(activation, train_length: int):
    fire = Fire(Geometry(4, 8, 32, train_length), Fire.Options(activation=activation))
    fire.initialise(torch.Generator().manual_seed(1))
    with torch.no_grad():
        # Knots everywhere between 0 and 1, rising and falling units, and two that are constant.
        fire.first.weight[:24, 0] = torch.linspace(-2, 2, 24)
        fire.first.bias[:24] = -fire.first.weight[:24, 0] * torch.linspace(0.02, 0.98, 24)
        fire.first.weight[24:26] = 0
    for start, stop, columns in ((1400, 1433, 1433), (600, 640, 640), (64, 80, 80), (500, 530, 700), (99, 100, 3)):
        q_at, k_at = torch.arange(start, stop), torch.arange(columns)
        by_network = fire.bias(q_at, k_at).detach()
        with torch.no_grad():
            torch.testing.assert_close(fire.bias(q_at, k_at), by_network, rtol=0, atol=1e-5)
            torch.testing.assert_close(fire.bias(q_at.flip(0), k_at).flip(1), by_network, rtol=0, atol=1e-5)


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
    assert choose("auto", built("alibi", True), CPU)[0] == "toeplitz"
    assert choose("auto", built("fire", True), CPU)[0] == "blocked"
    with pytest.raises(SpecError, match="cannot compute alibi on cuda"):
        choose("toeplitz", built("alibi", True), torch.device("cuda"))
    assert choose("dense", built("rope", True), CPU)[0] == "dense"


def test_an_unknown_path_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownName, match="did you mean blocked"):
        choose("bloked", built("rope", True), CPU)


def test_the_causal_mask_shows_each_row_its_past_and_itself():
    mask = visible_keys(slice(2, 4), 4, 5, True, CPU)
    assert mask.tolist() == [[True, True, True, False], [True, True, True, True]]
    assert visible_keys(slice(2, 4), 5, 5, False, CPU).all()
