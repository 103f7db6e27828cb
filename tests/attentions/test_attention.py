"""Every attention path equals the dense oracle, for every encoding, values and gradients."""

from collections.abc import Callable

import pytest
import torch

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.model import attention, bands, merged_ranges, parts
from lpe_eval.model.attention import AttentionPath, choose
from lpe_eval.model.attentions import extent, levels, merged, sdpa, toeplitz
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.attentions.toeplitz import Toeplitz
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.fast import counted_gates, pieces
from lpe_eval.model.mask import Mask
from lpe_eval.registry import ATTENTIONS
from tests.support.attending import CPU, attended, built, every_encoding, features_of, scored, serves


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch):
    """Blocks of a few rows, so that a short text has many of them and a ragged last one."""
    monkeypatch.setattr(attention, "_BLOCK_LOGITS", 1)
    monkeypatch.setattr(attention, "_FEWEST_ROWS", 5)
    monkeypatch.setattr(pieces, "_HIDDEN_NUMBERS", 32 * 35 * 2)
    monkeypatch.setattr(counted_gates, "_KEYS_AT_ONCE", 7)
    for each in (parts, sdpa, levels, extent):
        monkeypatch.setattr(each, "_ROWS", 5)
    monkeypatch.setattr(levels, "_FEWEST_ROWS", 2)
    monkeypatch.setattr(bands, "ROWS", 3)


MASKS = {
    "causal": Mask(),
    "bidirectional": Mask(causal=False),
    "window 6": Mask(window=6),
    "window 1": Mask(window=1),
    "window 40": Mask(window=40),
    "chunk 7": Mask(chunk=7),
}
FURTHER = ("window 1", "window 40", "chunk 7")
"""Masks of the slow tests: at the ends of what a window can be, and chunks."""

PATHS = [each for each in ATTENTIONS.names() if each != "dense"]


def said_by(path: type[AttentionPath]) -> Callable[[str], str]:
    return lambda message: f"{path.__name__}: {message}"


every_mask = pytest.mark.parametrize(
    "mask",
    [pytest.param(mask, id=name, marks=[pytest.mark.slow] if name in FURTHER else []) for name, mask in MASKS.items()],
)


def paths_of(encoding: Encoding) -> list[type[AttentionPath]]:
    """The paths that serve an encoding; the others are refused where they are asked for."""
    served = [name for name in PATHS if ATTENTIONS.load(name).serves(encoding, CPU)]
    for name in set(PATHS) - set(served):
        with pytest.raises(SpecError, match="cannot compute"):
            choose(name, encoding, CPU)
    return [ATTENTIONS.load(name) for name in served]


@every_mask
@pytest.mark.parametrize("text", every_encoding())
def test_every_path_equals_the_oracle(text: str, mask: Mask, small_blocks):
    if not serves(text, mask.causal):
        return
    encoding = built(text, mask.causal)
    for rows, length in ((33, 33), (7, 33), (20, 33), (1, 1)):
        expected, wanted = attended(Dense, encoding, rows, length, mask)
        for path in paths_of(encoding):
            context, gradients = attended(path, encoding, rows, length, mask)
            torch.testing.assert_close(context, expected, rtol=2e-5, atol=2e-5, msg=said_by(path))
            for gradient, other in zip(gradients, wanted, strict=True):
                if other is None or gradient is None:
                    assert gradient is None or not gradient.any()
                    assert other is None or not other.any()
                else:
                    scale = max(1.0, other.abs().max().item())
                    found = gradient / scale
                    torch.testing.assert_close(found, other / scale, rtol=1e-4, atol=1e-4, msg=said_by(path))


@every_mask
@pytest.mark.parametrize("text", every_encoding())
def test_every_path_without_gradients_equals_the_oracle_with_them(text: str, mask: Mask, small_blocks):
    if not serves(text, mask.causal):
        return
    encoding = built(text, mask.causal, train_length=33 if text == "learned" else 16)
    for rows, length in ((33, 33), (7, 33), (20, 33), (1, 33), (1, 1), (2, 2)):
        expected = scored(Dense, encoding, rows, length, mask, gradients=True)
        for path in paths_of(encoding):
            found = scored(path, encoding, rows, length, mask)
            torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5, msg=said_by(path))


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize(
    "text",
    [
        *("alibi", "kerple_log", "mep", "fire", "dape(kerple_log)", "dape_v2(fire)", "t5"),
        *("rope", "fox", "cable", "inkling", "sinks(rope)", "sinks(fox)"),
    ],
)
def test_a_long_text_of_full_blocks_equals_the_oracle(text: str, causal: bool):
    encoding = built(text, causal, train_length=256)
    path, length = choose("auto", encoding, CPU)[1], 1111
    for rows in (length, 300):
        for mask in (Mask(causal), *([Mask(window=300), Mask(chunk=400)] if causal else [])):
            expected = scored(Dense, encoding, rows, length, mask, gradients=True)
            torch.testing.assert_close(scored(path, encoding, rows, length, mask), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_positions_with_gaps_have_no_table_and_are_served_all_the_same(causal: bool):
    encoding, at = built("kerple_log", causal), torch.arange(21) ** 2
    q, k, v = (torch.randn(2, 3, 21, 8, generator=torch.Generator().manual_seed(each)) for each in range(3))
    context, expected = (path.attend(q[:, :, 4:], k, v, encoding, at, Mask(causal)) for path in (Toeplitz, Dense))
    torch.testing.assert_close(context, expected, rtol=2e-5, atol=2e-5)


def test_a_bias_of_rows_that_run_backwards_is_a_view_of_one_row_of_numbers():
    encoding, at = built("alibi", True), torch.arange(12)
    backwards, forwards = encoding.bias(at[4:9].flip(0), at), encoding.bias(at[4:9], at)
    assert backwards is not None
    assert forwards is not None
    assert torch.equal(backwards.flip(1), forwards)
    assert backwards.stride()[1:] == (1, 1)


LATER = ["fox", "cable", "inkling", "path", "stick_breaking", "sinks(rope)", "tempered(rope)"]


@pytest.mark.parametrize("text", ["alibi", "rope", "dape(kerple_log)", "cope", *LATER])
def test_bfloat16_stays_near_float32(text: str):
    encoding = built(text, causal=True)
    for name in ATTENTIONS.names():
        path = ATTENTIONS.load(name)
        if path.serves(encoding, CPU):
            low, _ = attended(path, encoding, 33, 33, Mask(), torch.bfloat16)
            high, _ = attended(Dense, encoding, 33, 33, Mask())
            assert low.dtype == torch.bfloat16
            torch.testing.assert_close(low.float(), high, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("mask", [Mask(), Mask(window=9), Mask(chunk=10)], ids=str)
@pytest.mark.parametrize("text", ["alibi", "rope", "fire", "dape(kerple_log)", "cope", *LATER])
def test_logits_of_sixteen_bits_are_not_rounded(text: str, mask: Mask):
    """Logits of about 25, of which bfloat16 would take a sixteenth more or less, and weights then as much."""
    encoding, length = built(text, causal=True), 33
    at, features = torch.arange(length), features_of(encoding, 1, length)
    q, k, v = (torch.randn(1, 3, length, 8, generator=torch.Generator().manual_seed(each)) for each in range(3))
    q, k = (turned.bfloat16() for turned in encoding.rotate(q * 5, k * 5, at))
    with torch.no_grad():
        wanted = Dense.attend(q.float(), k.float(), v.bfloat16().float(), encoding, at, mask, features)
        for name in ATTENTIONS.names():
            path = ATTENTIONS.load(name)
            if path.serves(encoding, CPU):
                found = path.attend(q, k, v.bfloat16(), encoding, at, mask, features).float()
                torch.testing.assert_close(found, wanted, rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    ("text", "wanted", "path"),
    [
        ("rope", "auto", "sdpa"),
        ("dape(rope)", "auto", "blocked"),
        ("alibi", "auto", "toeplitz"),
        ("fire", "auto", "blocked"),
        ("rope", "dense", "dense"),
        ("fox", "auto", "levels"),
        ("sinks(cable)", "auto", "levels"),
        ("inkling", "auto", "extent"),
        ("tempered(rope)", "auto", "sdpa"),
        ("sinks(alibi)", "auto", "toeplitz"),
        ("path", "auto", "blocked"),
    ],
)
def test_the_path_is_chosen_by_what_the_encoding_does(text: str, wanted: str, path: str):
    assert choose(wanted, built(text, True), CPU)[0] == path


@pytest.mark.parametrize("mask", [Mask(), Mask(window=6)], ids=str)
@pytest.mark.parametrize("text", ["fox", "inkling", "sinks(rope)", "sinks(alibi)", "remap(rope)", "rope", "alibi"])
def test_without_the_operation_that_gives_parts_another_path_is_exact(
    text: str, mask: Mask, small_blocks, monkeypatch: pytest.MonkeyPatch
):
    def never(*given: object, **more: object) -> None:
        raise AssertionError("this PyTorch has no such operation")

    for module in (bands, extent, levels, merged, merged_ranges, sdpa, toeplitz):
        monkeypatch.setattr(module, "has_parts", lambda: False)
        for name in ("attend_part", "attend_past", "fused_piece"):
            monkeypatch.setattr(module, name, never, raising=False)
    encoding = built(text, causal=True)
    found = scored(choose("auto", encoding, CPU)[1], encoding, 20, 33, mask)
    torch.testing.assert_close(found, scored(Dense, encoding, 20, 33, mask, gradients=True), rtol=2e-5, atol=2e-5)


def test_a_path_that_cannot_compute_alibi_on_a_device_is_refused():
    with pytest.raises(SpecError, match="cannot compute alibi on cuda"):
        choose("toeplitz", built("alibi", True), torch.device("cuda"))


def test_an_unknown_path_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownName, match="did you mean blocked"):
        choose("bloked", built("rope", True), CPU)


def test_the_causal_mask_shows_each_row_its_past_and_itself():
    mask = Mask().visible(slice(2, 4), slice(0, 4), CPU)
    assert mask.tolist() == [[True, True, True, False], [True, True, True, True]]
    assert Mask(causal=False).visible(slice(2, 4), slice(0, 5), CPU).all()
