"""GPT-NeoX checkpoints, written in DeepSpeed's layouts, against forward passes written from the formulas."""

from pathlib import Path

import pytest
import torch

from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.errors import CheckpointError, LengthError
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.transformer_model import TransformerModel
from tests.support.neox_files import LAYERS, ROWS, SYMBOLS, TRAIN_LENGTH, layers_of, normal, write
from tests.support.neox_models import TOKENS, agree, configs, opened, scores
from tests.support.neox_reference import logits
from tests.support.spelling import neox_id

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


def settings_of(pos_emb: str) -> str:
    return f"?kernels=[{','.join(KERNELS[pos_emb])}]" if pos_emb in KERNELS else ""


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("pos_emb", WITHOUT_END, ids=neox_id)
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
@pytest.mark.parametrize("pos_emb", ["alibi", "rpe", "kerple_log", "rotary"], ids=neox_id)
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
def test_rope_models_are_those_of_transformers(tmp_path: Path, parallel: bool, share: float) -> None:
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


@pytest.mark.parametrize("pos_emb", ["fire_c", "rope_dapev1", "rpe"], ids=neox_id)
def test_the_native_form_computes_the_same(tmp_path: Path, pos_emb: str) -> None:
    model = opened(write(tmp_path / "run", pos_emb, layers_of(pos_emb), gpt_j_residual=True).folder)
    Native.save(model.model, model.spec, tmp_path / "native", torch.float32)
    back = Native.load(tmp_path / "native", LoadOptions())
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


def test_half_precision_weights_of_dape_fire_are_read_in_the_dtype_that_is_asked_for(tmp_path: Path) -> None:
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
