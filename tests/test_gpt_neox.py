"""GPT-NeoX checkpoints, written in DeepSpeed's layouts, against forward passes written from the formulas."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from neox_reference import LAYERS, ROWS, SYMBOLS, TRAIN_LENGTH, Written, layers_of, logits, normal, write
from torch import Tensor

from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.errors import CheckpointError, LengthError, SpecError, UnknownName
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.checkpoints.gpt_neox import GptNeox
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.transformer_model import TransformerModel

TOKENS = torch.randint(SYMBOLS, (2, 40), generator=torch.Generator().manual_seed(0))
KERNELS = {
    "snope_norm_original_scaling__": ("exp", "exp_half", "gaussian"),
    "snope_kerplelog": ("gaussian", "exp", "t5", "kerple_log"),
}
WITHOUT_END = [
    "none", "sinusoidal", "rotary", "alibi", "rpe", "kerple_log", "kerple_power_ap_", "kerple_power__ap",
    "kerple_power_ap_ap", "kerple_power_original", "snope_norm_original_scaling__", "snope_kerplelog", "kerple",
    "fire", "cope", "alibi_c", "kerple_c", "fire_c", "nope_c", "rope_dapev1", "alibi_dapev2", "kerple_dapev2",
    "fire_dapev2", "nope_c_ffn",
    "rope_dapev2", "xl_bias",
]  # fmt: skip


def opened(folder: Path, settings: str = "", **options: Any) -> TransformerModel:
    model = locate(f"neox:{folder}{settings}").load(LoadOptions(**options))
    assert isinstance(model, TransformerModel)
    return model


def scores(model: TransformerModel, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model.logits(model.hidden(tokens, tokens.shape[1], torch.Generator()).flatten(0, 1)).unflatten(
            0, tokens.shape
        )


def settings_of(pos_emb: str) -> str:
    return f"?kernels=[{','.join(KERNELS[pos_emb])}]" if pos_emb in KERNELS else ""


def agree(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-5 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("pos_emb", WITHOUT_END)
def test_logits_are_those_of_the_formulas_inside_and_beyond_the_training_length(
    tmp_path: Path, pos_emb: str, sequential: bool
) -> None:
    written = write(tmp_path / "run", pos_emb, layers_of(pos_emb), sequential=sequential)
    model = opened(written.folder, settings_of(pos_emb))
    for length in (11, 40):
        wanted = logits(written.layers, pos_emb, TOKENS[:, :length], kernels=KERNELS.get(pos_emb, ()))
        agree(scores(model, TOKENS[:, :length]), wanted[..., :SYMBOLS])


def test_the_dape_v2_that_declares_too_many_channels_is_refused(tmp_path: Path) -> None:
    layers = layers_of("nope_c_ffn")
    for block in (2, 3):
        layers[block]["attention.nope_c_ffn.mlp2.0.weight"] = normal(6, 8, 1, 3, seed=1)
    with pytest.raises(CheckpointError, match=r"mlp2\.0\.weight of layer 2 has shape \[6, 8, 1, 3\]"):
        opened(write(tmp_path / "run", "nope_c_ffn", layers).folder)


def test_learned_positions_agree_and_end_with_their_table(tmp_path: Path) -> None:
    written = write(tmp_path / "run", "learned", layers_of("learned"))
    model = opened(written.folder)
    agree(scores(model, TOKENS[:, :24]), logits(written.layers, "learned", TOKENS[:, :24])[..., :SYMBOLS])
    with pytest.raises(LengthError, match="24 tokens"):
        scores(model, TOKENS[:, :25])


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("row_head", [False, True])
@pytest.mark.parametrize("pos_emb", ["alibi", "rpe", "kerple_log", "rotary"])
def test_two_model_parallel_shards_are_the_whole_model(
    tmp_path: Path, pos_emb: str, row_head: bool, sequential: bool
) -> None:
    layers = layers_of(pos_emb)
    whole = opened(write(tmp_path / "whole", pos_emb, layers).folder)
    layout = {"sequential": sequential, "row_head": row_head}
    halves = opened(write(tmp_path / "halves", pos_emb, layers, ranks=2, **layout).folder)
    for (name, one), (other_name, other) in zip(
        whole.model.named_parameters(), halves.model.named_parameters(), strict=True
    ):
        assert name == other_name
        assert torch.equal(one, other), name


def test_ranks_add_their_biases_only_in_a_parallel_residual(tmp_path: Path) -> None:
    layers = layers_of("rotary")
    options = {"gpt_j_residual": True}
    whole = opened(write(tmp_path / "whole", "rotary", layers, **options).folder)
    halves = opened(write(tmp_path / "halves", "rotary", layers, ranks=2, **options).folder)
    agree(scores(halves, TOKENS), scores(whole, TOKENS))
    agree(scores(whole, TOKENS), logits(layers, "rotary", TOKENS, parallel=True)[..., :SYMBOLS])


def test_parallel_residual_with_one_norm_and_fused_gelu_agrees(tmp_path: Path) -> None:
    layers = layers_of("alibi")
    fields = {"gpt_j_residual": True, "gpt_j_tied": True, "layernorm_epsilon": 1e-3}
    folder = write(tmp_path / "run", "alibi", layers, **fields).folder
    config = folder / "global_step500" / "configs" / "train.yml"
    config.write_text(config.read_text().replace('"bias-gelu-fusion": False', '"bias-gelu-fusion": True'))
    wanted = logits(layers, "alibi", TOKENS, parallel=True, one_norm=True, tanh=True, eps=1e-3)
    agree(scores(opened(folder), TOKENS), wanted[..., :SYMBOLS])


def test_a_tied_head_and_the_newer_names_of_the_mlp_agree(tmp_path: Path) -> None:
    layers = layers_of("kerple", tied=True, newer_names=True)
    folder = write(tmp_path / "run", "kerple", layers).folder
    config = folder / "global_step500" / "configs" / "train.yml"
    config.write_text(config.read_text().replace('"no-weight-tying": true', '"no-weight-tying": false'))
    agree(scores(opened(folder), TOKENS), logits(layers, "kerple", TOKENS)[..., :SYMBOLS])


def test_biases_that_are_switched_off_are_zero(tmp_path: Path) -> None:
    layers = layers_of("rotary")
    flags = {"use_bias_in_norms": False, "use_bias_in_attn_linear": False, "use_bias_in_mlp": False}
    bare = {at: {key: each for key, each in found.items() if not key.endswith("bias")} for at, found in layers.items()}
    model = opened(write(tmp_path / "run", "rotary", bare, **flags).folder)
    zeroed = {
        at: {key: each * 0 if key.endswith("bias") else each for key, each in found.items()}
        for at, found in layers.items()
    }
    agree(scores(model, TOKENS), logits(zeroed, "rotary", TOKENS)[..., :SYMBOLS])


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_rotary_models_are_those_of_transformers(tmp_path: Path, parallel: bool, share: float) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    layers = layers_of("rotary")
    for found in layers.values():
        found.pop("attention.rotary_emb.inv_freq", None)
    config = GPTNeoXConfig(
        vocab_size=ROWS,
        hidden_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        rotary_pct=share,
        use_parallel_residual=parallel,
        hidden_act="gelu",
        attn_implementation="eager",
    )
    theirs = GPTNeoXForCausalLM(config).eval()
    state = {"gpt_neox.embed_in.weight": layers[0]["word_embeddings.weight"]}
    for block in range(LAYERS):
        state |= {f"gpt_neox.layers.{block}.{key}": value for key, value in layers[2 + block].items()}
    state |= {f"gpt_neox.final_layer_{key}": value for key, value in layers[LAYERS + 3].items()}
    head = next(name for name in theirs.state_dict() if name in ("lm_head.weight", "embed_out.weight"))
    state[head] = layers[LAYERS + 4]["final_linear.weight"]
    theirs.load_state_dict(state, strict=True)
    fields = {"rotary_pct": share, "gpt-j-residual": parallel}
    model = opened(write(tmp_path / "run", "rotary", layers, **fields).folder, as_published=True)
    with torch.no_grad():
        agree(scores(model, TOKENS), theirs(TOKENS).logits)
    agree(scores(model, TOKENS), logits(layers, "rotary", TOKENS, rotary_share=share, parallel=parallel))


def test_rows_that_pad_the_vocabulary_are_dropped_unless_asked_for(tmp_path: Path) -> None:
    written = write(tmp_path / "run", "alibi", layers_of("alibi"))
    masked, published = opened(written.folder), opened(written.folder, as_published=True)
    assert (masked.facts.vocab_size, published.facts.vocab_size) == (SYMBOLS, ROWS)
    wanted = logits(written.layers, "alibi", TOKENS)
    agree(scores(published, TOKENS), wanted)
    of_symbols = wanted.clone()
    of_symbols[..., SYMBOLS:] = -torch.inf
    agree(scores(masked, TOKENS).log_softmax(-1), of_symbols.log_softmax(-1)[..., :SYMBOLS])
    named = locate(f"neox:{written.folder}?vocab=90")
    assert opened(written.folder, "?vocab=90").facts.vocab_size == 90
    digests = {locate(str(written.folder)).peek(LoadOptions(as_published=flag)).digest for flag in (False, True)}
    assert len(digests | {named.peek(LoadOptions()).digest}) == 3


def test_gpt2_has_a_known_size_and_another_tokenizer_must_be_counted(tmp_path: Path) -> None:
    layers = layers_of("none")
    layers[0]["word_embeddings.weight"] = normal(50304, 32, seed=1)
    layers[LAYERS + 4]["final_linear.weight"] = normal(50304, 32, seed=2)
    folder = write(tmp_path / "gpt2", "none", layers, with_vocabulary=False).folder
    assert opened(folder).facts.vocab_size == 50257
    other = write(tmp_path / "other", "none", layers_of("none"), with_vocabulary=False, tokenizer_type="HFTokenizer")
    with pytest.raises(CheckpointError, match=r"128 rows are padding; write neox:.*\?vocab=NUMBER"):
        opened(other.folder)
    wrong = write(tmp_path / "wrong", "none", layers_of("none"))
    text = (configs(wrong) / "train.yml").read_text()
    (configs(wrong) / "train.yml").write_text(text.replace('divisible_by": 128', 'divisible_by": 16'))
    with pytest.raises(CheckpointError, match="101 symbols, which are padded to 112, but the embedding has 128 rows"):
        opened(wrong.folder)


def test_the_tokenizer_is_the_bpe_of_the_named_files(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    rust.train_from_iterator(["the cat sat on the mat, naïvely"] * 9, trainer)
    folder = write(tmp_path / "run", "alibi", layers_of("alibi")).folder
    rust.model.save(str(folder), "gpt2")
    tokenizer = open_tokenizer(locate(str(folder)).peek(LoadOptions()).tokenizer)
    text = " the cat – naïve"
    assert tokenizer.encode(text).tokens.tolist() == rust.encode(text).ids
    assert tokenizer.eos_id == rust.token_to_id("<|endoftext|>")
    assert tokenizer.vocab_size == rust.get_vocab_size()


def test_facts_say_what_was_opened_and_every_key_is_accounted_for(tmp_path: Path) -> None:
    written = write(tmp_path / "kerple_c_arxiv", "kerple_c", layers_of("kerple_c"))
    model = opened(written.folder)
    assert model.facts.name == "kerple_c_arxiv"
    assert (model.facts.format, model.facts.encoding) == ("gpt_neox", "dape(kerple_log)")
    assert model.facts.train_length == TRAIN_LENGTH
    assert model.facts.tokenizer.startswith("bpe:")
    keys = {f"{key} of layer {at}" for at, found in written.layers.items() for key in found}
    assert model.mapped.keys() == keys
    assert model.mapped["attention.kerple_c.mlp2.0.weight of layer 3"] == "encodings.1.first.weight"


def test_the_native_form_computes_the_same(tmp_path: Path) -> None:
    for number, pos_emb in enumerate(("fire_c", "rope_dapev1", "rpe")):
        model = opened(write(tmp_path / f"{number}", pos_emb, layers_of(pos_emb), gpt_j_residual=True).folder)
        Native.save(model.model, model.spec, tmp_path / f"native{number}", torch.float32)
        back = Native.load(tmp_path / f"native{number}", LoadOptions())
        assert isinstance(back, TransformerModel)
        assert torch.equal(scores(back, TOKENS), scores(model, TOKENS))


def test_layers_that_should_share_but_differ_keep_their_own(tmp_path: Path) -> None:
    layers = layers_of("kerple_log")
    shared = opened(write(tmp_path / "shared", "kerple_log", layers).folder)
    assert len(shared.model.encodings) == 1
    layers[3]["attention.rpe.bias_p"] = layers[3]["attention.rpe.bias_p"] + 0.5
    apart = opened(write(tmp_path / "apart", "kerple_log", layers).folder)
    assert len(apart.model.encodings) == LAYERS
    agree(scores(apart, TOKENS), logits(layers, "kerple_log", TOKENS)[..., :SYMBOLS])


def test_mep_asks_for_its_kernels_and_averages_those_that_are_named(tmp_path: Path) -> None:
    written = write(tmp_path / "run", "snope_kerplelog", layers_of("snope_kerplelog"))
    with pytest.raises(CheckpointError, match=r"do not say which kernels .*\?kernels="):
        opened(written.folder)
    model = opened(written.folder, "?kernels=[exp,kerple_log]")
    wanted = logits(written.layers, "snope_kerplelog", TOKENS, kernels=("exp", "kerple_log"))
    agree(scores(model, TOKENS), wanted[..., :SYMBOLS])
    assert "not averaged" in model.mapped["attention.rpe.weight of layer 2"]
    plain = write(tmp_path / "plain", "snope_norm_x", layers_of("snope_norm_original_scaling__"))
    with pytest.raises(CheckpointError, match="no parameters for the kernel t5"):
        opened(plain.folder, "?kernels=[exp,t5]")
    with pytest.raises(CheckpointError, match="kernel"):
        opened(plain.folder, "?kernels=[expo]")


def test_configs_that_disagree_need_an_order_and_the_later_wins(tmp_path: Path) -> None:
    written = write(tmp_path / "run", "rotary", layers_of("rotary"), seq_length=24)
    with pytest.raises(CheckpointError, match=r"an_experiment\.yml and train\.yml disagree on seq_length") as error:
        opened(written.folder)
    assert "configs=[an_experiment.yml,train.yml]" in str(error.value)
    assert opened(written.folder, "?configs=[an_experiment.yml,local_setup.yml,train.yml]").facts.train_length == 16
    assert opened(written.folder, "?configs=[local_setup.yml,train.yml,an_experiment.yml]").facts.train_length == 24
    with pytest.raises(CheckpointError, match=r"has no config none\.yml"):
        opened(written.folder, "?configs=[none.yml]")


@pytest.fixture
def run(tmp_path: Path) -> Written:
    return write(tmp_path / "run", "kerple_log", layers_of("kerple_log"))


def configs(written: Written) -> Path:
    return written.folder / "global_step500" / "configs"


def shard(written: Written, layer: int) -> Path:
    return written.folder / "global_step500" / f"layer_{layer:02d}-model_00-model_states.pt"


def refused(written: Written, message: str) -> None:
    with pytest.raises((CheckpointError, UnknownName), match=message) as error:
        opened(written.folder)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("layer", [0, 2, LAYERS + 3, LAYERS + 4])
def test_a_malicious_layer_runs_nothing_and_is_named(run: Written, tmp_path: Path, layer: int) -> None:
    marker = tmp_path / "marker"
    torch.save({**torch.load(shard(run, layer)), "evil": Malicious(marker)}, shard(run, layer))
    refused(run, rf"layer_{layer:02d}-model_00-model_states\.pt asks for \S*system")
    assert GptNeox.recognises(run.folder)
    locate(str(run.folder)).peek(LoadOptions())
    assert not marker.exists()


def test_a_malicious_rank_file_runs_nothing_and_is_named_where_it_is_read(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    written = write(tmp_path / "run", "alibi", layers_of("alibi"), sequential=True)
    file = written.folder / "global_step500" / "mp_rank_00_model_states.pt"
    torch.save({"module": {}, "rng": Malicious(marker)}, file)
    refused(written, r"mp_rank_00_model_states\.pt asks for \S*system")
    by_layer = write(tmp_path / "layers", "alibi", layers_of("alibi"))
    shutil.copy(file, by_layer.folder / "global_step500" / "mp_rank_00_model_states.pt")
    opened(by_layer.folder)
    assert not marker.exists()


def test_yml_tags_build_nothing(run: Written, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (configs(run) / "train.yml").write_text(f'!!python/object/apply:os.system ["touch {marker}"]')
    refused(run, r"train\.yml cannot be read as YAML")
    assert not marker.exists()


def test_a_truncated_layer_is_named(run: Written) -> None:
    shard(run, 3).write_bytes(shard(run, 3).read_bytes()[:2000])
    refused(run, r"layer_03-model_00-model_states\.pt is damaged")


def test_a_missing_block_norm_or_head_is_named(run: Written, tmp_path: Path) -> None:
    for layer in (0, 2, LAYERS + 3, LAYERS + 4):
        copy = Written(tmp_path / f"copy{layer}", {})
        shutil.copytree(run.folder, copy.folder)
        shard(copy, layer).unlink()
        refused(copy, rf"has no layer {layer}\b|no word_embeddings")


def test_a_missing_or_superfluous_shard_is_named(tmp_path: Path) -> None:
    layers = layers_of("alibi")
    halves = write(tmp_path / "halves", "alibi", layers, ranks=2)
    (halves.folder / "global_step500" / "layer_03-model_01-model_states.pt").unlink()
    refused(halves, r"layer_03-model_01-model_states\.pt is missing: .* model_parallel_size 2")
    whole = write(tmp_path / "whole", "alibi", layers, ranks=2)
    text = (configs(whole) / "train.yml").read_text()
    (configs(whole) / "train.yml").write_text(text.replace('"model-parallel-size": 2', '"model-parallel-size": 1'))
    refused(whole, r"holds layer_00-model_01-model_states\.pt, but .* model_parallel_size 1")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"num-layers": 2', '"num-layers": 3', "has no layer"),
        ('"num-layers": 2', '"num-layers": 1', r"has no layer 4, but .* says 1 blocks"),
        ('"hidden_size": 32', '"hidden_size": 64', r"96 rows, but hidden_size 64|has shape"),
        (
            '"num-attention-heads": 4',
            '"num-attention-heads": 8',
            r"bias_p of layer 3 has shape \[4, 1, 1\], the config makes it \[8\]",
        ),
        ('"num-attention-heads": 4', '"num-attention-heads": 5', "no multiple of 5 heads"),
        ('"no-weight-tying": true', '"no-weight-tying": false', "holds a layer 6"),
        ('"seq-length": 16', '"seq-length": "many"', r"train\.yml, seq_length: "),
        ('"seq-length": 16,', "", "seq_length: Field required"),
        ('"bias-gelu-fusion": False', '"activation": "geglu"', "activation geglu, which .* cannot compute"),
        ('"bias-gelu-fusion": False', '"norm": "rmsnorm"', "norm rmsnorm, which .* cannot compute"),
        ('"bias-gelu-fusion": False', '"attention-config": [[["local", "global"], 1]]', "attention local"),
    ],
)
def test_a_yml_that_disagrees_with_the_weights_is_refused(run: Written, old: str, new: str, message: str) -> None:
    text = (configs(run) / "train.yml").read_text()
    assert old in text
    (configs(run) / "train.yml").write_text(text.replace(old, new))
    refused(run, message)


@pytest.mark.parametrize(
    ("said", "stored", "message"),
    [
        ("alibi", "kerple_log", r"attention\.rpe\.bias_p of layer 2 is none of a model with pos_emb alibi"),
        ("kerple_log", "alibi", "missing"),
        ("kerple_power_ap_ap", "kerple_power_ap_", r"attention\.rpe\.wei_p of layer 2 is missing"),
        ("kerple", "kerple_c", "is none of a model with pos_emb kerple|missing"),
        ("none", "rotary", r"rotary_emb\.inv_freq of layer 2 is none"),
        ("kerple_power_a_", "kerple_power_ap_", "no position encoding .* 'kerple_power_a_'"),
        ("kerple_lag", "kerple_log", "no position encoding .* 'kerple_lag'; did you mean"),
        ("alibi_capev2", "alibi_dapev2", "no position encoding .* 'alibi_capev2'; did you mean"),
    ],
)
def test_an_encoding_that_is_unknown_or_not_that_of_the_weights_is_refused(
    tmp_path: Path, said: str, stored: str, message: str
) -> None:
    refused(write(tmp_path / "run", said, layers_of(stored)), message)


def test_stored_slopes_and_frequencies_must_follow_from_the_yml(tmp_path: Path) -> None:
    layers = layers_of("alibi")
    layers[2]["attention.alibi_embed.slopes"] = layers[2]["attention.alibi_embed.slopes"] * 1.5
    refused(write(tmp_path / "alibi", "alibi", layers), r"alibi_embed\.slopes of layer 2 is not what follows from")
    refused(write(tmp_path / "pct", "rotary", layers_of("rotary"), rotary_pct=0.5), r"inv_freq of layer 2 is not what")
    refused(write(tmp_path / "base", "rotary", layers_of("rotary"), rotary_emb_base=500), r"inv_freq of layer 2 is not")


def test_arguments_saved_beside_the_weights_must_agree(tmp_path: Path) -> None:
    written = write(tmp_path / "run", "none", layers_of("none"), sequential=True)
    text = (configs(written) / "train.yml").read_text()
    (configs(written) / "train.yml").write_text(text.replace('"num-attention-heads": 4', '"num-attention-heads": 8'))
    refused(written, "num_attention_heads 8, but the weights were saved with 4")


def test_a_matrix_of_another_shape_is_named(run: Written) -> None:
    torch.save({**torch.load(shard(run, 3)), "mlp.dense_4h_to_h.weight": torch.ones(32, 96)}, shard(run, 3))
    refused(run, r"mlp\.dense_4h_to_h\.weight of layer 3 has shape \[32, 96\]")


def test_a_folder_is_recognised_by_its_content_and_others_are_left_alone(run: Written, tmp_path: Path) -> None:
    step = run.folder / "global_step500"
    assert locate(str(run.folder)).format is GptNeox
    assert locate(str(step)).format is GptNeox
    assert opened(step).facts.name == "run"
    trainer = tmp_path / "checkpoint-500"
    (trainer / "global_step500").mkdir(parents=True)
    (trainer / "latest").write_text("global_step500")
    torch.save({}, trainer / "global_step500" / "mp_rank_00_model_states.pt")
    (trainer / "config.json").write_text("{}")
    assert not GptNeox.recognises(trainer)
    for content in ({"config.yaml": "", "model.safetensors": ""}, {"config.json": "{}"}, {}):
        other = tmp_path / f"other{len(content)}"
        other.mkdir()
        for name, text in content.items():
            (other / name).write_text(text)
        assert not GptNeox.recognises(other)
    assert not GptNeox.recognises(shard(run, 0))


def test_a_broken_folder_gives_one_sentence(run: Written, tmp_path: Path) -> None:
    (run.folder / "latest").write_text("global_step7")
    refused(run, "latest names global_step7")
    (run.folder / "latest").unlink()
    assert opened(run.folder).facts.name == "run"
    (run.folder / "global_step600").mkdir()
    refused(run, r"global_step500, global_step600 and no file `latest`")
    bare = Written(tmp_path / "bare", {})
    shutil.copytree(run.folder / "global_step500", bare.folder)
    shutil.rmtree(bare.folder / "configs")
    refused(bare, "hold no yml")
    refused(Written(tmp_path / "nothing", {}), "there is no folder")


def test_settings_are_checked(run: Written) -> None:
    with pytest.raises(UnknownName, match="kernels"):
        opened(run.folder, "?kernel=[exp]")
    with pytest.raises(CheckpointError, match="are lists"):
        opened(run.folder, "?kernels=exp")
    with pytest.raises(CheckpointError, match="vocab is a number"):
        opened(run.folder, "?vocab=all")
    with pytest.raises(CheckpointError, match="vocab=999"):
        opened(run.folder, "?vocab=999")
    with pytest.raises(SpecError):
        opened(run.folder, rope_theta=2.0)


def test_half_precision_weights_are_read_in_the_dtype_that_is_asked_for(tmp_path: Path) -> None:
    layers = {
        at: {key: each.bfloat16() if each.is_floating_point() else each for key, each in found.items()}
        for at, found in layers_of("fire_c").items()
    }
    model = opened(write(tmp_path / "run", "fire_c", layers).folder)
    exact = {
        at: {key: each.float() if each.is_floating_point() else each for key, each in found.items()}
        for at, found in layers.items()
    }
    agree(scores(model, TOKENS), logits(exact, "fire_c", TOKENS)[..., :SYMBOLS])


def test_a_vocabulary_that_is_no_json_is_named(run: Written) -> None:
    (run.folder / "gpt2-vocab.json").write_text("[1, 2")
    refused(run, r"gpt2-vocab\.json cannot be read as a vocabulary")
    (run.folder / "gpt2-vocab.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": []}))
    assert opened(run.folder).facts.vocab_size == 2
