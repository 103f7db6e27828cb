"""The Triton kernels for networks of pairs equal the dense oracle: on a GPU, or in Triton's interpreter.

Collected only where Triton is installed. Without a GPU the interpreter must be on before Triton is imported
(TRITON_INTERPRET=1). It cannot multiply bfloat16, so there the 16-bit type is float16.
"""

import pytest
import torch

from lpe_eval.model import fused_kernel
from lpe_eval.model.attention import PathError
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.attentions.fused import Fused
from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.model.falling_back import attended, taken
from lpe_eval.model.fused_kernel import Tile
from lpe_eval.model.mask import Mask
from lpe_eval.spec.encoding_spec import EncodingSpec

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHORT = torch.bfloat16 if DEVICE.type == "cuda" else torch.float16
SIZES = ((2, 33, 33), (1, 70, 70), (2, 7, 45), (1, 40, 61), (2, 1, 1))


def built(base: str, causal: bool, heads: int, width: int, hidden: int, residual: bool = True) -> Encoding:
    spec = EncodingSpec(name="dape", options={"hidden": hidden, "residual": residual}, base=EncodingSpec(name=base))
    encodings = build_encodings(spec, Geometry(heads, width, heads * width, 64, causal), 1)
    initialise(encodings, torch.Generator().manual_seed(3))
    return encodings[0].to(DEVICE)


def inputs(batch: int, heads: int, rows: int, length: int, width: int, dtype: torch.dtype) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(rows + length)
    shapes = ((batch, heads, rows, width), (batch, heads, length, width), (batch, heads, length, width))
    return [torch.randn(shape, generator=draw).to(DEVICE, dtype) for shape in shapes]


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize(
    ("base", "heads", "width", "hidden"),
    [("kerple_log", 3, 16, 8), ("alibi", 12, 20, 32), ("none", 5, 16, 8), ("rope", 2, 8, 5), ("t5", 17, 16, 33)],
)
def test_the_kernel_equals_the_oracle(base: str, heads: int, width: int, hidden: int, causal: bool):
    encoding = built(base, causal, heads, width, hidden)
    with torch.no_grad():
        for batch, rows, length in SIZES:
            q, k, v = inputs(batch, heads, rows, length, width, torch.float32)
            at = torch.arange(length, device=DEVICE)
            context, expected = (path.attend(q, k, v, encoding, at, Mask(causal)) for path in (Fused, Dense))
            torch.testing.assert_close(context, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_sixteen_bits_stay_near_float32(causal: bool):
    encoding, at = built("alibi", causal, 3, 16, 32), torch.arange(61, device=DEVICE)
    with torch.no_grad():
        q, k, v = inputs(2, 3, 40, 61, 16, SHORT)
        context = Fused.attend(q, k, v, encoding, at, Mask(causal))
        expected = Dense.attend(q.float(), k.float(), v.float(), encoding, at, Mask(causal))
    assert context.dtype == SHORT
    torch.testing.assert_close(context.float(), expected, rtol=0.02, atol=0.02)


def test_without_the_residual_the_bias_is_only_read():
    encoding, at = built("alibi", True, 3, 16, 8, residual=False), torch.arange(40, device=DEVICE)
    with torch.no_grad():
        q, k, v = inputs(1, 3, 40, 40, 16, torch.float32)
        context, expected = (path.attend(q, k, v, encoding, at, Mask()) for path in (Fused, Dense))
    torch.testing.assert_close(context, expected, rtol=2e-5, atol=2e-5)


def test_queries_keys_and_values_may_be_views_of_one_tensor():
    encoding, at = built("kerple_log", True, 3, 16, 8), torch.arange(37, device=DEVICE)
    packed = torch.randn(2, 37, 3, 3, 16, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    q, k, v = packed.permute(2, 0, 3, 1, 4)
    with torch.no_grad():
        context = Fused.attend(q[:, :, 20:], k, v, encoding, at, Mask())
        expected = Dense.attend(q[:, :, 20:], k, v, encoding, at, Mask())
    torch.testing.assert_close(context, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_gradients_are_those_of_the_oracle(causal: bool):
    encoding, at = built("kerple_log", causal, 3, 16, 8), torch.arange(45, device=DEVICE)
    q, k, v = (each.requires_grad_() for each in inputs(2, 3, 20, 45, 16, torch.float32))
    results = []
    for path in (Fused, Dense):
        context = path.attend(q, k, v, encoding, at, Mask(causal))
        results.append([context, *torch.autograd.grad(context.square().sum(), [q, k, v, *encoding.parameters()])])
    for ours, theirs in zip(*results, strict=True):
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=1e-4, atol=1e-4)


def test_positions_with_gaps_are_served_all_the_same():
    encoding, at = built("kerple_log", True, 3, 16, 8), torch.arange(21, device=DEVICE) ** 2
    with torch.no_grad():
        q, k, v = inputs(1, 3, 15, 21, 16, torch.float32)
        context, expected = (path.attend(q, k, v, encoding, at, Mask()) for path in (Fused, Dense))
    torch.testing.assert_close(context, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
def test_rows_are_done_some_after_the_others(causal: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fused_kernel, "_WEIGHTS", 1)
    monkeypatch.setattr(fused_kernel, "_PER_PROGRAM", 2)
    encoding, at = built("kerple_log", causal, 3, 16, 8), torch.arange(290, device=DEVICE)
    with torch.no_grad():
        q, k, v = inputs(1, 3, 270, 290, 16, torch.float32)
        context, expected = (path.attend(q, k, v, encoding, at, Mask(causal)) for path in (Fused, Dense))
    torch.testing.assert_close(context, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "size", [each._replace(rows=rows) for each in fused_kernel.TILES for rows in (16, 32)], ids=str
)
def test_every_tile_equals_the_oracle(size: Tile, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fused_kernel, "TILES", (size,))
    monkeypatch.setattr(Tile, "suits", lambda *_: True)
    encoding, at = built("kerple_log", True, 5, 20, 33), torch.arange(75, device=DEVICE)
    with torch.no_grad():
        q, k, v = inputs(2, 5, 50, 75, 20, torch.float32)
        context, expected = (path.attend(q, k, v, encoding, at, Mask()) for path in (Fused, Dense))
    torch.testing.assert_close(context, expected, rtol=2e-5, atol=2e-5)


def test_biases_of_a_hundred_thousand_stay_in_range_in_sixteen_bits():
    encoding, at = built("alibi", True, 3, 16, 32), torch.arange(61, device=DEVICE)
    encoding.inner.slopes.fill_(3000.0)
    with torch.no_grad():
        q, k, v = inputs(1, 3, 61, 61, 16, SHORT)
        context = Fused.attend(q, k, v, encoding, at, Mask())
        expected = Dense.attend(q.float(), k.float(), v.float(), encoding, at, Mask())
    torch.testing.assert_close(context.float(), expected, rtol=0.02, atol=0.02)


def test_a_text_beyond_the_indices_of_a_kernel_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fused_kernel, "_INDICES", 1000)
    encoding, at = built("kerple_log", True, 3, 16, 8), torch.arange(40, device=DEVICE)
    with torch.no_grad(), pytest.raises(PathError, match="40 tokens are too many"):
        Fused.attend(*inputs(1, 3, 40, 40, 16, torch.float32), encoding, at, Mask())


@pytest.mark.parametrize(
    ("heads", "width", "dtype", "kib", "rows"),
    [
        (12, 64, torch.bfloat16, 227, 32),
        (12, 64, torch.bfloat16, 163, 32),
        (12, 64, torch.bfloat16, 99, 16),
        (12, 64, torch.float32, 227, 16),
        (12, 64, torch.float32, 163, None),
        (32, 64, torch.bfloat16, 227, 16),
        (4, 32, torch.float32, 99, 16),
        (33, 16, torch.bfloat16, 227, None),
        (32, 128, torch.bfloat16, 227, None),
    ],
)
def test_the_tile_is_chosen_by_what_the_card_has(
    heads: int, width: int, dtype: torch.dtype, kib: int, rows: int | None
):
    found = fused_kernel.tile(heads, width, 32, dtype, kib << 10)
    assert (found.rows if found else None) == rows
    assert fused_kernel.tile(heads, width, 129, dtype, kib << 10) is None


def test_a_shape_that_a_card_cannot_hold_is_computed_by_blocked_and_said():
    encoding, at = built("kerple_log", True, 32, 128, 8), torch.arange(20, device=DEVICE)
    with torch.no_grad(), taken() as found:
        q, k, v = inputs(1, 32, 20, 20, 128, torch.float32)
        context = attended(Fused, q, k, v, encoding, at, Mask())
        expected = Blocked.attend(q, k, v, encoding, at, Mask())
    assert torch.equal(context, expected)
    assert found.paths("fused") == "blocked"
    assert "32 heads of 128 in float32 do not fit into 227 KiB" in found.note
