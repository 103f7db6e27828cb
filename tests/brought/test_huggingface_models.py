"""Models of `transformers` that people bring: each row is a case, what happened before, and what must happen now.

Every expected number is that of a direct loop over the library's own class.
"""

import json
import math

import pytest
import torch
import transformers

from lpe_eval.errors import CheckpointError, SpecError
from lpe_eval.measure.probe import refuse_leak
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.checkpoints.huggingface import HuggingFace
from tests.support.direct_loop import TEXT, our_loss, their_loss
from tests.support.multimodal_models import TRAINED, multimodal
from tests.support.transformers_models import SYMBOLS, llama, rope_fields, save, since_version_5

BYTES = LoadOptions(tokenizer="bytes")
SIZES = {
    "vocab_size": SYMBOLS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": None,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

MULTIMODAL = [
    # type, encoding, layers and heads, what was said before
    ("gemma3", "rope", "2 layers, width 32, 4 heads of 16", "n/a: its table ends at 4 tokens; unknown"),
    ("llava", "rope", "2 layers, width 32, 4 heads of 16", "no class for it"),
    ("mistral3", "rope", "2 layers, width 32, 4 heads of 16", "no class for it"),
    ("qwen2_5_vl", "rope", "2 layers, width 64, 4 heads of 16", "no class for it"),
    ("qwen3_vl", "rope", "2 layers, width 32, 4 heads of 16", "no class for it"),
    ("qwen2_audio", "rope", "2 layers, width 32, 4 heads of 8", "no class for it"),
    ("llama4", "rope+none", "4 layers, width 32, 4 heads of 16", "has weights the config does not know"),
    ("mllama", "rope", "2 layers, width 32, 4 heads of 8", "has weights the config does not know"),
    ("blip-2", "learned", "2 layers, width 32, 4 heads of 8", "no class for it"),
]  # fmt: skip


@since_version_5
@pytest.mark.parametrize(("kind", "encoding", "shape", "before"), MULTIMODAL, ids=[row[0] for row in MULTIMODAL])
def test_of_a_multimodal_checkpoint_the_text_decoder_is_measured(kind, encoding, shape, before, tmp_path):
    """reports 1; architectures 1 and 3."""
    theirs = multimodal(kind, tmp_path / "model")
    model = HuggingFace.load(tmp_path / "model", BYTES)
    refuse_leak(model)
    assert (model.facts.encoding, model.facts.train_length) == (encoding, TRAINED)
    assert dict(model.architecture())["shape"] == shape
    alone = theirs.language_model if kind == "blip-2" else theirs
    for length in (120, 32):
        assert our_loss(model, length) == pytest.approx(their_loss(alone, length), rel=1e-6)
    if kind != "blip-2":
        assert math.isfinite(our_loss(model, 240))


@since_version_5
def test_what_text_does_not_use_is_told_and_its_numbers_are_not_those_of_the_encoding(tmp_path):
    """reports 1; architectures 1: tables and rotaries of vision towers were taken for the text's."""
    multimodal("qwen2_5_vl", tmp_path / "model")
    model = HuggingFace.load(tmp_path / "model", BYTES)
    assert dict(model.architecture())["not used by text"] == "model.visual"
    assert [each.where for each in model.position_tensors()] == 2 * ["Qwen2_5_VLRotaryEmbedding"]


@since_version_5
@pytest.mark.parametrize("kind", ["qwen3_vl", "qwen2_5_vl", "mistral3"])
def test_rope_of_a_multimodal_model_can_be_changed(kind, tmp_path):
    """architectures 1: `--rope-scaling` said "has no RoPE", which was false."""
    multimodal(kind, tmp_path / "model")
    model = HuggingFace.load(tmp_path / "model", BYTES._replace(rope_scaling="linear:2"))
    assert model.facts.encoding == "rope(linear)"
    raw = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    rope = raw["text_config"]["rope_parameters"]
    raw["text_config"]["rope_parameters"] = {**rope, "rope_type": "linear", "factor": 2.0}
    (tmp_path / "model" / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "model").eval()
    assert our_loss(model, 60) == pytest.approx(their_loss(theirs, 60), rel=1e-6)


@since_version_5
def test_rope_by_kind_of_layer_is_refused_for_what_it_is(tmp_path):
    """architectures 1."""
    multimodal("gemma3", tmp_path / "model")
    with pytest.raises(CheckpointError, match="other RoPE parameters for other layers"):
        HuggingFace.load(tmp_path / "model", BYTES._replace(rope_scaling="yarn:4"))


@since_version_5
def test_a_layer_too_few_is_no_tower(tmp_path):
    """architectures 3: what passes is a whole tower, not a layer that a config forgot."""
    multimodal("llama4", tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    raw["text_config"] |= {"num_hidden_layers": 3, "layer_types": raw["text_config"]["layer_types"][:3]}
    raw["text_config"]["no_rope_layers"] = raw["text_config"]["no_rope_layers"][:3]
    file.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"does not know: .*layers\.3\."):
        HuggingFace.load(tmp_path / "model", BYTES)


@pytest.mark.parametrize("kind", ["mamba", "mamba2", "falcon_mamba"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_bodies_that_end_in_float32_have_heads_in_half_precision(kind, dtype, tmp_path):
    """architectures 2: "cannot run on 8 tokens: expected m1 and m2 to have the same dtype"."""
    sizes = {"vocab_size": SYMBOLS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "expand": 2}
    sizes |= {"num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 16} if kind == "mamba2" else {}
    folder = save(transformers.CONFIG_MAPPING[kind](**sizes), tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).to(dtype).eval()
    model = HuggingFace.load(folder, LoadOptions(dtype=dtype))
    assert our_loss(model, 40) == pytest.approx(their_loss(theirs, 40), rel=1e-3)
    assert model.facts.encoding == "none"


@since_version_5
def test_dynamic_ntk_by_kind_of_layer_keeps_no_history(tmp_path):
    """architectures 6: 14.01605 alone, and 14.01432 after another length in the same run."""
    rules = {
        "full_attention": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    kinds = ["sliding_attention", "full_attention"]
    config = transformers.Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=32, layer_types=kinds, rope_parameters=rules
    )
    folder = save(config, tmp_path / "model")
    alone = {length: our_loss(HuggingFace.load(folder, LoadOptions()), length) for length in (40, 96, 240)}
    fresh = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert alone[240] == pytest.approx(their_loss(fresh, 240), rel=1e-6)
    model = HuggingFace.load(folder, LoadOptions())
    assert not model.facts.prefix_stable
    for length in (96, 240, 40, 240, 96):
        assert our_loss(model, length) == alone[length]


@since_version_5
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attn_config": {"alibi": False}}, r"attn_config\.alibi False"),
        ({"attn_config": {"alibi": False, "rope": True, "rope_theta": 10000}}, r"attn_config\.rope True"),
        ({"attn_config": {"alibi": True, "prefix_lm": True}}, r"attn_config\.prefix_lm True"),
        ({"attn_config": {"alibi": True, "sliding_window_size": 16}}, r"attn_config\.sliding_window_size 16"),
        ({"logit_scale": 0.5}, r"logit_scale 0\.5"),
        ({"logit_scale": "inv_sqrt_d_model"}, "logit_scale inv_sqrt_d_model"),
    ],
)
def test_an_mpt_that_the_library_cannot_run_is_refused(changes, told, tmp_path):
    """reports 19: measured with ALiBi, or without the scale, and no word about it."""
    config = transformers.MptConfig(vocab_size=SYMBOLS, d_model=32, n_heads=4, n_layers=1, max_seq_len=64)
    folder = save(config, tmp_path / "model")
    file = folder / "config.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    for key, value in changes.items():
        raw[key] = {**raw[key], **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(CheckpointError, match=told):
        HuggingFace.load(folder, LoadOptions())


OTHERS = [
    ("T5", {"d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2}, "ForConditionalGeneration", "encoder-decoder"),
    ("Bart", {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
              "decoder_attention_heads": 2}, "ForConditionalGeneration", "encoder-decoder"),
    ("Bert", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}, "ForMaskedLM", "masked"),
    ("DistilBert", {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}, "ForMaskedLM", "masked"),
    ("ViT", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}, "Model", "no language model"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "sizes", "head", "told"), OTHERS, ids=[row[0] for row in OTHERS])
def test_what_is_no_causal_model_is_told_what_it_is(kind, sizes, head, told, tmp_path):
    """architectures 3: a list of 150 classes, weights that are lacking, or "sees the future"."""
    config = getattr(transformers, f"{kind}Config")(**sizes | ({} if kind == "ViT" else {"vocab_size": SYMBOLS}))
    getattr(transformers, f"{kind}{head}")(config).save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match=told) as caught:
        HuggingFace.load(tmp_path / "model", BYTES)
    assert f"({kind}{head})" in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_rule_of_rope_is_named(tmp_path):
    """architectures 10: "cannot be opened: 'mrope'"."""
    folder = save(llama(), tmp_path / "model")
    file = folder / "config.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(raw | rope_fields({"rope_type": "mrope"})), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"asks for RoPE of the type 'mrope', which transformers \S+ does not"):
        HuggingFace.load(folder, LoadOptions())


def test_a_rule_that_a_type_does_not_take_is_told(tmp_path):
    """architectures 10: "cannot be opened: Missing required keys"."""
    folder = save(transformers.Phi3Config(**SIZES), tmp_path / "model")
    with pytest.raises(SpecError, match="does not take this change of RoPE for a model of the type phi3"):
        HuggingFace.load(folder, LoadOptions(rope_scaling="yarn:4"))


def test_a_home_is_found_behind_a_prefix(tmp_path, monkeypatch):
    """reports 31: `-m hf:~/base` was refused while `--data ~/t.txt` was read."""
    save(llama(), tmp_path / "base")
    monkeypatch.setenv("HOME", str(tmp_path))
    for reference in ("hf:~/base", "hf:~/base?rope_theta=5e5", "~/base"):
        assert locate(reference).peek(LoadOptions()).tokenizer == f"hf:{tmp_path / 'base'}"
    assert locate("native:~/base").path == str(tmp_path / "base")
    assert locate("py:~/own.py:make").path == f"{tmp_path}/own.py:make"


def test_the_peak_of_a_soft_cap_does_not_grow_with_the_vocabulary(tmp_path):
    """reports 8: whole logits were made of all rows, 8.7 GB for 8192 tokens of 128,000 symbols."""
    config = transformers.Gemma2Config(**SIZES | {"vocab_size": 4000}, head_dim=8, final_logit_softcapping=5.0)
    folder = save(config, tmp_path / "model")
    model = HuggingFace.load(folder, LoadOptions())
    assert not model.attention.endswith("full-logits")
    states = model.hidden(TEXT, TEXT.shape[1], torch.Generator())
    assert states.shape == (1, TEXT.shape[1], 32)
    with torch.no_grad():
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()(TEXT).logits
    assert torch.allclose(torch.cat([model.logits(some) for some in states[0].split(7)]), theirs[0], atol=1e-5)
