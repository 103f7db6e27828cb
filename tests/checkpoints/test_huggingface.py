"""Tiny random models of `transformers`, saved by it, opened by us, compared with a loop over that library."""

import json
import math
from pathlib import Path

import pytest
import torch
import transformers

from lpe_eval.data.batch import Batch
from lpe_eval.errors import CheckpointError, LengthError, SpecError, UnknownName
from lpe_eval.measure.probe import refuse_leak
from lpe_eval.measure.score import target_losses
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.checkpoints.huggingface import HuggingFace
from lpe_eval.model.foreign.rope_override import parse_override
from lpe_eval.model.foreign.transformers_config import encoding_label, train_length
from tests.support.transformers_models import (
    ROPES,
    STREAM,
    SYMBOLS,
    TRAINED,
    config_of,
    llama,
    rope_fields,
    save,
    since_version_5,
)


def our_perplexity(model, length: int) -> float:
    """Non-overlapping windows: each target once, with what its window holds before it."""
    total, count = 0.0, 0
    for start in range(0, STREAM.shape[1] - 1, length):
        piece = STREAM[:, start : start + length + 1]
        batch = Batch(piece[:, :-1], piece[:, 1:], torch.ones_like(piece[:, 1:], dtype=torch.bool))
        losses = target_losses(model, batch, torch.Generator().manual_seed(0))
        total, count = total + losses.double().sum().item(), count + losses.numel()
    return math.exp(total / count)


@torch.no_grad()
def their_perplexity(folder: Path, length: int, **arguments) -> float:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **arguments).eval()
    total, count = 0.0, 0
    for start in range(0, STREAM.shape[1] - 1, length):
        piece = STREAM[:, start : start + length + 1]
        scores = model(piece[:, :-1]).logits.double()
        total += torch.nn.functional.cross_entropy(scores[0], piece[0, 1:], reduction="sum").item()
        count += piece.shape[1] - 1
    return math.exp(total / count)


@pytest.mark.parametrize(
    "name", ["gpt2", "opt", "pythia", *(f"llama {rope}" for rope in ROPES), "bloom", "mpt", "falcon"]
)
def test_the_perplexity_is_that_of_a_direct_loop_inside_and_beyond_the_training_length(name, tmp_path):
    folder = save(config_of(name), tmp_path / "model")
    model = HuggingFace.load(folder, LoadOptions())
    refuse_leak(model)
    for length in (16, 64, 128, 256):
        if name in ("gpt2", "opt") and length > TRAINED:
            with pytest.raises(LengthError, match="ends at 64"):
                our_perplexity(model, length)
            continue
        if name == "mpt":
            # Left alone, transformers fails beyond max_seq_len; a longer one changes nothing within it.
            theirs = their_perplexity(folder, length, max_seq_len=512)
        else:
            theirs = their_perplexity(folder, length)
        assert our_perplexity(model, length) == pytest.approx(theirs, rel=1e-5)
    assert model.facts.vocab_size == SYMBOLS
    assert model.facts.train_length == (None if name == "bloom" else TRAINED)
    assert "full-logits" not in model.attention


def test_the_encoding_is_told_from_the_config():
    labels = {name: encoding_label(config_of(name).to_dict()) for name in ("gpt2", "pythia", "bloom", "mpt", "falcon")}
    assert labels == {
        "gpt2": "learned", "pythia": "rope", "bloom": "alibi", "mpt": "alibi", "falcon": "alibi(scaled)"
    }  # fmt: skip
    assert encoding_label(llama("yarn").to_dict()) == "rope(yarn)"
    assert encoding_label({"model_type": "llama", "rope_theta": 1e4, "rope_scaling": None}) == "rope"
    assert encoding_label({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2}}) == "rope(linear)"
    assert encoding_label({"model_type": "mamba"}) == "none"
    assert encoding_label({"model_type": "something new"}) == "unknown"
    assert train_length(llama("yarn").to_dict()) == TRAINED
    assert train_length({"max_position_embeddings": 64, "original_max_position_embeddings": 4096}) == 64
    assert train_length({"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}) == 4096
    assert train_length({"model_type": "something new"}) is None


@pytest.mark.parametrize("rope", ["dynamic", "longrope"])
def test_the_order_of_lengths_does_not_matter_where_frequencies_depend_on_it(rope, tmp_path):
    folder = save(llama(rope), tmp_path / "model")
    model = HuggingFace.load(folder, LoadOptions())
    alone = {length: our_perplexity(HuggingFace.load(folder, LoadOptions()), length) for length in (32, 96, 128, 256)}
    assert not model.facts.prefix_stable
    for length in (256, 96, 32, 128, 96):
        assert our_perplexity(model, length) == alone[length]


@pytest.mark.parametrize("rule", ["linear:2", "dynamic:2", pytest.param("yarn:4", marks=since_version_5), "llama3:8"])
@pytest.mark.parametrize("name", ["llama", "pythia"])
def test_a_scaling_from_the_command_line_gives_the_model_whose_config_had_it(rule, name, tmp_path):
    plain = config_of(f"{name} plain" if name == "llama" else name)
    folder = save(plain, tmp_path / "model")
    kind, _, factor = rule.partition(":")
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    fields = {**ROPES[kind], "factor": float(factor)}
    written = tmp_path / "written"
    written.mkdir()
    for file in folder.iterdir():
        (written / file.name).write_bytes(file.read_bytes())
    for key, value in rope_fields(fields).items():
        raw[key] = {**raw[key], **value} if isinstance(raw.get(key), dict) else value
    (written / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    asked = HuggingFace.load(folder, LoadOptions(rope_scaling=rule))
    assert asked.facts.encoding == f"rope({kind})"
    assert asked.facts.train_length == TRAINED
    for length in (32, 256, 128):
        assert our_perplexity(asked, length) == pytest.approx(their_perplexity(written, length), rel=1e-5)
    assert our_perplexity(asked, 256) != pytest.approx(their_perplexity(folder, 256), rel=1e-4)


def test_a_new_base_is_obeyed_and_keeps_the_rest(tmp_path):
    folder = save(llama("linear"), tmp_path / "model")
    asked = HuggingFace.load(folder, LoadOptions(rope_theta=5e5))
    config = llama("linear", **rope_fields(ROPES["linear"], theta=5e5))
    assert our_perplexity(asked, 128) == pytest.approx(their_perplexity(folder, 128, config=config), rel=1e-5)
    assert our_perplexity(asked, 128) != pytest.approx(their_perplexity(folder, 128), rel=1e-4)
    assert asked.facts.encoding == "rope(linear)"


def test_settings_behind_the_address_do_what_the_flags_do(tmp_path):
    folder = save(llama(), tmp_path / "model")
    by_flag = locate(f"hf:{folder}").peek(LoadOptions(rope_scaling="yarn:4", rope_theta=2e4))
    by_address = locate(f"hf:{folder}?rope_scaling=yarn:4&rope_theta=2e4").peek(LoadOptions())
    assert by_flag == by_address
    assert by_flag.digest != locate(f"hf:{folder}").peek(LoadOptions()).digest
    assert by_flag.name == "model yarn:4 theta=20000"


def test_a_change_of_rope_that_changes_nothing_is_refused(tmp_path):
    folder = save(llama(), tmp_path / "model")
    for options in (LoadOptions(rope_theta=10000.0), LoadOptions(rope_scaling="linear:1")):
        with pytest.raises(CheckpointError, match="leave its frequencies as they were"):
            HuggingFace.load(folder, options)


@pytest.mark.parametrize("name", ["gpt2", "bloom", "mpt", "falcon"])
def test_a_change_of_rope_is_refused_where_there_is_none(name, tmp_path):
    folder = save(config_of(name), tmp_path / "model")
    with pytest.raises(CheckpointError, match="no RoPE"):
        HuggingFace.load(folder, LoadOptions(rope_scaling="yarn:4"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("yarnn:4", "no rule 'yarnn'"),
        ("yarn:four", "no number"),
        ("yarn:-1", "greater than 0"),
        ("yarn", "factor"),
        ("{not json", "not JSON"),
        ('{"rope_type": "yarn", "factor": 4, "beta_fst": 3}', "beta_fst"),
        ("longrope:4", "short_factor"),
    ],
)
def test_a_scaling_that_makes_no_sense_is_told_in_a_sentence(text, told):
    with pytest.raises(SpecError, match=told):
        parse_override(text, None)


def test_a_base_that_makes_no_sense_is_told_in_a_sentence():
    for theta in (0.0, -3.0, math.inf, math.nan):
        with pytest.raises(SpecError, match="--rope-theta"):
            parse_override(None, theta)


def test_mpt_obeys_its_alibi_bias_max(tmp_path):
    config = config_of("mpt")
    config.attn_config.alibi_bias_max = 4
    folder = save(config, tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    builder = model.transformer.build_mpt_alibi_tensor
    model.transformer.build_mpt_alibi_tensor = lambda heads, length, device: builder(heads, length, 4, device)
    with torch.no_grad():
        scores = model(STREAM[:, :64]).logits.double()
    expected = torch.nn.functional.cross_entropy(scores[0], STREAM[0, 1:65], reduction="none")
    ours = HuggingFace.load(folder, LoadOptions())
    batch = Batch(STREAM[:, :64], STREAM[:, 1:65], torch.ones(1, 64, dtype=torch.bool))
    assert torch.allclose(target_losses(ours, batch, torch.Generator())[0].double(), expected, rtol=1e-5)


def test_falcon_adds_its_scaled_alibi_once(tmp_path):
    folder = save(config_of("falcon"), tmp_path / "model")
    ours = HuggingFace.load(folder, LoadOptions())
    weights = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()
    weights = {name.removeprefix("transformer."): tensor.double() for name, tensor in weights.items()}

    def normed(x, name):
        return torch.nn.functional.layer_norm(x, (32,), weights[f"{name}.weight"], weights[f"{name}.bias"])

    length = 200
    x = weights["word_embeddings.weight"][STREAM[0, :length]]
    slopes = torch.tensor([0.25, 0.0625, 0.015625, 0.00390625], dtype=torch.double)
    distance = torch.arange(length)[:, None] - torch.arange(length)
    for layer in ("h.0", "h.1"):
        inner = normed(x, f"{layer}.input_layernorm")
        fused = inner @ weights[f"{layer}.self_attention.query_key_value.weight"].T
        q, k, v = fused.unflatten(-1, (4, 3, 8)).permute(2, 1, 0, 3)
        scores = (q @ k.mT - slopes[:, None, None] * distance) / 8**0.5
        context = scores.masked_fill(distance < 0, -math.inf).softmax(-1) @ v
        attended = context.transpose(0, 1).flatten(1) @ weights[f"{layer}.self_attention.dense.weight"].T
        up = torch.nn.functional.gelu(inner @ weights[f"{layer}.mlp.dense_h_to_4h.weight"].T)
        x = x + attended + up @ weights[f"{layer}.mlp.dense_4h_to_h.weight"].T
    expected = normed(x, "ln_f") @ weights["word_embeddings.weight"].T
    found = ours.logits(ours.hidden(STREAM[:, :length], length, torch.Generator())[0])
    assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(SpecError, match="once"):
        HuggingFace.load(folder, LoadOptions(attention="hf-eager"))


@pytest.mark.parametrize("kind", ["gemma2", "cohere", "granite"])
def test_a_softcap_or_a_scale_of_the_logits_is_kept_when_logits_are_made_by_chunk(kind, tmp_path):
    sizes = {
        "vocab_size": SYMBOLS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": TRAINED,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    match kind:
        case "gemma2":
            config = transformers.Gemma2Config(**sizes, head_dim=8, final_logit_softcapping=5.0)
        case "cohere":
            config = transformers.CohereConfig(**sizes, logit_scale=0.25)
        case _:
            config = transformers.GraniteConfig(**sizes, logits_scaling=4.0)
    folder = save(config, tmp_path / "model")
    model = HuggingFace.load(folder, LoadOptions())
    assert not model.attention.endswith("+full-logits")
    assert model.hidden(STREAM[:, :16], 4, torch.Generator()).shape == (1, 4, 32)
    assert model.facts.vocab_size == SYMBOLS
    for length in (16, 64):
        assert our_perplexity(model, length) == pytest.approx(their_perplexity(folder, length), rel=1e-5)


@pytest.mark.parametrize("attention", ["hf-eager", "dense", "hf-sdpa"])
def test_the_attention_path_can_be_chosen_and_is_told(attention, tmp_path):
    folder = save(llama(), tmp_path / "model")
    model = HuggingFace.load(folder, LoadOptions(attention=attention))
    assert model.attention == ("hf-sdpa" if attention == "hf-sdpa" else "hf-eager")
    with pytest.raises(UnknownName, match=r"'toeplitz'; known: dense, eager, .* hf-eager"):
        locate(str(folder)).peek(LoadOptions(attention="toeplitz"))


def test_a_class_without_the_path_falls_back_to_eager_and_says_so(tmp_path):
    folder = save(config_of("mpt"), tmp_path / "model")
    assert HuggingFace.load(folder, LoadOptions(attention="hf-sdpa")).attention == "hf-eager"


def test_weights_are_measured_in_the_dtype_asked_for(tmp_path):
    folder = save(llama(), tmp_path / "model")
    model = HuggingFace.load(folder, LoadOptions(dtype=torch.bfloat16))
    hidden = model.hidden(STREAM[:, :16], 4, torch.Generator())
    assert hidden.dtype == torch.bfloat16
    assert hidden.shape == (1, 4, 32)
    assert our_perplexity(model, 64) == pytest.approx(their_perplexity(folder, 64), rel=0.1)
