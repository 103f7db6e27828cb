"""What the contract promises for every encoding, tried on each member that the registry lists."""

from typing import Any

import pytest
import torch

from lpe_eval.errors import LengthError
from lpe_eval.model.build import initialise
from lpe_eval.model.encoding import Encoding
from tests.support.encoding_forms import (
    BATCH,
    CPU,
    HEAD_WIDTH,
    TRAIN_LENGTH,
    both_directions,
    embeddings,
    every_spec,
    geometry,
    made,
    same,
    seeded,
    serves,
    step,
    visible_logits,
)
from tests.support.official_parameters import build


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
    features = encoding.features(x)
    assert (features is not None) == seams.features
    assert features is None or (features.shape[:3] == scores.queries.shape[:3] and features.dtype == torch.float64)
    assert (encoding.kept(scores.logits.logsumexp(-1)) is not None) == seams.keeps


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
    kept = encoding.kept(masked.logsumexp(-1))
    context = masked.softmax(-1) @ found.values * (1 if kept is None else kept[..., None])
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
