"""RoPE at other distances where a layer sees a part of the text, around other encodings than RoPE, and on a device."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lpe_eval.errors import SpecError
from lpe_eval.model.attention import choose
from lpe_eval.model.mask import Mask
from lpe_eval.model.positions import part, run_on
from lpe_eval.model.remap_options import RemapOptions
from lpe_eval.model.remaps import keys_within
from tests.support import remap_oracle
from tests.support.at_positions import initialised

T = 61
FORMS: list[dict[str, Any]] = [
    {"method": "self_extend", "group": 3, "window": 6},
    {"method": "rerope", "window": 5, "log_n": False},
    {"method": "dca", "chunk_size": 12, "local": 4},
]
PAST = torch.arange(T)[:, None] - torch.arange(T)


@pytest.mark.parametrize(
    ("base", "turning", "factor"),
    [
        ({"name": "rope"}, 4, lambda i: 1.0),
        ({"name": "p_rope", "p": 0.5}, 2, lambda i: 1.0),
        ({"name": "tempered", "floor": 4, "base": {"name": "rope"}}, 4, lambda i: max(1.0, math.log(i + 1, 4))),
    ],
    ids=["rope", "p_rope", "tempered(rope)"],
)
@pytest.mark.parametrize(
    ("mask", "hidden"),
    [(Mask(window=20), PAST >= 20), (Mask(chunk=17), torch.arange(T)[:, None] // 17 != torch.arange(T) // 17)],
    ids=["window", "chunk"],
)
@pytest.mark.parametrize("options", FORMS, ids=str)
def test_a_layer_that_sees_a_part_has_the_distances_of_the_whole_text(
    options: dict[str, Any], mask: Mask, hidden: Tensor, base: dict[str, Any], turning: int, factor: Any
) -> None:
    encoding, at = initialised("remap", **options, base=base), torch.arange(T)
    q, k, v = (torch.randn(1, 3, T, 8, generator=torch.Generator().manual_seed(each)) for each in range(3))
    inverse = 10000.0 ** (-torch.arange(4).double() / 4) * (torch.arange(4) < turning)
    factors = torch.tensor([factor(i) for i in range(T)])
    found = RemapOptions(**options).resolved(16, "here")
    distances = remap_oracle.table(T, found.method, dict(found.chosen))
    logits = remap_oracle.logits(q, k, inverse, distances, factors).masked_fill(hidden, -math.inf)
    wanted = remap_oracle.attended(logits, v)
    q, k = encoding.rotate(q, k, at)
    for name in ("auto", "dense", "checkpointed"):
        path = choose(name, encoding, torch.device("cpu"))[1]
        with torch.no_grad():
            got = path.attend(q[:, :, 9:], k, v, encoding, at, mask)
        torch.testing.assert_close(got.double(), wanted[:, :, 9:], rtol=2e-5, atol=2e-5)


def test_p_rope_of_which_nothing_turns_has_no_distances() -> None:
    with pytest.raises(SpecError, match="p_rope has none"):
        initialised("remap", base={"name": "p_rope", "p": 0.0})


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_keys_of_a_range_on_a_device_are_counted_on_the_host(options: dict[str, Any]) -> None:
    here, there = torch.arange(T), run_on(T, torch.device("meta"))
    for each in RemapOptions(**options).resolved(16, "here").distances.ranges:
        for rows, keys in ((slice(0, 5), slice(0, 5)), (slice(20, 31), slice(0, 40)), (slice(50, T), slice(33, T))):
            for backwards in (False, True):
                wanted, known = (keys_within(each, part(at, rows, backwards), part(at, keys)) for at in (here, there))
                assert wanted == known or wanted.start == wanted.stop == known.start == known.stop == 0
        assert keys_within(each, there + 0, there) == slice(0, T)
