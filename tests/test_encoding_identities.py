"""Encodings that must agree with one another, each pair computed by two different routes."""

from typing import Any

import pytest
import torch
from official_parameters import build, full_bias, geometry, scores_of
from torch import Tensor

from lpe_eval.model.build import initialise
from lpe_eval.model.encoding import Encoding, Geometry, Scores
from lpe_eval.model.encodings.alibi import alibi_slopes

LENGTH = 11
BASES: list[Any] = [
    "none",
    "alibi",
    {"name": "alibi", "form": "key"},
    "rope",
    "kerple_log",
    {"name": "kerple_power", "form": "bias_and_weight"},
    "t5",
    "sandwich",
    "mep",
    {"name": "fire", "threshold": 4.0},
    "cope",
    "transformer_xl",
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(spec: Any, shape: Geometry, **options: Any) -> Encoding:
    encoding = build(spec, shape, **options)
    initialise([encoding], seeded(1))
    with torch.no_grad():
        for parameter in encoding.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.3, generator=seeded(parameter.numel()))
    return encoding.double()


def scored(encoding: Encoding, length: int = LENGTH) -> Scores:
    shape = encoding.geometry
    q, k = torch.randn(2, 2, shape.heads, length, shape.head_width, generator=seeded(2), dtype=torch.float64)
    q, k = encoding.rotate(q, k, torch.arange(length))
    return scores_of(encoding, q @ k.mT / shape.head_width**0.5, q, k)


def logits(encoding: Encoding, length: int = LENGTH) -> Tensor:
    scores = scored(encoding, length)
    return encoding.adjust(scores).detach().masked_fill(~scores.visible, 0.0)


def probabilities(encoding: Encoding) -> Tensor:
    scores = scored(encoding)
    return encoding.adjust(scores).detach().masked_fill(~scores.visible, float("-inf")).softmax(-1)


def close(left: Tensor, right: Tensor, tolerance: float = 1e-9) -> bool:
    return torch.allclose(left, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [3, 8, 12])
def test_the_mean_of_one_kernel_is_that_kernels_own_encoding(causal: bool, heads: int) -> None:
    shape = geometry(heads, causal=causal)
    for kernel, encoding in {"exp": "alibi", "kerple_log": "kerple_log", "t5": "t5"}.items():
        alone, mean = filled(encoding, shape), filled("mep", shape, kernels=[kernel])
        if kernel != "exp":
            mean.learned[kernel].load_state_dict(alone.state_dict())
        assert close(full_bias(mean, LENGTH, LENGTH), full_bias(alone, LENGTH, LENGTH))


def test_the_kernels_of_a_mean_have_the_formulas_they_are_named_after() -> None:
    shape, distance = geometry(12), torch.arange(20, dtype=torch.float64)
    slopes = alibi_slopes(12).double()[:, None]
    formulas = {
        "exp": torch.exp(-slopes * distance),
        "exp_half": torch.exp(-slopes * distance / 2),
        "gaussian": torch.exp(-slopes * distance**2),
    }
    for kernel, values in formulas.items():
        for numerics in ("stable", "as_published"):
            bias = filled("mep", shape, kernels=[kernel], numerics=numerics).bias_by_offset(torch.arange(20))
            assert bias is not None
            assert close(bias.exp(), values, 1e-6)
    for numerics in ("stable", "as_published"):
        bias = filled("mep", shape, kernels=["polynomial", "tanh"], numerics=numerics).bias_by_offset(torch.arange(20))
        assert bias is not None
        first_head = ((1 + 0.01 * distance) ** -0.6914 + 1e-6 + 1 + torch.tanh(-0.25737 * distance)) / 2
        assert close(bias[0].exp(), first_head, 1e-6)


def test_stable_numerics_and_published_numerics_give_the_same_bias_where_nothing_underflows() -> None:
    kernels = ["exp", ["gaussian", ["kerple_log", "exp_half"]], "t5"]
    stable = filled("mep", geometry(6), kernels=kernels)
    published = filled("mep", geometry(6), kernels=kernels, numerics="as_published")
    published.load_state_dict(stable.state_dict())
    assert close(full_bias(stable, 200, 200), full_bias(published, 200, 200), 1e-6)


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("wrapper", ["dape", "dape_v2"])
@pytest.mark.parametrize("causal", [True, False])
def test_dape_whose_last_layer_is_zero_is_what_it_wraps(base: Any, wrapper: str, causal: bool) -> None:
    shape = geometry(6, causal=causal)
    spec = {"name": base} if isinstance(base, str) else base
    if spec.get("form") == "key" and not causal:
        return
    alone, wrapped = filled(spec, shape), filled(wrapper, shape, base=spec)
    wrapped.inner.load_state_dict(alone.state_dict())
    assert not close(logits(wrapped), logits(alone))
    with torch.no_grad():
        wrapped.second.weight.zero_()
        wrapped.second.bias.zero_()
    assert close(logits(wrapped), logits(alone))


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("padding", ["symmetric", "left"])
def test_dape_v2_with_a_kernel_of_one_is_dape(base: Any, padding: str) -> None:
    shape = geometry(5)
    spec = {"name": base} if isinstance(base, str) else base
    first = filled("dape", shape, base=spec, hidden=7)
    second = filled("dape_v2", shape, base=spec, hidden=7, kernel=1, padding=padding)
    own = second.state_dict()
    second.load_state_dict({name: value.reshape(own[name].shape) for name, value in first.state_dict().items()})
    assert close(logits(second), logits(first))
    assert second.lookahead == first.lookahead == 0


def test_dape_is_the_network_of_the_paper_applied_to_each_pair_of_tokens() -> None:
    dape = filled("dape", geometry(5), base={"name": "kerple_log"}, hidden=7)
    scores = scored(dape)
    bias = scores.bias
    assert bias is not None
    got = dape.adjust(scores)
    for row, column in [(0, 0), (4, 1), (10, 10), (10, 0)]:
        pair = torch.cat([scores.logits[:, :, row, column], bias[None, :, row, column].expand(2, -1)], dim=1)
        network = dape.second(torch.nn.functional.leaky_relu(dape.first(pair)))
        assert close(got[:, :, row, column], scores.logits[:, :, row, column] + bias[:, row, column] + network)


def test_without_its_residual_dape_does_not_add_the_bias_again() -> None:
    spec = {"base": {"name": "alibi"}}
    for wrapper in ("dape", "dape_v2"):
        whole, bare = filled(wrapper, geometry(5), **spec), filled(wrapper, geometry(5), residual=False, **spec)
        bias = full_bias(whole, LENGTH, LENGTH).tril()
        assert close(logits(whole) - bias, logits(bare))


def test_dape_v2_depends_on_whether_text_follows_and_not_on_which_text() -> None:
    dape = filled("dape_v2", geometry(5), base={"name": "alibi"}, kernel=5)
    whole, alone = logits(dape, LENGTH)[:, :, :8, :8], logits(dape, 8)
    # Only the last kernel // 2 = 2 rows can tell.
    changed = [row for row in range(8) if not close(logits_of_prefix(dape, 8)[:, :, row], whole[:, :, row])]
    assert changed == [6, 7]
    assert alone.shape == whole.shape
    left = filled("dape_v2", geometry(5), base={"name": "alibi"}, kernel=5, padding="left")
    assert left.prefix_stable
    assert close(logits_of_prefix(left, 8), logits(left, LENGTH)[:, :, :8, :8])


def logits_of_prefix(encoding: Encoding, length: int) -> Tensor:
    whole = scored(encoding)
    bias = None if whole.bias is None else whole.bias[:, :length, :length]
    part = Scores(
        whole.logits[:, :, :length, :length],
        bias,
        whole.queries[:, :, :length],
        whole.keys[:, :, :length],
        whole.visible[:length, :length],
        whole.q_at[:length],
        whole.k_at[:length],
    )
    return encoding.adjust(part).detach().masked_fill(~part.visible, 0.0)


@pytest.mark.parametrize("heads", [1, 2, 4, 6, 8, 12])
def test_kerple_power_with_alibis_slopes_is_alibi_unless_a_slope_is_below_the_clamp(heads: int) -> None:
    shape, slopes = geometry(heads), alibi_slopes(heads)
    power = build("kerple_power", shape)
    with torch.no_grad():
        power.bias_p.fill_(1.0)
        power.bias_a.copy_(slopes)
    original, alibi = build("kerple_power", shape, form="original"), build("alibi", shape)
    bias = full_bias(alibi, LENGTH, LENGTH)
    for encoding in (power, original):
        agree = (full_bias(encoding, LENGTH, LENGTH).detach() - bias).abs().amax((1, 2)) <= 1e-6
        assert agree.tolist() == (slopes >= 0.01).tolist()
    assert int((slopes < 0.01).sum()) == {1: 1, 2: 1, 4: 1, 6: 1, 8: 2, 12: 2}[heads]


@pytest.mark.parametrize("causal", [True, False])
def test_cope_that_has_learned_nothing_is_no_encoding(causal: bool) -> None:
    shape = geometry(5, causal=causal)
    cope = build("cope", shape).double()
    initialise([cope], seeded())
    assert torch.equal(logits(cope), logits(build("none", shape)))


def test_cope_counts_keys_back_from_the_query_when_all_gates_are_open() -> None:
    cope = filled("cope", geometry(2, head_width=4), npos_max=4)
    at, q = torch.arange(6), torch.randn(1, 2, 6, 4, generator=seeded(), dtype=torch.float64)
    for causal in (True, False):
        cope.geometry = geometry(2, head_width=4, causal=causal)
        visible = torch.ones(6, 6, dtype=torch.bool)
        visible = visible.tril() if causal else visible
        open_gates = torch.full((1, 2, 6, 6), 40.0, dtype=torch.float64)
        got = cope.adjust(Scores(open_gates, None, q, q, visible, at, at)) - 40
        count = ((at[:, None] - at).abs() + 1).clamp(max=3)
        wanted = torch.einsum("bhqd,dqk->bhqk", q, cope.pos_emb[:, count])
        assert close(got[..., visible], wanted[..., visible])


def test_cope_stops_counting_only_where_a_count_cannot_change_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that is soon at the last position, one that lands on it at the end of a piece, one that never gets there,
    one with a row that is late, and one that begins to count far from the query."""
    monkeypatch.setattr("lpe_eval.model.encodings.cope._KEYS_AT_ONCE", 8)
    cope, length, at = filled("cope", geometry(5, head_width=4), npos_max=9), 70, torch.arange(70)
    gates = torch.full((1, 5, length, length), 40.0, dtype=torch.float64)
    gates[:, 1], gates[:, 2], gates[:, 3, 40], gates[:, 4, :, 20:] = 50.0, -8.0, -2.0, -800.0
    q = torch.randn(1, 5, length, 4, generator=seeded(), dtype=torch.float64)
    scores = Scores(gates, None, q, q, torch.ones(length, length, dtype=torch.bool).tril(), at, at)
    wanted = cope.adjust(scores).detach()
    with torch.no_grad():
        got = cope.adjust(scores)
    assert close(got[..., scores.visible], wanted[..., scores.visible])


def test_the_key_form_of_alibi_is_alibi_after_the_softmax() -> None:
    shape = geometry(12)
    by_key, by_distance = build("alibi", shape, form="key").double(), build("alibi", shape).double()
    assert not close(logits(by_key), logits(by_distance))
    assert close(probabilities(by_key), probabilities(by_distance))


def test_two_sided_alibi_of_the_chomsky_code_adds_half_a_slope_to_the_past_alone() -> None:
    shape = geometry(6, causal=False)
    symmetric, che = build("alibi", shape), build("alibi", shape, two_sided="che")
    past = torch.ones(LENGTH, LENGTH).tril(-1)
    shift = full_bias(che, LENGTH, LENGTH) - full_bias(symmetric, LENGTH, LENGTH)
    assert close(shift, 0.5 * alibi_slopes(6)[:, None, None] * past, 1e-6)


@pytest.mark.parametrize(
    "spec",
    [{"name": "kerple_log"}, {"name": "kerple_log", "form": "three_parameter"}, {"name": "kerple_power"}],
    ids=str,
)
def test_both_directions_of_kerple_are_one_another_mirrored(spec: dict[str, Any]) -> None:
    both = full_bias(filled(spec, geometry(4, causal=False)), LENGTH, LENGTH)
    past = full_bias(filled(spec, geometry(4)), LENGTH, LENGTH).tril()
    assert close(both, both.mT)
    assert close(both.tril(), past)


def test_three_parameter_kerple_with_exponents_of_one_is_kerple() -> None:
    plain = filled("kerple_log", geometry(4))
    three = filled("kerple_log", geometry(4), form="three_parameter")
    three.load_state_dict({**plain.state_dict(), "exponent": torch.ones(4)})
    assert close(full_bias(three, LENGTH, LENGTH), full_bias(plain, LENGTH, LENGTH))


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
