"""What position adds to the logits of a last query, against formulas and against dense passes written from weights."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lpe_eval.errors import CheckpointError
from lpe_eval.model.language_model import LastQuery
from lpe_eval.model.last_query import reading, refuse_unreadable
from lpe_eval.model.rope_scalings import Yarn
from lpe_eval.model.transformer import Layer, Transformer
from lpe_eval.spec.model_spec import ModelSpec
from tests.support.encoding_forms import SPECS
from tests.support.spelling import written

SHAPE: dict[str, Any] = {"width": 24, "layers": 2, "heads": 3, "mlp_width": 32, "train_length": 16, "vocab_size": 50}
LENGTH, HEADS, WIDTH = 41, 3, 8
TEXT = torch.randint(50, (1, LENGTH), generator=torch.Generator().manual_seed(3))
Logits = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""logits(layer, input of attention, queries, keys): those of all pairs [h, t, t], in float64."""


def model(encoding: Any, **changes: Any) -> Transformer:
    """With weights far from zero, in the encoding too."""
    made = Transformer(ModelSpec.model_validate({**SHAPE, "encoding": encoding, **changes})).eval()
    made.initialise(torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for each in made.parameters():
            each.add_(0.15 * torch.randn(each.shape, generator=draw))
    return made


def taken(made: Transformer, seed: int = 0) -> list[LastQuery]:
    found: list[LastQuery] = []
    refuse_unreadable(made.layer_encodings, "here")
    with torch.no_grad(), reading(made, found.append):
        made(TEXT, torch.Generator().manual_seed(seed), 1)
    assert [each.layer for each in found] == list(range(len(made.layers)))
    return found


@torch.no_grad()
def densely(made: Transformer, logits: Logits) -> list[tuple[Tensor, Tensor]]:
    """Content and logits [h, t] of the last query in each layer, from a pass over all pairs in float64."""
    made = made.double()
    x, future, found = made.embedding(TEXT)[0], torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1), []
    for number, layer in enumerate(made.layers):
        assert isinstance(layer, Layer)
        h = layer.attention_norm(x)
        q, k, v = layer.query_key_value(h).view(LENGTH, 3, HEADS, WIDTH).permute(1, 2, 0, 3)
        total = logits(number, h, q, k)
        found.append((torch.einsum("hd,hkd->hk", q[:, -1], k) / math.sqrt(WIDTH), total[:, -1]))
        context = total.masked_fill(future, -math.inf).softmax(-1) @ v
        x = x + layer.attention_out(context.transpose(0, 1).reshape(LENGTH, -1))
        x = x + layer.mlp_out(torch.nn.functional.gelu(layer.mlp_in(layer.mlp_norm(x))))
    made.float()
    return found


def plain(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT / math.sqrt(WIDTH)


def offsets() -> Tensor:
    return (torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)[None, :]).double()


def turned(x: Tensor, angle: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=-1)


def compare(found: list[LastQuery], wanted: list[tuple[Tensor, Tensor]], within: float = 2e-5) -> None:
    for each, (content, total) in zip(found, wanted, strict=True):
        back = LENGTH - 1 - each.distance
        scale = float(total.abs().max())
        assert (each.content - content[:, back]).abs().max() <= within * scale
        assert (each.content + each.added - total[:, back]).abs().max() <= within * scale


def test_alibi_adds_exactly_slope_times_distance() -> None:
    for each in taken(model("alibi", heads=4, layers=1)):
        slopes = 2.0 ** (-2 * torch.arange(1, 5).double())
        assert each.fixed
        assert torch.equal(each.added, -slopes[:, None] * each.distance)
        assert each.static is not None
        assert torch.equal(each.static, each.added)
        assert each.of_mean_key is None
        assert each.decay is None


@pytest.mark.parametrize("layers", [1, 2])
def test_kerple_adds_its_closed_form(layers: int) -> None:
    made = model("kerple_log", layers=layers)
    named = {name.rpartition(".")[2]: value.detach().double().flatten() for name, value in made.named_parameters()}
    p, a = named["bias_p"].clamp(min=0.01)[:, None], named["bias_a"].clamp(min=0.01)[:, None]
    for each in taken(made):
        torch.testing.assert_close(each.added, -p * torch.log(1 + a * each.distance), rtol=1e-5, atol=1e-6)
        assert each.fixed


def test_rope_adds_what_turning_by_the_distance_changes() -> None:
    made = model("rope")
    inverse = 10000.0 ** (-torch.arange(0, WIDTH, 2).double() / WIDTH)

    def logits(_layer: int, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        by_distance = turned(q[:, :, None], offsets()[..., None] * inverse)
        return torch.einsum("hijd,hjd->hij", by_distance, k) / math.sqrt(WIDTH)

    found = taken(made)
    compare(found, densely(made, logits))
    for each in found:
        assert not each.fixed
        assert each.static is None
        assert each.added[:, each.distance == 0].abs().max() < 1e-6
        assert each.decay is not None
        torch.testing.assert_close(each.decay, (each.distance.double()[:, None] * inverse).cos().mean(dim=1))


def test_what_rope_adds_to_the_mean_key_is_what_the_mean_key_would_get() -> None:
    made = model("rope", layers=1)
    inverse = 10000.0 ** (-torch.arange(0, WIDTH, 2).double() / WIDTH)
    held: list[tuple[Tensor, Tensor]] = []

    def logits(_layer: int, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        held.append((q, k))
        return plain(q, k)

    densely(made, logits)
    (q, k), (found,) = held[0], taken(made)
    mean = k.mean(dim=1)
    by_distance = turned(q[:, -1:], found.distance.double()[:, None] * inverse)
    wanted = torch.einsum("hkd,hd->hk", by_distance - q[:, -1:], mean) / math.sqrt(WIDTH)
    assert found.of_mean_key is not None
    torch.testing.assert_close(found.of_mean_key, wanted, rtol=1e-4, atol=1e-5)


def test_dape_adds_its_bias_and_what_its_network_makes_of_all_heads() -> None:
    made = model("dape(alibi)")
    slopes = torch.tensor([2.0**-4, 2.0**-8, 2.0**-2]).double()
    bias = -slopes[:, None, None] * offsets()

    def logits(layer: int, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        own: Any = made.layer_encodings[layer]
        read = torch.cat([plain(q, k), bias]).movedim(0, -1)
        hidden = read @ own.first.weight.double().T + own.first.bias.double()
        hidden = torch.where(hidden > 0, hidden, 0.01 * hidden)
        return plain(q, k) + bias + (hidden @ own.second.weight.double().T + own.second.bias.double()).movedim(-1, 0)

    found = taken(made)
    compare(found, densely(made, logits))
    for each in found:
        assert not each.fixed
        assert each.static is not None
        torch.testing.assert_close(each.static, -slopes[:, None] * each.distance)


def test_fox_adds_the_logarithms_of_all_gates_after_a_key() -> None:
    made = model("fox")

    def logits(layer: int, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        own: Any = made.layer_encodings[layer]
        gates = torch.sigmoid(h @ own.gate.weight.double().T + own.gate.bias.double()).log().T
        forgotten = torch.stack(
            [torch.stack([gates[:, j + 1 : i + 1].sum(dim=1) for j in range(LENGTH)], dim=1) for i in range(LENGTH)],
            dim=1,
        )
        return plain(q, k) + forgotten

    found = taken(made)
    compare(found, densely(made, logits))
    assert all(each.static is None and each.of_mean_key is None for each in found)


@pytest.mark.parametrize(
    "encoding",
    [
        {"name": "rope", "scaling": {"type": "yarn", "factor": 4.0}},
        {"name": "tempered", "rule": "ministral", "floor": 2, "base": {"name": "rope"}},
        {"name": "xpos", "scale_base": 8.0},
        {"name": "remap", "method": "rerope", "window": 5, "base": {"name": "rope"}},
        {"name": "cable"},
    ],
    ids=written,
)
def test_a_constant_factor_is_content_and_nothing_is_added_to_the_querys_own_key(encoding: dict[str, Any]) -> None:
    for each in taken(model(encoding)):
        own, largest = each.added[:, each.distance == 0].abs().max(), each.added.abs().max()
        assert own <= 1e-5 * largest
        assert largest > 0.01


def test_yarn_counts_its_attention_factor_as_content() -> None:
    found = taken(model({"name": "rope", "scaling": {"type": "yarn", "factor": 4.0}}, layers=1))[0]
    without = taken(model({"name": "rope"}, layers=1))[0]
    factor = Yarn(factor=4.0).frequencies(WIDTH, 10000.0, 16, LENGTH).attention_factor
    assert factor > 1.05
    torch.testing.assert_close(found.content, without.content * factor**2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("schedule", "farthest"), [("rope[window=5],alibi", 4), ("alibi[chunk=16],rope", 8)])
def test_keys_that_a_layer_does_not_show_are_absent(schedule: str, farthest: int) -> None:
    first, second = taken(model(schedule))
    assert sorted(first.distance.tolist()) == list(range(farthest + 1))
    assert sorted(second.distance.tolist()) == list(range(LENGTH))
    assert first.added.shape == first.content.shape == (HEADS, farthest + 1)


def test_a_layer_without_positions_adds_exactly_nothing() -> None:
    first, second = taken(model("none,alibi"))
    assert first.added.abs().max() == 0
    assert second.added.abs().max() > 0


def _context(made: Transformer, run: Callable[[], object]) -> list[tuple[Tensor, Tensor]]:
    """Of each layer its values [h, t, d], and the context [h, d] of the last query, from a pass."""
    values: list[Tensor] = []
    contexts: list[Tensor] = []

    def made_them(_module: nn.Module, _given: Any, out: Tensor) -> None:
        values.append(out[0].view(LENGTH, 3, HEADS, WIDTH)[:, 2].transpose(0, 1))

    def used_them(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        contexts.append(given[0][0, -1].view(HEADS, WIDTH))

    layers = [each for each in made.layers if isinstance(each, Layer)]
    handles = [each.query_key_value.register_forward_hook(made_them) for each in layers]
    handles += [each.attention_out.register_forward_pre_hook(used_them) for each in layers]
    run()
    for handle in handles:
        handle.remove()
    return list(zip(values, contexts, strict=True))


@pytest.mark.parametrize("spec", [*SPECS, "rope[window=7],alibi[chunk=12]", "dape_v2(alibi)[window=9]"], ids=str)
def test_content_and_what_is_added_are_the_logits_that_the_model_attends_by(spec: Any) -> None:
    """For every form of every encoding: the softmax over them weighs the values as the model did."""
    longer = {"max_length": 256} if isinstance(spec, dict) and spec["name"] == "randomized" else {}
    spec = {**spec, **longer} if longer else spec
    try:
        made = model(spec)
        refuse_unreadable(made.layer_encodings, "here")
    except CheckpointError:
        assert written(spec).partition("(")[0] in ("none", "learned", "sinusoidal", "sinks", "randomized")
        return
    found: list[LastQuery] = []
    with torch.no_grad(), reading(made, found.append):
        used = _context(made, lambda: made(TEXT, torch.Generator().manual_seed(0), 1))
    for each, (values, context), encoding in zip(found, used, made.layer_encodings, strict=True):
        logits = each.content + each.added
        weights = logits.softmax(dim=-1)
        kept = encoding.kept(logits.logsumexp(dim=-1)[None, :, None].float())
        weights = weights if kept is None else weights * kept[0].double()
        wanted = torch.einsum("hk,hkd->hd", weights, values[:, LENGTH - 1 - each.distance].double())
        torch.testing.assert_close(context.double(), wanted, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("encoding", "why"),
    [
        ("none", "has no positional encoding"),
        ("sinks(none)", "has no positional encoding"),
        ("learned", "to the embeddings"),
        ("sinusoidal", "to the embeddings"),
    ],
)
def test_what_no_logit_shows_is_refused(encoding: str, why: str) -> None:
    with pytest.raises(CheckpointError, match=why):
        refuse_unreadable(model(encoding, train_length=64).layer_encodings, "mine")


def test_the_model_is_left_as_it_was() -> None:
    made = model("dape(kerple_log)")
    with torch.no_grad():
        before = made(TEXT, torch.Generator(), LENGTH)
        taken(made)
        assert torch.equal(made(TEXT, torch.Generator(), LENGTH), before)
    assert made.attention == "auto"
    assert not any(each._forward_hooks for each in made.modules())


def test_the_pass_of_fire_that_is_read_answers_as_one_that_is_not() -> None:
    made = model("fire")
    with torch.no_grad():
        before = made(TEXT, torch.Generator(), 1)
        with reading(made, lambda found: None):
            assert torch.equal(made(TEXT, torch.Generator(), 1), before)
