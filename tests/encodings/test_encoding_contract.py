"""What the contract promises for every encoding, tried on each member that the registry lists."""

import re
import sys
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from lpe_eval.errors import LengthError, SpecError, UnknownName
from lpe_eval.model.build import initialise
from lpe_eval.model.encoding import Encoding, EncodingWrapper, Geometry, Scores
from lpe_eval.registry import ENCODINGS
from tests.support.official_parameters import build
from tests.support.spelling import written

BATCH, HEADS, HEAD_WIDTH, TRAIN_LENGTH = 2, 3, 4, 7
CPU = torch.device("cpu")
BASES = ("alibi", "none", "rope", "kerple_log")
NAMES = ENCODINGS.names()
WRAPPERS = [name for name in NAMES if issubclass(ENCODINGS.load(name), EncodingWrapper)]
PLAIN = [name for name in NAMES if name not in WRAPPERS]
VARIANTS: list[dict[str, Any]] = [
    {"name": "alibi", "form": "key"},
    {"name": "alibi", "two_sided": "che"},
    {"name": "kerple_log", "form": "three_parameter"},
    {"name": "kerple_log", "form": "nemo"},
    {"name": "kerple_log", "distance_dtype": "bfloat16"},
    {"name": "kerple_power", "form": "weight"},
    {"name": "kerple_power", "form": "bias_and_weight"},
    {"name": "kerple_power", "form": "original"},
    {"name": "mep", "kernels": ["gaussian", "exp", "t5", "kerple_log"]},
    {"name": "mep", "kernels": ["exp", ["exp_half", ["kerple_log", "gaussian"]]], "numerics": "as_published"},
    {"name": "fire", "future": "zero", "normaliser": "query", "threshold": 3.0},
    {"name": "cope", "query": "scaled", "npos_max": 3},
    {"name": "dape", "residual": False, "base": {"name": "alibi"}},
    {"name": "dape", "base": {"name": "cope"}},
    {"name": "dape", "base": {"name": "kerple_power", "form": "bias_and_weight"}},
    {"name": "dape", "base": {"name": "dape", "base": {"name": "fire"}}},
    {"name": "dape_v2", "kernel": 5, "base": {"name": "fire", "threshold": 8.0}},
    {"name": "dape_v2", "kernel": 1, "base": {"name": "alibi"}},
    {"name": "dape_v2", "kernel": 4, "padding": "left", "base": {"name": "alibi"}},
    {"name": "dape_v2", "base": {"name": "dape_v2", "kernel": 5, "base": {"name": "cope"}}},
]
SPECS: list[dict[str, Any]] = [
    *({"name": name} for name in PLAIN),
    *({"name": name, "base": {"name": base}} for name in WRAPPERS for base in BASES),
    *VARIANTS,
]


every_spec = pytest.mark.parametrize("spec", SPECS, ids=written)
every_name = pytest.mark.parametrize("name", NAMES)
both_directions = pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def geometry(causal: bool = True, heads: int = HEADS) -> Geometry:
    return Geometry(heads, HEAD_WIDTH, heads * HEAD_WIDTH, TRAIN_LENGTH, causal)


def made(spec: dict[str, Any], causal: bool = True, heads: int = HEADS) -> Encoding:
    """The encoding in float64, with parameters drawn so that none of them is zero."""
    encoding = build(spec, geometry(causal, heads)).double()
    with torch.no_grad():
        for parameter in encoding.parameters():
            low = 0.05 if parameter.ndim else 0.5
            parameter.uniform_(low, 0.9, generator=seeded(parameter.numel()))
            # Mixed signs, but not for scalars and per-head parameters, some of which are clamped from below.
            if parameter.ndim > 1:
                parameter.sub_(0.5)
    return encoding


def serves(spec: dict[str, Any], causal: bool) -> bool:
    return causal or spec.get("form") != "key"


class Step(NamedTuple):
    """One attention step up to the softmax, as an attention path would make it from token embeddings."""

    scores: Scores
    logits: Tensor
    values: Tensor


def embeddings(length: int, heads: int = HEADS, seed: int = 1) -> Tensor:
    return torch.randn(BATCH, length, heads * HEAD_WIDTH, generator=seeded(seed), dtype=torch.float64)


def step(encoding: Encoding, x: Tensor, at: Tensor | None = None, rows: slice | None = None) -> Step:
    """The dense reference: the whole matrix, or a block of rows with the keys a path would keep."""
    shape, length = encoding.geometry, x.shape[1]
    at = encoding.positions(length, CPU, seeded(5)) if at is None else at
    width = shape.heads * shape.head_width
    mixing = torch.randn(3, width, width, generator=seeded(2), dtype=torch.float64).to(x.dtype)
    q, k, v = (
        (encoding.embed(x, at) @ each).unflatten(-1, (shape.heads, shape.head_width)).transpose(1, 2) for each in mixing
    )
    q, k = encoding.rotate(q, k, at)
    rows = slice(0, length) if rows is None else rows
    end = min(length, rows.stop + encoding.lookahead) if shape.causal else length
    index = torch.arange(length)
    visible = torch.ones(rows.stop - rows.start, end, dtype=torch.bool)
    if shape.causal:
        visible = index[None, :end] <= index[rows, None]
    q, k = q[:, :, rows], k[:, :, :end]
    bias = encoding.bias(at[rows], at[:end])
    scores = Scores(q @ k.mT / shape.head_width**0.5, bias, q, k, visible, at[rows], at[:end])
    return Step(scores, encoding.adjust(scores), v)


def visible_logits(found: Step) -> Tensor:
    return found.logits.detach().masked_fill(~found.scores.visible, 0.0)


def same(left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, rtol=1e-9, atol=1e-9)


@every_spec
@both_directions
@pytest.mark.parametrize("heads", [5, 12])
def test_every_seam_keeps_its_axes(spec: dict[str, Any], causal: bool, heads: int) -> None:
    if not serves(spec, causal):
        return
    encoding = made(spec, causal, heads)
    x = embeddings(TRAIN_LENGTH, heads)
    at = encoding.positions(TRAIN_LENGTH, CPU, seeded())
    assert at.shape == (TRAIN_LENGTH,)
    assert bool((at[1:] > at[:-1]).all())
    assert encoding.embed(x, at).shape == x.shape
    q = torch.randn(BATCH, heads, TRAIN_LENGTH, HEAD_WIDTH, generator=seeded(), dtype=torch.float64)
    assert [each.shape for each in encoding.rotate(q, q, at)] == [q.shape, q.shape]
    found = step(encoding, x, at, slice(2, 5))
    assert found.logits.shape == found.scores.logits.shape
    assert found.scores.bias is None or found.scores.bias.shape == (heads, *found.scores.visible.shape)


@every_spec
@both_directions
def test_a_block_of_rows_scores_as_those_rows_of_the_whole_matrix(spec: dict[str, Any], causal: bool) -> None:
    if not serves(spec, causal):
        return
    encoding, x = made(spec, causal), embeddings(TRAIN_LENGTH)
    at = encoding.positions(TRAIN_LENGTH, CPU, seeded())
    whole = step(encoding, x, at)
    for rows in (slice(0, 1), slice(2, 5), slice(4, 7), slice(6, 7)):
        block = step(encoding, x, at, rows)
        columns = block.logits.shape[-1]
        assert same(visible_logits(block), visible_logits(whole)[:, :, rows, :columns])
        if block.scores.bias is not None:
            assert whole.scores.bias is not None
            visible = block.scores.visible
            assert same(block.scores.bias[:, visible], whole.scores.bias[:, rows, :columns][:, visible])


@every_spec
def test_what_comes_later_does_not_change_what_a_causal_model_sees(spec: dict[str, Any]) -> None:
    encoding, x = made(spec), embeddings(TRAIN_LENGTH)
    at = encoding.positions(TRAIN_LENGTH, CPU, seeded())
    before = visible_logits(step(encoding, x, at))
    for last in range(TRAIN_LENGTH - 1):
        changed = x.clone()
        changed[:, last + 1 :] = 3 * embeddings(TRAIN_LENGTH, seed=9)[:, last + 1 :]
        after = visible_logits(step(encoding, changed, at))
        assert same(after[:, :, : last + 1], before[:, :, : last + 1])
        assert not same(after, before)


def prefix_gap(encoding: Encoding, length: int) -> float:
    x = embeddings(TRAIN_LENGTH)
    whole, alone = visible_logits(step(encoding, x)), visible_logits(step(encoding, x[:, :length]))
    return float((whole[:, :, :length, :length] - alone).abs().max())


@every_spec
def test_a_prefix_scores_as_it_does_alone_unless_the_class_says_otherwise(spec: dict[str, Any]) -> None:
    encoding = made(spec)
    gaps = [prefix_gap(encoding, length) for length in range(1, TRAIN_LENGTH)]
    if encoding.prefix_stable:
        assert max(gaps) < 1e-5  # xpos centres a float32 table by the length
    elif encoding.embeds or any(encoding.capabilities):
        assert max(gaps) > 1e-4


@every_spec
@both_directions
def test_beyond_the_train_length_it_scores_or_says_why_not(spec: dict[str, Any], causal: bool) -> None:
    if not serves(spec, causal):
        return
    encoding, length = made(spec, causal), 5 * TRAIN_LENGTH
    if encoding.longest_length is not None and encoding.longest_length < length:
        with pytest.raises(LengthError, match=str(length)):
            encoding.positions(length, CPU, seeded())
        return
    found = step(encoding, embeddings(length))
    assert bool(visible_logits(found).isfinite().all())


@every_spec
@both_directions
def test_seams_that_are_not_named_in_the_capabilities_do_nothing(spec: dict[str, Any], causal: bool) -> None:
    if not serves(spec, causal):
        return
    encoding, x = made(spec, causal), embeddings(TRAIN_LENGTH)
    at = encoding.positions(TRAIN_LENGTH, CPU, seeded())
    seams, scores = encoding.capabilities, step(encoding, x, at).scores
    q, k = scores.queries, scores.keys
    if not seams.rotates:
        assert all(turned is given for turned, given in zip(encoding.rotate(q, k, at), (q, k), strict=True))
    assert (scores.bias is not None) == (seams.offset_bias or seams.general_bias)
    if seams.offset_bias and not seams.general_bias:
        offset = at[:, None] - at[None, :]
        by_offset = encoding.bias_by_offset(offset.flatten())
        assert by_offset is not None
        assert scores.bias is not None
        assert same(by_offset.unflatten(-1, offset.shape), scores.bias)
    if not seams.adjusts:
        plain = scores.logits if scores.bias is None else scores.logits + scores.bias
        assert torch.equal(encoding.adjust(scores), plain)
    if not encoding.embeds:
        assert encoding.embed(x, at) is x


@every_spec
@both_directions
def test_adjusting_leaves_what_it_was_given_alone(spec: dict[str, Any], causal: bool) -> None:
    if not serves(spec, causal):
        return
    encoding = made(spec, causal)
    scores = step(encoding, embeddings(TRAIN_LENGTH)).scores
    before = [None if each is None else each.clone() for each in scores]
    encoding.adjust(scores)
    for kept, given in zip(before, scores, strict=True):
        assert (kept is None) == (given is None)
        assert kept is None or given is None or torch.equal(kept, given)


@every_spec
@both_directions
def test_gradients_reach_every_parameter(spec: dict[str, Any], causal: bool) -> None:
    if not serves(spec, causal):
        return
    encoding = made(spec, causal)
    if not list(encoding.parameters()):
        return
    found = step(encoding, embeddings(TRAIN_LENGTH))
    masked = found.logits.masked_fill(~found.scores.visible, float("-inf"))
    context = masked.softmax(-1) @ found.values
    weights = torch.randn(context.shape, generator=seeded(7), dtype=torch.float64)
    (context * weights).sum().backward()
    for name, parameter in encoding.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


@every_spec
@both_directions
def test_it_computes_in_bfloat16(spec: dict[str, Any], causal: bool) -> None:
    if not serves(spec, causal):
        return
    encoding = made(spec, causal).bfloat16()
    found = step(encoding, embeddings(TRAIN_LENGTH).bfloat16())
    assert bool(visible_logits(found).isfinite().all())


@every_spec
def test_the_generator_alone_decides_the_initial_parameters(spec: dict[str, Any]) -> None:
    first = build(spec, geometry())
    torch.rand(3)
    second = build(spec, geometry())
    before = torch.get_rng_state()
    initialise([first], seeded(11))
    assert torch.equal(torch.get_rng_state(), before)
    initialise([second], seeded(11))
    drawn = dict(second.named_parameters())
    assert all(torch.equal(value, drawn[name]) for name, value in first.named_parameters())
    assert all(bool(value.isfinite().all()) for value in drawn.values())
    initialise([second], seeded(12))
    random = [name for name, value in first.named_parameters() if bool((value != value.flatten()[0]).any())]
    if spec.get("form") != "nemo":  # starts at the ALiBi slopes
        assert all(not torch.equal(dict(first.named_parameters())[name], drawn[name]) for name in random)


@every_name
def test_it_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    member = ENCODINGS.load(name)
    described = sys.modules[member.__module__].__doc__
    assert member.title
    assert member.paper
    assert member.__doc__
    assert described
    assert member.bidirectional in ("published", "ours")
    assert isinstance(member.per_layer, bool)
    for number in re.findall(r"\d{4}\.\d{5}", member.paper):
        assert number in described
    assert member.paper.split()[0].strip(",") in described


def with_base(name: str) -> dict[str, Any]:
    return {"name": name, "base": {"name": "alibi"}} if name in WRAPPERS else {"name": name}


@every_name
def test_a_misspelt_option_is_answered_with_the_right_one(name: str) -> None:
    with pytest.raises(UnknownName, match=r"per_layr.*did you mean.*per_layer"):
        build({**with_base(name), "per_layr": True}, geometry())


@every_name
def test_a_wrong_value_of_an_option_is_a_spec_error_that_names_it(name: str) -> None:
    with pytest.raises(SpecError, match=r"per_layer.*perhaps"):
        build({**with_base(name), "per_layer": "perhaps"}, geometry())


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_without_a_base_says_how_to_write_one(name: str) -> None:
    with pytest.raises(SpecError, match=rf"{name}\(alibi\)"):
        build(name, geometry())


@pytest.mark.parametrize("name", PLAIN)
def test_an_encoding_that_wraps_nothing_refuses_a_base(name: str) -> None:
    with pytest.raises(SpecError, match="wraps nothing"):
        build({"name": name, "base": {"name": "alibi"}}, geometry())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "t5", "buckets": 7}, "buckets"),
        ({"name": "t5", "buckets": 32, "max_distance": 16}, "max_distance"),
        ({"name": "sandwich", "dimension": 5}, "odd width"),
        ({"name": "mep", "kernels": ["tanh"]}, "12 heads"),
        ({"name": "mep", "kernels": ["polynomial"]}, "12 heads"),
        ({"name": "mep", "kernels": []}, "kernels"),
        ({"name": "mep", "kernels": ["exp", []]}, "kernels"),
        ({"name": "mep", "kernels": ["expo"]}, "kernels"),
        ({"name": "dape_v2", "kernel": 4, "base": {"name": "alibi"}}, "odd"),
        ({"name": "fire", "threshold": -1}, "threshold"),
        ({"name": "kerple_log", "form": "power"}, "form"),
    ],
    ids=lambda value: value if isinstance(value, str) else written(value),
)
def test_options_that_cannot_work_are_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(spec, geometry())


@pytest.mark.parametrize("name", ["rope", "xpos", "sinusoidal", "transformer_xl"])
def test_an_odd_width_is_refused_where_channels_are_paired(name: str) -> None:
    odd = Geometry(heads=3, head_width=5, width=15, train_length=16)
    with pytest.raises(SpecError):
        build(name, odd)
