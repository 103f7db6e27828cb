"""Adapters, GGUF files and incomplete folders: each row is a case, what happened before, and what must happen now.

An adapter's expected number is that of a model whose weights it was merged into by the formula W + B A alpha / r.
"""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from lpe_eval.errors import CheckpointError, MissingExtra
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.checkpoints.huggingface import HuggingFace
from tests.support.direct_loop import our_loss, their_loss
from tests.support.transformers_models import SYMBOLS, llama, save

RANK, ALPHA = 2, 64
with_peft = pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")
with_gguf = pytest.mark.skipif(
    find_spec("gguf") is None or find_spec("accelerate") is None, reason="gguf is not installed"
)


def adapter(folder: Path, base: str, **changes: Any) -> dict[str, torch.Tensor]:
    """Writes a LoRA of the query projections into a folder."""
    folder.mkdir(exist_ok=True)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "target_modules": ["q_proj"],
        "base_model_name_or_path": base,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    draw = torch.Generator().manual_seed(1)
    weights = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.weight": torch.randn(shape, generator=draw)
        for layer in range(2)
        for side, shape in (("A", (RANK, 32)), ("B", (32, RANK)))
    }
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return weights


def merged(base: Path, weights: dict[str, torch.Tensor]) -> Any:
    """The model with the adapter in its weights."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    name = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    with torch.no_grad():
        for number, layer in enumerate(model.model.layers):
            change = weights[name.format(number, "B")] @ weights[name.format(number, "A")]
            layer.self_attn.q_proj.weight += change * ALPHA / RANK
    return model


@with_peft
@pytest.mark.parametrize("layout", ["alone", "with a config", "with a trainer's files", "named by a neighbour's name"])
def test_an_adapter_is_the_model_under_it_with_the_adapter(layout, tmp_path):
    """reports 4; architectures 9: "there is no config.json", or the numbers of the base."""
    base = save(llama(), tmp_path / "base")
    weights = adapter(tmp_path / "lora", "base" if "neighbour" in layout else str(base))
    if layout == "with a config":
        shutil.copy(base / "config.json", tmp_path / "lora" / "config.json")
    if "trainer" in layout:
        (tmp_path / "lora" / "training_args.bin").write_bytes(b"0")
    reference = str(tmp_path / "lora")
    located = locate(reference)
    peek, model = located.peek(LoadOptions()), located.load(LoadOptions())
    assert (peek.name, peek.tokenizer, peek.digest) == ("lora", f"hf:{base}", model.facts.digest)
    assert our_loss(model, 60) == pytest.approx(their_loss(merged(base, weights), 60), rel=1e-6)
    plain = HuggingFace.load(base, LoadOptions())
    assert our_loss(model, 60) != pytest.approx(our_loss(plain, 60), rel=1e-3)
    assert peek.digest != plain.facts.digest
    told = model.recorded()
    assert told["adapter"]["r"] == RANK and told["base"]["digest"] == plain.facts.digest
    assert "r 2" in dict(model.architecture())["adapter"]


@with_peft
def test_the_base_of_another_machine_can_be_named(tmp_path):
    """architectures 9: nobody could say where the model under an adapter is."""
    base = save(llama(), tmp_path / "base")
    weights = adapter(tmp_path / "lora", "/home/somebody/else/base")
    with pytest.raises(CheckpointError, match=r"\?base=PATH"):
        HuggingFace.peek(tmp_path / "lora", LoadOptions())
    model = HuggingFace.load(f"{tmp_path / 'lora'}?base={base}&rope_scaling=linear:2", LoadOptions())
    assert model.facts.name == "lora linear:2"
    theirs = merged(base, weights)
    theirs.model.rotary_emb.inv_freq /= 2
    assert our_loss(model, 60) == pytest.approx(their_loss(theirs, 60), rel=1e-6)


@with_peft
def test_an_adapter_that_does_not_fit_is_told(tmp_path):
    """architectures 9."""
    base = save(llama(), tmp_path / "base")
    adapter(tmp_path / "lora", str(base), r=4)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        HuggingFace.load(tmp_path / "lora", LoadOptions())
    weights = adapter(tmp_path / "lora", str(base))
    first = next(iter(weights))
    more = {name.replace("q_proj", "k_proj"): each.clone() for name, each in weights.items()}
    save_file(weights | more, tmp_path / "lora" / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"numbers that belong nowhere: .*k_proj"):
        HuggingFace.load(tmp_path / "lora", LoadOptions())
    save_file(
        {name: each for name, each in weights.items() if name != first}, tmp_path / "lora/adapter_model.safetensors"
    )
    with pytest.raises(CheckpointError, match="lacks base_model"):
        HuggingFace.load(tmp_path / "lora", LoadOptions())


def test_without_peft_the_extra_is_named(tmp_path, monkeypatch):
    """architectures 9: another number where it is not installed."""
    base = save(llama(), tmp_path / "base")
    adapter(tmp_path / "lora", str(base))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"lpe-eval\[peft\]"):
        HuggingFace.load(tmp_path / "lora", LoadOptions())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("adapter_config.json", r"whole weights and an adapter \(adapter_config\.json\)"),
        ("trainable_params.bin", r"trainable_params\.bin changes the weights, and transformers passes over it"),
        ("non_lora_trainables.bin", r"non_lora_trainables\.bin changes the weights"),
        ("pytorch_lora_weights.safetensors", r"pytorch_lora_weights\.safetensors changes the weights"),
        ("adapters.safetensors", r"adapters\.safetensors changes the weights"),
        ("adapter_model.safetensors", r"without adapter_config\.json nobody knows how"),
    ],
)
def test_what_would_change_whole_weights_is_refused_by_name(name, told, tmp_path):
    """reports 4; architectures 9: passed over, or another number with the same digest where peft is installed."""
    base = save(llama(), tmp_path / "base")
    if name == "adapter_config.json":
        adapter(base, "base")
    else:
        save_file({"a": torch.zeros(1)}, base / name)
    with pytest.raises(CheckpointError, match=told):
        HuggingFace.peek(base, LoadOptions())


def test_made_up_tokens_before_the_text_are_refused(tmp_path):
    """architectures 9."""
    adapter(tmp_path / "lora", "base", peft_type="PREFIX_TUNING")
    with pytest.raises(CheckpointError, match="puts made-up tokens before the text"):
        HuggingFace.peek(tmp_path / "lora", LoadOptions())


def test_a_missing_shard_and_a_pointer_are_named(tmp_path):
    """architectures 10: an errno, and a header that cannot be read."""
    folder = save(llama(), tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=rf"1 of {len(shards)} files of weights are missing, .*{shards[1].name}"):
        HuggingFace.peek(folder, LoadOptions())
    shards[1].write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"{shards[1].name} is a pointer of Git LFS"):
        HuggingFace.peek(folder, LoadOptions())


def gguf_file(file: Path, model: Any) -> None:
    """Writes a Llama as llama.cpp does: its names, and rows of queries and keys in pairs."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("small")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"w{number}" for number in range(config.vocab_size)])
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "model.layers": "blk",
    }  # fmt: skip
    for name, tensor in model.state_dict().items():
        theirs = name
        for ours, there in names.items():
            theirs = theirs.replace(ours, there)
        if "attn_q" in theirs or "attn_k" in theirs:
            heads = config.num_attention_heads
            tensor = tensor.view(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
        writer.add_tensor(theirs, tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@with_gguf
def test_a_gguf_file_is_the_model_it_was_made_of(tmp_path):
    """architectures 10: "there are no weights", and GGUF was never named."""
    theirs = transformers.AutoModelForCausalLM.from_pretrained(save(llama(), tmp_path / "model"))
    (tmp_path / "files").mkdir()
    gguf_file(tmp_path / "files" / "small.gguf", theirs.eval())
    for reference in (tmp_path / "files" / "small.gguf", tmp_path / "files"):
        located = locate(str(reference))
        peek = located.peek(LoadOptions(tokenizer="bytes"))
        model = located.load(LoadOptions(tokenizer="bytes"))
        assert (peek.name, peek.digest) == ("small", model.facts.digest)
        assert (model.facts.encoding, model.facts.train_length, model.facts.vocab_size) == ("rope", 64, SYMBOLS)
        assert our_loss(model, 60) == pytest.approx(their_loss(theirs, 60), rel=1e-5)
        assert located.stored_types() == ["float32"]


def test_a_gguf_file_beside_a_config_is_named(tmp_path, monkeypatch):
    """architectures 10."""
    folder = save(llama(), tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "small.gguf")
    with pytest.raises(CheckpointError, match=rf"no weights .* hf:{folder}/small\.gguf"):
        HuggingFace.peek(folder, LoadOptions())
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtra, match=r"lpe-eval\[gguf\]"):
        HuggingFace.peek(folder / "small.gguf", LoadOptions())
