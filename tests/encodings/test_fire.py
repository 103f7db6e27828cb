"""FIRE."""

from typing import Any

import pytest
import torch

from lpe_eval.model.encoding import Geometry
from lpe_eval.model.encodings.fire import Fire
from tests.support.golden_cases import Case, each
from tests.support.golden_outputs import check_all, geometry_of
from tests.support.official_parameters import build, fill, full_bias, geometry
from tests.support.random_weights import LENGTH, close, filled


@each("fire")
def test_fire_has_the_published_numbers(case: Case) -> None:
    train_length = int(case.inputs.get("noise_seq_length", 16))
    threshold: Any = "half_train_length" if "noise_seq_length" in case.inputs else float(case.params["init_L"])
    encoding = build(
        "fire",
        geometry_of(case, train_length=train_length),
        hidden=case.fields["mlp_width"],
        eps=case.fields["eps"],
        threshold=threshold,
        normaliser="query",
    )
    check_all(case, fill(encoding, case.params))


def test_fire_depends_on_the_distance_alone_up_to_its_threshold_and_not_beyond() -> None:
    fire = filled("fire", geometry(4), threshold=5.5)
    bias = full_bias(fire, LENGTH, LENGTH).detach()
    first_diagonal = bias.diagonal(offset=-1, dim1=-2, dim2=-1)
    # Queries 1 to 5 share the normaliser; from query 6 on it grows.
    assert close(first_diagonal[:, :5], first_diagonal[:, :1].expand(-1, 5))
    assert not bool((first_diagonal[:, 4:-1] == first_diagonal[:, 5:]).any())


def test_fire_computes_the_same_bias_by_distance_and_pair_by_pair() -> None:
    fire, at = filled("fire", geometry(4), threshold=10.5), torch.arange(16)
    # Up to query 10 by distance; a block that reaches query 11 pair by pair.
    short, long = fire.bias(at[:11], at[:11]), fire.bias(at[:12], at[:12])
    assert short is not None
    assert long is not None
    visible = torch.ones(11, 11, dtype=torch.bool).tril()
    assert close(short[:, visible], long[:, :11, :11][:, visible])


def test_bidirectional_fire_never_leaves_the_unit_interval_of_its_network() -> None:
    shape = geometry(1, causal=False)
    fire = build("fire", shape, threshold=3.0, hidden=1).double()
    with torch.no_grad():
        fire.first.weight.fill_(1.0)
        fire.first.bias.fill_(0.0)
        fire.second.weight.fill_(1.0)
        fire.second.bias.fill_(0.0)
    # The network is the identity, so the bias is the ratio itself.
    ratio = full_bias(fire, LENGTH, LENGTH).detach()
    assert 0.99 < float(ratio.max()) <= 1.0
    assert close(ratio, ratio.flip(-1, -2))
    by_query = build("fire", shape, threshold=3.0, hidden=1, normaliser="query").double()
    by_query.load_state_dict(fire.state_dict())
    assert float(full_bias(by_query, LENGTH, LENGTH).detach().max()) > 1.0


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


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_the_pieces_of_fire_are_its_network_wherever_its_knots_lie(activation):
    fire = Fire(Geometry(4, 8, 32, 64), Fire.Options(activation=activation))
    fire.initialise(torch.Generator().manual_seed(1))
    with torch.no_grad():
        # Knots inside and outside of [0, 1], rising and falling units, two equal knots and two constants.
        fire.first.weight[:24, 0] = torch.linspace(-2, 2, 24)
        fire.first.bias[:24] = -fire.first.weight[:24, 0] * torch.linspace(-0.5, 1.5, 24)
        fire.first.bias[5] = fire.first.bias[4] * fire.first.weight[5, 0] / fire.first.weight[4, 0]
        fire.first.weight[24:26] = 0
    ratio = fire.ratio_bias()
    assert ratio is not None
    at, pieces = torch.arange(700), ratio.pieces()
    r = ratio.numerator(torch.arange(700)[:, None] - at) / ratio.denominator(at, at)[:, None]
    piece = (r[..., None] >= pieces.knots).sum(-1)
    values = pieces.constant[:, piece] + pieces.slope[:, piece] * r
    torch.testing.assert_close(values.detach(), fire.bias(at, at).detach(), rtol=0, atol=1e-5)
