"""The encoder of the algorithmic problems: DeepMind's numbers, dropout and initial weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lpe_eval.data.problem import assemble, open_problem
from lpe_eval.model.build import build_encodings
from lpe_eval.model.encoding import Geometry
from lpe_eval.model.transformer import Transformer, dropped
from lpe_eval.spec.encoding_spec import EncodingSpec
from lpe_eval.spec.fingerprint import fingerprint
from lpe_eval.spec.model_spec import ModelSpec
from tests.support.che_golden import GOLDEN_ENCODINGS, golden
from tests.support.che_models import DEEPMIND, TOKENS, che_model, seeded

CPU = torch.device("cpu")
QUIRKY_WITH_A_MASK = {"ALIBI", "RELATIVE"}


def with_ours(name: str) -> str:
    """The official name of an encoding, and ours."""
    spec = GOLDEN_ENCODINGS[name]
    return f"{name}-{spec if isinstance(spec, str) else spec['name']}"


def official_encoder(name: str, causal: bool, dtype: torch.dtype) -> Transformer:
    """Our transformer with the weights of the golden encoder `name`."""
    spec = ModelSpec.model_validate(
        {"encoding": GOLDEN_ENCODINGS[name], "vocab_size": 4, "outputs": 3, "width": 16, "layers": 2, "heads": 2,
         "mlp_width": 64, "train_length": 7, "embedding_scale": 4.0, **DEEPMIND, "causal": causal}
    )  # fmt: skip
    model = Transformer(spec).requires_grad_(False)
    params = {**golden()["params"], **golden().get(f"params_{name.lower()}", {})}
    given = {(module, weight) for module, weights in params.items() for weight in weights}

    def put(target: Tensor, module: str, weight: str) -> None:
        given.remove((module, weight))
        found = torch.tensor(params[module][weight], dtype=torch.float64)
        # Haiku stores matrices as (in, out); tables and vectors are as ours.
        target.copy_(found.T if weight == "w" and not module.endswith("embed_sequences/linear") else found)

    def numbered(base: str, number: int) -> str:
        return f"transformer_encoder/{base}" + (f"_{number}" if number else "")

    put(model.embedding.weight, "transformer_encoder/transformer_embedder/~embed_sequences/linear", "w")
    put(model.head.weight, "linear", "w")
    put(model.head.bias, "linear", "b")
    for number, layer in enumerate(model.layers):
        attention = numbered("multi_head_dot_product_attention", number)
        for part, which in zip(layer.query_key_value.weight.chunk(3), ("linear", "linear_1", "linear_2"), strict=True):
            put(part, f"{attention}/{which}", "w")
        put(layer.attention_out.weight, f"{attention}/linear_{4 if name == 'RELATIVE' else 3}", "w")
        if name == "RELATIVE":
            encoding = model.layer_encodings[number]
            put(encoding.r_w_bias, attention, "relpos_contentbias")
            put(encoding.r_r_bias, attention, "relpos_relativebias")
            put(encoding.r_net.weight, f"{attention}/linear_3", "w")
        for place, norm in enumerate((layer.attention_norm, layer.mlp_norm)):
            put(norm.weight, numbered("layer_norm", 2 * number + place), "scale")
            put(norm.bias, numbered("layer_norm", 2 * number + place), "offset")
        for place, linear in enumerate((layer.mlp_in, layer.mlp_out)):
            put(linear.weight, numbered("linear", 2 * number + place), "w")
            put(linear.bias, numbered("linear", 2 * number + place), "b")
    if name == "LEARNT":
        table = "transformer_encoder/transformer_embedder/~add_positional_encodings/embed"
        put(model.layer_encodings[0].weight, table, "embeddings")
    if name == "RELATIVE":  # the other golden encoders' own output projection, which has another name here
        given = {pair for pair in given if not pair[0].endswith("embed")}
    assert not given, f"weights without a place: {sorted(given)}"
    model.put(CPU, dtype)
    return model


def logits_of(model: Transformer) -> Tensor:
    return model.logits(model(torch.tensor(golden()["tokens"]), seeded()))


def official_logits(key: str, dtype: torch.dtype) -> Tensor:
    found = golden()
    return torch.tensor({**found["logits"], **found["quirk_logits"]}[key], dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("path", ["auto", "dense", "blocked"])
@pytest.mark.parametrize("name", GOLDEN_ENCODINGS, ids=with_ours)
def test_the_encoder_gives_the_official_logits(name: str, path: str, dtype: torch.dtype):
    model = official_encoder(name, causal=False, dtype=dtype)
    model.attention = path
    torch.testing.assert_close(logits_of(model), official_logits(name, dtype), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", sorted(GOLDEN_ENCODINGS.keys() - QUIRKY_WITH_A_MASK), ids=with_ours)
def test_the_encoder_gives_the_official_logits_with_a_causal_mask(name: str):
    model = official_encoder(name, causal=True, dtype=torch.float64)
    wanted = official_logits(f"{name}_causal", torch.float64)
    torch.testing.assert_close(logits_of(model), wanted, rtol=2e-6, atol=2e-6)


def test_official_alibi_with_a_mask_is_ours_but_for_half_a_slope_on_the_past():
    model = official_encoder("ALIBI", causal=True, dtype=torch.float64)
    wanted = official_logits("ALIBI_causal", torch.float64)
    assert (logits_of(model) - wanted).abs().max() > 1e-3
    both_ways = EncodingSpec.model_validate(GOLDEN_ENCODINGS["ALIBI"])
    model.layer_encodings = build_encodings(both_ways, Geometry(2, 8, 16, 7, causal=False), 2)
    model.attention = "dense"
    torch.testing.assert_close(logits_of(model), wanted, rtol=2e-6, atol=2e-6)


def test_official_transformer_xl_with_a_mask_depends_on_what_follows_and_ours_does_not():
    model, tokens = official_encoder("RELATIVE", causal=True, dtype=torch.float64), torch.tensor(golden()["tokens"])
    whole = logits_of(model)
    assert (whole - official_logits("RELATIVE_causal", torch.float64)).abs().max() > 1e-2
    for length in range(1, 7):
        alone = model.logits(model(tokens[:, :length], seeded()))
        torch.testing.assert_close(alone, whole[:, :length], rtol=1e-6, atol=1e-6)
    # The official distance is T - 1 - (i - j): ours, shifted by the length, for keys that are seen.
    own = [encoding.keys_of for encoding in model.layer_encodings]
    for encoding, keys_of in zip(model.layer_encodings, own, strict=True):
        encoding.keys_of = lambda offset, keys_of=keys_of: keys_of(offset - 6)
    shifted = logits_of(model)
    torch.testing.assert_close(shifted, official_logits("RELATIVE_causal", torch.float64), rtol=2e-6, atol=2e-6)


# Three input ids (two bits and the empty token) and two classes.
@pytest.mark.parametrize(("encoding", "parameters"), [("sinusoidal", 248_962), ("transformer_xl", 248_962 + 21_120)])
def test_the_encoder_has_as_many_parameters_as_the_official_one(encoding: str, parameters: int):
    assert sum(each.numel() for each in che_model(encoding).parameters()) == parameters


def test_initial_weights_by_fan_in_are_a_cut_normal_distribution():
    model = che_model("none", layers=2).requires_grad_(False)
    # A standard normal variable cut at two deviations has the deviation 0.8796.
    wanted = {
        model.layers[0].query_key_value.weight: 64**-0.5,
        model.layers[1].attention_out.weight: 64**-0.5,
        model.layers[0].mlp_in.weight: 64**-0.5,
        model.layers[1].mlp_out.weight: 256**-0.5,
    }
    for weight, deviation in wanted.items():
        assert weight.abs().max() <= 2 * deviation
        # n draws give the deviation to about 1 / sqrt(2 n), here at most 0.011; five times that.
        assert float(weight.std()) == pytest.approx(0.8796 * deviation, rel=0.055)
    assert model.embedding.weight.abs().max() <= 0.04
    assert model.head.weight.abs().max() <= 2 / 8
    assert model.head.weight.abs().max() > 0.04
    for linear in (module for module in model.modules() if isinstance(module, nn.Linear) and module.bias is not None):
        assert not linear.bias.any()


def test_answers_are_read_at_the_empty_tokens():
    problem = open_problem("reverse_string")
    sample = problem.sample(3, 9, seeded(), CPU)
    tokens = assemble(sample, problem)
    model = che_model("rope", "reverse_string", layers=2).eval()
    answers = model.logits(model(tokens, seeded(), rows=9))
    assert tokens.shape == (3, 18)
    assert answers.shape == (3, 9, 2)
    torch.testing.assert_close(answers, model.logits(model(tokens, seeded()))[:, 9:], rtol=1e-5, atol=1e-5)


def test_without_dropout_training_mode_changes_nothing_and_draws_nothing():
    model = che_model("sinusoidal", layers=2)
    generator = seeded(5)
    before = generator.get_state()
    trained = model.train()(TOKENS, generator)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(trained, model.eval()(TOKENS, generator))


def test_dropout_acts_in_training_alone_and_the_generator_decides_it():
    model, plain = che_model("sinusoidal", layers=2, dropout=0.1), che_model("sinusoidal", layers=2)
    before = torch.get_rng_state()
    first, again, other = (model.train()(TOKENS, seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(model.eval()(TOKENS, seeded(5)), plain(TOKENS, seeded(5)))


def test_dropped_numbers_are_zero_or_grown_and_their_mean_stays():
    x = torch.rand(20, 50, 100, generator=seeded(2)) + 0.5
    found = dropped(x, 0.1, seeded(3))
    kept = found != 0
    torch.testing.assert_close(found[kept], x[kept] / 0.9)
    # 100,000 draws: the share is good to 0.001.
    assert float(kept.float().mean()) == pytest.approx(0.9, abs=0.005)
    assert dropped(x.bfloat16(), 0.1, seeded(3)).dtype == torch.bfloat16


def test_runs_that_stand_one_after_another_in_a_batch_share_what_is_dropped():
    x = torch.rand(3, 4, 5, 6, generator=seeded(2)) + 0.5
    together = dropped(x.flatten(0, 1), 0.4, seeded(3), runs=3).unflatten(0, (3, 4))
    assert torch.equal(together, torch.stack([dropped(run, 0.4, seeded(3)) for run in x]))


@pytest.mark.parametrize(("norm", "parallel"), [("post", False), ("pre", False), ("pre", True)])
@pytest.mark.parametrize(("encoding", "places"), [("sinusoidal", 1 + 2 * 2), ("learned", 1 + 2 * 2), ("alibi", 2 * 2)])
def test_dropout_comes_after_attention_after_the_mlp_and_after_absolute_positions(
    encoding: str, places: int, norm: str, parallel: bool, monkeypatch: pytest.MonkeyPatch
):
    calls = []

    def counted(x: Tensor, rate: float, generator: torch.Generator, runs: int) -> Tensor:
        calls.append((x.shape, rate))
        return torch.zeros_like(x)

    monkeypatch.setattr("lpe_eval.model.transformer.dropped", counted)
    changes = {"norm": norm, "parallel_residual": parallel, "layers": 2, "final_norm": False}
    model = che_model(encoding, dropout=0.25, **changes).train()
    found = model(TOKENS, seeded())
    assert calls == [(found.shape, 0.25)] * places
    if norm == "pre":
        # With every branch dropped only the embedding is left, and that too where positions were added to it.
        left = model.embedding(TOKENS) * 8.0
        assert torch.equal(found, torch.zeros_like(left) if places == 5 else left)


def test_new_fields_move_no_fingerprint_of_a_model_that_does_not_use_them():
    spec = ModelSpec(encoding=EncodingSpec(name="alibi"))
    assert not {"dropout", "attention_bias", "head_bias", "outputs", "initial_weights"} & spec.model_dump().keys()
    assert fingerprint(spec.model_dump(mode="json")) == (
        "eff6a9ae22bd94b27f92e1ee061cfb27d1f2f2dd7e5ad66720c965ac8faf3429"
    )
    used = ModelSpec.model_validate({"encoding": "alibi", "dropout": 0.1, "tied_embeddings": False, "outputs": 2})
    assert {"dropout", "outputs"} < used.model_dump().keys()
    assert ModelSpec.model_validate(used.model_dump()) == used


@pytest.mark.parametrize(
    "wrong", [{"dropout": 1.0}, {"dropout": -0.1}, {"outputs": 2}, {"head_bias": True}, {"outputs": 0}]
)
def test_a_head_without_a_table_of_its_own_and_full_dropout_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match=r"outputs and head_bias need|dropout|outputs"):
        ModelSpec.model_validate({"encoding": "alibi", **wrong})
