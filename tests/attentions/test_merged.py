"""Attention over ranges of keys, merged by log-sum-exp, against the whole matrix: `remap` on the CPU."""

from typing import Any

import pytest
import torch

from lpe_eval.model import parts
from lpe_eval.model.attention import choose
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.attentions.merged import Merged
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask
from lpe_eval.model.merged_ranges import attend_in_ranges, fused_piece, plain_piece, repeated
from lpe_eval.model.remap_options import RemapOptions
from lpe_eval.model.rotary import Rotation, inverse_frequencies
from tests.support import remap_oracle
from tests.support.at_positions import CPU, initialised
from tests.support.attending import scored

FORMS: list[dict[str, Any]] = [
    {"method": "self_extend", "group": 3, "window": 20},
    {"method": "self_extend", "group": 4, "window": 17, "division": "real"},
    {"method": "rerope", "window": 16},
    {"method": "leaky_rerope", "window": 37, "factor": 4.0},
    {"method": "dca", "chunk_size": 24, "local": 4},
    {"method": "dca", "chunk_size": 40, "local": 3, "length_factor": "vllm"},
]
every_form = pytest.mark.parametrize("options", FORMS, ids=str)
ROWS = [(130, 130), (31, 130), (1, 130), (80, 80), (16, 16), (1, 1)]


def remap(options: dict[str, Any]) -> Encoding:
    return initialised("remap", **options, base={"name": "rope"})


@every_form
@pytest.mark.parametrize("block", [1, 5, 16, 256])
def test_merged_ranges_are_the_whole_matrix(options: dict[str, Any], block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "_ROWS", block)
    encoding = remap(options)
    assert choose("auto", encoding, CPU)[0] == "merged"
    for rows, length in ROWS:
        wanted = scored(Dense, encoding, rows, length, Mask(), gradients=True)
        torch.testing.assert_close(scored(Merged, encoding, rows, length, Mask()), wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("options", [{"method": "rerope", "window": 5}, {"method": "dca", "chunk_size": 9}], ids=str)
def test_ranges_of_a_few_tokens_are_left_to_blocks_of_rows(options: dict[str, Any]):
    encoding = remap(options)
    for rows, length in ROWS:
        wanted = scored(Dense, encoding, rows, length, Mask(), gradients=True)
        torch.testing.assert_close(scored(Merged, encoding, rows, length, Mask()), wanted, rtol=2e-5, atol=2e-5)


def test_positions_with_gaps_or_another_begin_are_served_all_the_same():
    encoding = remap(FORMS[0])
    for at in (torch.arange(41) ** 2, torch.arange(41) + 7):
        q, k, v = (torch.randn(2, 3, 41, 8, generator=torch.Generator().manual_seed(each)) for each in range(3))
        q, k = encoding.rotate(q, k, at)
        got, wanted = (path.attend(q[:, :, 4:], k, v, encoding, at, Mask()) for path in (Merged, Dense))
        torch.testing.assert_close(got, wanted, rtol=2e-5, atol=2e-5)


@every_form
@pytest.mark.parametrize("cap", [None, 2.0])
def test_pieces_without_a_kernel_soft_caps_grouped_keys_and_other_widths_of_values(options: dict[str, Any], cap):
    """The pieces in float32 give the formula in float64, pair by pair."""
    found = RemapOptions(**options).resolved(16, "here")
    length, heads, draw = 75, 4, torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, n, length, d, generator=draw) for n, d in ((heads, 6), (2, 6), (2, 5)))
    inverse, at = inverse_frequencies(6, 100.0), torch.arange(length)
    turned_q, turned_k = (remap_oracle.rotated(each.double(), at[:, None] * inverse).float() for each in (q, k))
    got = attend_in_ranges(
        turned_q,
        repeated(turned_k, heads),
        repeated(v, heads),
        found.distances,
        Rotation(inverse, "half_split", "float64"),
        8,
        plain_piece(0.7, cap),
    )
    distances = remap_oracle.table(length, found.method, dict(found.chosen))
    scores = remap_oracle.logits(q, k.repeat_interleave(2, 1), inverse, distances, torch.ones(length), 0.7)
    scores = scores if cap is None else cap * (scores / cap).tanh()
    wanted = remap_oracle.attended(scores, v.repeat_interleave(2, 1))
    torch.testing.assert_close(got.double(), wanted, rtol=2e-5, atol=2e-5)


def test_the_kernel_tells_the_sum_that_it_divided_by():
    q, k, v = (torch.randn(1, 2, 9, 8, generator=torch.Generator().manual_seed(each)) for each in range(3))
    fused = fused_piece(0.3)
    assert fused is not None
    for causal in (True, False):
        for found, wanted in zip(fused(q, k, v, causal), plain_piece(0.3)(q, k, v, causal), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_piece_of_sixteen_bits_has_logits_in_float32():
    q, k, v = (torch.randn(1, 2, 9, 8, generator=torch.Generator().manual_seed(each)).bfloat16() for each in range(3))
    for piece in (plain_piece(5.0), fused_piece(5.0)):
        assert piece is not None
        wanted = (5.0 * q.double() @ k.double().mT).logsumexp(-1)
        torch.testing.assert_close(piece(q, k, v, False)[1].double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@every_form
def test_a_long_text_of_full_blocks_is_that_of_blocks_of_rows(options: dict[str, Any]):
    sizes = {"window": 300} if "window" in options else {"chunk_size": 500, "local": 90}
    encoding = remap({**options, **sizes})
    for rows in (1511, 400):
        wanted = scored(Blocked, encoding, rows, 1511, Mask())
        torch.testing.assert_close(scored(Merged, encoding, rows, 1511, Mask()), wanted, rtol=2e-5, atol=2e-5)
