"""Tiny random models of `transformers`, saved by it, opened by us, compared with a loop over that library."""

import builtins
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from lpe_eval.data.batch import Batch
from lpe_eval.errors import CheckpointError, LengthError, MissingExtra, SpecError, UnknownName
from lpe_eval.measure.probe import refuse_leak
from lpe_eval.measure.score import target_losses
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.checkpoints.huggingface import HuggingFace
from lpe_eval.model.foreign.rope_override import parse_override
from lpe_eval.model.foreign.transformers_config import encoding_label, train_length
from lpe_eval.model.reference import split_settings

SYMBOLS, TRAINED = 61, 64
STREAM = torch.randint(SYMBOLS, (1, 257), generator=torch.Generator().manual_seed(5))

ROPES = {
    "plain": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": TRAINED},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": TRAINED,
    },
    "longrope": {
        "rope_type": "longrope",
        "factor": 4.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.5, 2.0, 3.0, 4.0],
        "original_max_position_embeddings": TRAINED,
    },
}


def llama(rope="plain", **changes):
    length = 4 * TRAINED if "original_max_position_embeddings" in ROPES[rope] else TRAINED
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    fields = {**sizes, "vocab_size": SYMBOLS, "max_position_embeddings": length, **rope_fields(ROPES[rope])}
    return transformers.LlamaConfig(**fields | changes)


def rope_fields(rule, theta=10000.0):
    """As the config of the installed version spells them."""
    if int(transformers.__version__.partition(".")[0]) >= 5:
        return {"rope_parameters": {"rope_theta": theta, **rule}}
    return {"rope_theta": theta, "rope_scaling": None if rule["rope_type"] == "default" else rule}


def config_of(name):
    kind, _, rope = name.partition(" ")
    match kind:
        case "gpt2":
            return transformers.GPT2Config(vocab_size=SYMBOLS, n_positions=TRAINED, n_embd=32, n_layer=2, n_head=4)
        case "pythia":
            return transformers.GPTNeoXConfig(
                vocab_size=SYMBOLS, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                max_position_embeddings=TRAINED, rotary_pct=0.25, use_parallel_residual=True,
            )  # fmt: skip
        case "llama":
            return llama(rope)
        case "opt":
            return transformers.OPTConfig(
                vocab_size=SYMBOLS, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48,
                max_position_embeddings=TRAINED, word_embed_proj_dim=16,
            )  # fmt: skip
        case "bloom":
            return transformers.BloomConfig(vocab_size=SYMBOLS, hidden_size=32, n_layer=2, n_head=4)
        case "mpt":
            return transformers.MptConfig(
                vocab_size=SYMBOLS, d_model=32, n_heads=4, n_layers=2, max_seq_len=TRAINED, expansion_ratio=2
            )
        case "falcon":
            return transformers.FalconConfig(
                vocab_size=SYMBOLS, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True,
                new_decoder_architecture=False, multi_query=False, max_position_embeddings=TRAINED,
            )  # fmt: skip
    raise AssertionError(name)


def save(config, folder: Path, tokenizer: bool = True) -> Path:
    """Random weights ten times the usual size, so that positions matter for the loss."""
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2, generator=draw)
    model.save_pretrained(folder)
    if tokenizer:
        words = {"<bos>": 0} | {f"w{number}": number for number in range(1, SYMBOLS)}
        rules = Tokenizer(WordLevel(words, unk_token="w1"))
        rules.pre_tokenizer = Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=rules, bos_token="<bos>").save_pretrained(folder)
    return folder


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


@pytest.mark.parametrize("rule", ["linear:2", "dynamic:2", "yarn:4", "llama3:8"])
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
def test_a_softcap_or_a_scale_of_the_logits_is_seen_and_whole_logits_are_made(kind, tmp_path):
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
    assert model.attention.endswith("+full-logits")
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


def test_a_folder_without_a_tokenizer_asks_for_one(tmp_path):
    folder = save(llama(), tmp_path / "model", tokenizer=False)
    with pytest.raises(CheckpointError, match="--tokenizer"):
        locate(f"hf:{folder}").peek(LoadOptions())
    assert locate(f"hf:{folder}").peek(LoadOptions(tokenizer="bytes")).tokenizer == "bytes"


def test_a_token_beyond_the_vocabulary_is_told_in_a_sentence(tmp_path):
    model = HuggingFace.load(save(llama(), tmp_path / "model"), LoadOptions())
    with pytest.raises(CheckpointError, match="id 61"):
        model.hidden(torch.full((1, 4), SYMBOLS), 4, torch.Generator())


def test_equal_files_have_equal_digests_and_a_changed_weight_another(tmp_path):
    folder = save(llama(), tmp_path / "model")
    first = HuggingFace.peek(folder, LoadOptions()).digest
    assert HuggingFace.load(folder, LoadOptions()).facts.digest == first
    weights = folder / "model.safetensors"
    held = bytearray(weights.read_bytes())
    held[-1] ^= 1
    weights.write_bytes(bytes(held))
    assert HuggingFace.peek(folder, LoadOptions()).digest != first


def test_missing_and_superfluous_weights_are_told(tmp_path):
    folder = save(llama(), tmp_path / "model")
    file = folder / "config.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    for layers, told in ((3, "lacks model.layers.2"), (1, "does not know: model.layers.1")):
        file.write_text(json.dumps(raw | {"num_hidden_layers": layers}), encoding="utf-8")
        with pytest.raises(CheckpointError, match=told):
            HuggingFace.load(folder, LoadOptions())
    file.write_text(json.dumps(raw | {"intermediate_size": 64}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"shape|size"):
        HuggingFace.load(folder, LoadOptions())


def test_damaged_files_are_told_in_one_sentence(tmp_path):
    folder = save(llama(), tmp_path / "model")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:100], whole[: len(whole) // 2], b"", b"\xff" * 64):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=str(folder)) as caught:
            HuggingFace.load(folder, LoadOptions())
        assert "\n" not in str(caught.value)
    weights.unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        HuggingFace.load(folder, LoadOptions())
    for text in ("", "[]", "{", '{"model_type": "no such thing"}', '{"model_type": 3}'):
        (folder / "config.json").write_text(text, encoding="utf-8")
        weights.write_bytes(whole)
        with pytest.raises(CheckpointError, match=str(folder)) as caught:
            HuggingFace.load(folder, LoadOptions())
        assert "\n" not in str(caught.value)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        HuggingFace.load(folder, LoadOptions())


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_malicious_weight_file_executes_nothing(tmp_path):
    folder = save(llama(), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "executed"
    torch.save({"model.embed_tokens.weight": Malicious(marker)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"asks for getattr.*refused"):
        HuggingFace.load(folder, LoadOptions())
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Malicious(marker), protocol=2))
    with pytest.raises(CheckpointError, match=str(folder)):
        HuggingFace.load(folder, LoadOptions())
    assert not marker.exists()


def test_code_of_a_checkpoint_is_refused_without_the_flag(tmp_path):
    folder = save(llama(), tmp_path / "model")
    file = folder / "config.json"
    marker = tmp_path / "executed"
    raw = json.loads(file.read_text(encoding="utf-8")) | {
        "model_type": "homemade",
        "auto_map": {"AutoConfig": "homemade.Config", "AutoModelForCausalLM": "homemade.Model"},
    }
    file.write_text(json.dumps(raw), encoding="utf-8")
    (folder / "homemade.py").write_text(f"open({str(marker)!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="--trust-remote-code"):
        HuggingFace.load(folder, LoadOptions())
    assert not marker.exists()


def test_without_a_network_one_sentence_names_the_model(tmp_path):
    code = (
        "from lpe_eval.model.checkpoint import LoadOptions, locate\n"
        "from lpe_eval.errors import CheckpointError\n"
        "try:\n"
        "    locate('hf:some-org/some-model@main').peek(LoadOptions())\n"
        "except CheckpointError as error:\n"
        "    print(error)\n"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=offline, check=True)
    assert done.stdout.startswith("hf:some-org/some-model@main is neither a local folder, nor in the cache")
    assert done.stdout.count("\n") == 1


def test_a_cached_model_of_the_hub_is_opened_without_a_network(tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--some-org--some-model"
    save(llama(), cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit, encoding="utf-8")
    code = (
        "from lpe_eval.data.tokenizer import open_tokenizer\n"
        "from lpe_eval.model.checkpoint import LoadOptions, locate\n"
        "for reference in ('some-org/some-model', 'some-org/some-model@main?rope_scaling=yarn:4'):\n"
        "    located = locate(f'hf:{reference}')\n"
        "    peek = located.peek(LoadOptions())\n"
        "    facts = located.load(LoadOptions()).facts\n"
        "    assert facts.digest == peek.digest\n"
        "    print(peek.name, peek.tokenizer, open_tokenizer(peek.tokenizer).vocab_size, facts.encoding, sep='|')\n"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=offline, check=False)
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines() == [
        f"some-model|hf:some-org/some-model|{SYMBOLS}|rope",
        f"some-model yarn:4|hf:some-org/some-model@main|{SYMBOLS}|rope(yarn)",
    ]


def test_the_code_of_a_checkpoint_runs_with_the_flag_and_is_part_of_its_digest(tmp_path):
    folder = save(llama(), tmp_path / "model")
    file = folder / "config.json"
    raw = json.loads(file.read_text(encoding="utf-8")) | {
        "model_type": "homemade",
        "auto_map": {"AutoConfig": "homemade.Config", "AutoModelForCausalLM": "homemade.Model"},
    }
    file.write_text(json.dumps(raw), encoding="utf-8")
    code = (
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        "class Config(LlamaConfig):\n    model_type = 'homemade'\n\n\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n"
    )
    (folder / "homemade.py").write_text(code, encoding="utf-8")
    program = (
        "import sys\n"
        "from lpe_eval.model.checkpoint import LoadOptions, locate\n"
        "model = locate('hf:' + sys.argv[1]).load(LoadOptions(trust_remote_code=True))\n"
        "print(type(model.model).__name__, model.facts.digest)\n"
    )
    digests = []
    for text in (code, code + "# changed\n"):
        (folder / "homemade.py").write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        )  # fmt: skip
        name, digest = done.stdout.split()
        assert name == "Model"
        digests.append(digest)
    assert digests[0] != digests[1]


def test_without_transformers_the_extra_is_named(tmp_path, monkeypatch):
    folder = save(llama(), tmp_path / "model")
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.partition(".")[0] == "transformers":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"lpe-eval\[hf\]"):
        HuggingFace.load(folder, LoadOptions())


@pytest.mark.parametrize(
    ("text", "told"),
    [("a?", "question mark"), ("a?b", "not key=value"), ("a?b=1&b=2", "twice"), ("a?b=[", "not YAML")],
)
def test_settings_that_cannot_be_read_are_told(text, told):
    with pytest.raises(SpecError, match=told):
        split_settings(text)


def test_an_unknown_setting_is_told(tmp_path):
    folder = save(llama(), tmp_path / "model")
    with pytest.raises(SpecError, match="no setting rope_sclaing"):
        locate(f"hf:{folder}?rope_sclaing=yarn:4").peek(LoadOptions())
    with pytest.raises(SpecError, match="rope_theta must be a number"):
        locate(f"hf:{folder}?rope_theta=much").peek(LoadOptions())


def test_a_revision_belongs_to_the_hub(tmp_path):
    folder = save(llama(), tmp_path / "model")
    with pytest.raises(SpecError, match="no effect on the local folder"):
        locate(f"hf:{folder}").peek(LoadOptions(revision="main"))
    with pytest.raises(SpecError, match="give one"):
        locate("hf:org/name@one").peek(LoadOptions(revision="two"))
