"""Layers that differ: schedules of encodings and of what a query sees."""

import pytest
import torch
from torch.nn import functional as F

from lpe_eval.errors import LengthError, SpecError
from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.mask import Mask
from lpe_eval.model.transformer import Layer, Transformer, masks_of
from lpe_eval.spec.model_spec import ModelSpec
from tests.support.golden_cases import Case, check, each, has
from tests.support.golden_layers import Layered, check_layer, heads_of, layered, made, normed

CPU = torch.device("cpu")
FAMILIES = {
    "smollm3": "rope*3,none",
    "smollm3_sliding": "rope*3,none[window=128]",
    "llama4": "rope[chunk=8192, layout=interleaved]*3,tempered(none)[rule=llama4]",
    "cohere2": "rope[window=4096, layout=interleaved]*3,none",
    "gemma2": "rope[window=4096],rope",
    "gemma3": "rope[window=4096]*5,rope[theta=1e6],rope[window=4096]*5,rope[theta=1e6],rope[window=4096]*5,"
    "rope[theta=1e6],rope[window=4096]*5,rope[theta=1e6],rope[window=4096]*2",
    "gpt_oss": "sinks(rope)[window=128],sinks(rope)",
    "mistral": "rope[window=4096]",
    "olmo3": "rope[window=4096]*3,rope",
    "inkling": "inkling[window=512, extent=512]*5,inkling",
}


def model_of(schedule: str, layers: int, **changes) -> ModelSpec:
    shape = {"width": 16, "heads": 2, "mlp_width": 24, "vocab_size": 11, "train_length": 16}
    return ModelSpec.model_validate({"encoding": schedule, "layers": layers, **shape, **changes})


# Windows in two directions are in the file too; layers have none, and `test_golden_slips.py` has their formulas.
@each("windows", lambda case: "visible" in case.outputs and case.direction == "causal")
def test_a_query_sees_what_the_published_mask_shows(case: Case) -> None:
    length = case.fields["q_len"]
    everything = slice(0, length)
    mask = Mask(window=case.fields.get("window"), chunk=case.fields.get("chunk"))
    visible = mask.visible(everything, everything, CPU)
    check(case, "visible", visible.double())
    check(case, "keys_per_query", visible.sum(-1).double())
    for first in range(length):
        for last in range(first + 1, length + 1):
            some = visible[first:last].any(0).nonzero().flatten().tolist()
            keys = mask.keys(slice(first, last), length)
            assert (keys.start, keys.stop) == (some[0], some[-1] + 1)
            assert torch.equal(mask.visible(slice(first, last), keys, CPU), visible[first:last, keys])
            wide = mask.keys(slice(first, last), length, 2, 1)
            assert (wide.start, wide.stop) == (max(0, keys.start - 2), min(length, keys.stop + 1))


@each("windows", has("rope"))
def test_a_schedule_is_that_of_its_family(case: Case) -> None:
    spec = model_of(FAMILIES[case.id], case.fields["layers"])
    layers = spec.encoding.by_layer(spec.layers)
    turned = ["rope" in str(each.encoding) for each in layers]
    check(case, "rope", torch.tensor(turned).double())
    check(case, "window", torch.tensor([each.window or each.chunk or 0 for each in layers]).double())
    masks = masks_of(spec)
    assert [(mask.window, mask.chunk) for mask in masks] == [(each.window, each.chunk) for each in layers]
    kinds = ["chunked" if mask.chunk else "sliding" if mask.window else "full" for mask in masks]
    assert kinds == case.fields["mask_kind"]
    again = ModelSpec.model_validate(spec.model_dump(mode="json"))
    assert again == spec
    assert str(again.encoding) == str(spec.encoding)


@each("windows", has("sliding_logits", "rope_logits"))
def test_layers_of_rope_and_of_none_are_the_published_ones(case: Case) -> None:
    layout = case.fields["rotary_layout"].replace("-", "_")
    rope = made(case, {"name": "rope", "theta": case.fields["rope_base"], "layout": layout})
    first, second = ("sliding_", "full_") if "window" in case.fields else ("rope_", "nope_")
    check_layer(case, layered(rope, case, Mask(window=case.fields.get("window"))), first)
    check_layer(case, layered(made(case, "none"), case), second)


@each("windows", has("chunked_logits"))
def test_layers_of_llama_4_with_rope_and_with_none_are_the_published_ones(case: Case) -> None:
    rope = made(case, {"name": "rope", "theta": case.fields["rope_base"], "layout": "interleaved"})
    given = {"rule": "llama4", "floor": case.fields["floor_scale"], "strength": case.fields["attn_scale"]}
    check_layer(case, layered(made(case, {"name": "tempered", **given, "base": "none"}), case), "full_")
    q, k, v = heads_of(case)
    at, eps = torch.arange(q.shape[2]), case.fields["eps"]
    q, k = (normed(turned, eps) for turned in rope.rotate(q, k, at))
    context = Dense.attend(q, k, v, made(case, "none"), at, Mask(chunk=case.fields["chunk"]))
    check_layer(case, Layered(q @ k.mT * q.shape[-1] ** -0.5, context), "chunked_")


def by_hand(model: Transformer, tokens: torch.Tensor) -> torch.Tensor:
    """A forward pass written from the formulas, with a whole mask in each layer."""
    x, length = model.embedding(tokens), tokens.shape[1]
    at, offset = torch.arange(length), torch.arange(length)[:, None] - torch.arange(length)
    for layer, encoding, mask in zip(model.layers, model.layer_encodings, masks_of(model.spec), strict=True):
        assert isinstance(layer, Layer)
        normal = layer.attention_norm(x)
        q, k, v = layer.query_key_value(normal).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        q, k = encoding.rotate(q, k, at)
        logits = q @ k.mT / 8**0.5
        features = encoding.features(normal)
        if features is not None:
            logits = logits + (features - features.mT).float()
        logits = logits.masked_fill((offset < 0) | (offset >= (mask.window or length)), float("-inf"))
        x = x + layer.attention_out((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
        x = x + layer.mlp_out(F.gelu(layer.mlp_in(layer.mlp_norm(x))))
    return model.final_norm(x)


@pytest.mark.parametrize("attention", ["auto", "dense", "blocked", "checkpointed"])
@pytest.mark.parametrize("schedule", ["rope[window=5]*3,none", "fox[window=7],fox", "rope*2,none[window=3],none"])
def test_a_model_with_a_schedule_is_the_one_written_by_hand(schedule: str, attention: str) -> None:
    model = Transformer(model_of(schedule, 4), attention)
    model.initialise(torch.Generator().manual_seed(1))
    tokens = torch.randint(0, 11, (2, 40), generator=torch.Generator().manual_seed(2))
    wanted = by_hand(model, tokens)
    torch.testing.assert_close(model(tokens, torch.Generator()), wanted, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens, torch.Generator()), wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(tokens, torch.Generator(), 3), wanted[:, -3:], rtol=1e-5, atol=1e-5)


def test_layers_with_the_same_encoding_share_it_as_they_do_without_a_schedule() -> None:
    encodings = Transformer(model_of("t5[window=4],none,t5", 6)).layer_encodings
    assert encodings[0] is encodings[2] is encodings[3]
    assert encodings[1] is not encodings[0]
    encodings = Transformer(model_of("fox[window=4],fox", 2)).layer_encodings
    assert encodings[0] is not encodings[1]


def test_absolute_positions_serve_all_layers_or_none() -> None:
    model = Transformer(model_of("learned[window=4]*3,learned", 4))
    assert len(set(model.layer_encodings)) == 1
    with pytest.raises(LengthError):
        model(torch.zeros(1, 17, dtype=torch.long), torch.Generator())
    with pytest.raises(SpecError, match="sinusoidal with others, because it acts once"):
        Transformer(model_of("rope,sinusoidal", 2))
