"""Folders of GPT-NeoX: what is missing, damaged, hostile, or disagrees with its configuration is refused and named."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lpe_eval.errors import CheckpointError, SpecError, UnknownName
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.checkpoints.gpt_neox import GptNeox
from tests.support.neox_files import LAYERS, Written, layers_of, write
from tests.support.neox_models import configs, opened


@pytest.fixture
def run(tmp_path: Path) -> Written:
    return write(tmp_path / "run", "kerple_log", layers_of("kerple_log"))


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
        ('"num-layers": 2', '"num-layers": 1000000000', r"has no layer 4\b|has no layer 5\b"),
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


def test_a_vocabulary_that_is_no_json_is_named(run: Written) -> None:
    (run.folder / "gpt2-vocab.json").write_text("[1, 2")
    refused(run, r"gpt2-vocab\.json cannot be read as a vocabulary")
    (run.folder / "gpt2-vocab.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": []}))
    assert opened(run.folder).facts.vocab_size == 2
