"""Sinusoidal positions."""

import math

import pytest
import torch

from lpe_eval.model.build import build_encodings
from lpe_eval.model.encoding import Geometry
from lpe_eval.model.encodings.sinusoidal import Sinusoidal
from lpe_eval.spec.encoding_spec import EncodingSpec
from tests.support.at_positions import CPU, T, initialised, same, seeded
from tests.support.che_golden import positional
from tests.support.golden_cases import Case, check, each
from tests.support.official_parameters import build, geometry

SINUSOIDAL = {
    "neox_T5_D8": {},
    "fairseq_T5_D8_pad1": {"form": "fairseq"},
    "fairseq_T5_D8_pad0": {"form": "fairseq", "offset": 1},
    "fairseq_padding_T5_D8": {"form": "fairseq"},
    "fairseq_odd_D9": {"form": "fairseq"},
    "deepmind_T5_D8": {},
    "chomsky_T5_D8": {"order": "descending"},
    "deepmind_two_sided_T5_D8": {},
}


@each("sinusoidal")
def test_sinusoids_are_those_of_released_code(case: Case) -> None:
    sinusoidal = build("sinusoidal", geometry(1, case.params["D"]), **SINUSOIDAL[case.id])
    assert isinstance(sinusoidal, Sinusoidal)
    if case.id == "fairseq_padding_T5_D8":
        # Padding gets nothing and is not counted; the encoding never sees padding, so only the tokens are given.
        tokens = torch.tensor([0, 2, 3, 4])
        embedding = torch.zeros(5, 8)
        embedding[tokens] = sinusoidal.table(torch.arange(4))
        check(case, "embedding", embedding)
    elif case.id == "deepmind_two_sided_T5_D8":
        check(case, "table", sinusoidal.table(torch.arange(-5, 5)))
    else:
        at = sinusoidal.positions(5, CPU, torch.Generator())
        check(case, next(iter(case.outputs)), sinusoidal.embed(torch.zeros(1, 5, case.params["D"]), at)[0])


@pytest.mark.parametrize(
    ("order", "key"), [("ascending", "sincos_randomized_repo"), ("descending", "sincos_chomsky_repo")]
)
def test_positions_are_those_of_both_official_repositories(order: str, key: str):
    spec = EncodingSpec.model_validate({"name": "sinusoidal", "order": order})
    [encoding] = build_encodings(spec, Geometry(2, 8, 16, 7, causal=False), 1)
    table = encoding.embed(torch.zeros(1, 7, 16), torch.arange(7))[0]
    torch.testing.assert_close(table, torch.tensor(positional()[key]), rtol=0, atol=1e-6)


def test_the_sinusoidal_layouts_hold_the_same_columns() -> None:
    concatenated, interleaved = initialised("sinusoidal"), initialised("sinusoidal", form="interleaved")
    assert isinstance(concatenated, Sinusoidal) and isinstance(interleaved, Sinusoidal)
    at = torch.arange(T)
    assert torch.equal(interleaved.table(at)[:, ::2], concatenated.table(at)[:, :12])
    assert torch.equal(interleaved.table(at)[:, 1::2], concatenated.table(at)[:, 12:])


def test_scaled_tokens_are_multiplied_by_the_root_of_the_width_and_positions_are_not() -> None:
    x, at = torch.randn(2, T, 24, generator=seeded()), torch.arange(T)
    plain, scaled = initialised("sinusoidal"), initialised("sinusoidal", scale_tokens=True)
    same(scaled.embed(x, at) - plain.embed(x, at), (math.sqrt(24) - 1) * x)


def test_counting_down_is_counting_up_read_backwards() -> None:
    down, up = initialised("sinusoidal", order="descending"), initialised("sinusoidal", offset=1)
    zeros, at = torch.zeros(1, T, 24), torch.arange(T)
    assert torch.equal(down.embed(zeros, at), up.embed(zeros, at).flip(1))
    assert up.prefix_stable and not down.prefix_stable
