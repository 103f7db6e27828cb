"""Remaps of models of `transformers` that cannot be exact are refused, and what was mapped is told."""

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lpe_eval.errors import CheckpointError, SpecError, UnknownName
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.foreign.transformers_attention import _CHANGES
from tests.support.remapped_models import REMAPS, SIZES, answers, near, opened, saved, with_biases
from tests.support.transformers_models import SYMBOLS, TRAINED, config_of, save, since_version_5


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return saved(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("name", ["falcon", "gptj", "codegen"])
def test_a_family_that_does_not_look_its_attention_up_is_refused_before_anything_is_read(
    name: str, tmp_path: Path
) -> None:
    sizes: dict[str, Any] = {"vocab_size": SYMBOLS, "n_positions": TRAINED, "n_embd": 32, "n_layer": 1, "n_head": 4}
    config = {
        "falcon": lambda: transformers.FalconConfig(
            vocab_size=SYMBOLS, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, alibi=False
        ),
        "gptj": lambda: transformers.GPTJConfig(**sizes, rotary_dim=4),
        "codegen": lambda: transformers.CodeGenConfig(**sizes, rotary_dim=4),
    }[name]()
    folder = save(config, tmp_path / name)
    with pytest.raises(CheckpointError, match="does not go through the registration of transformers"):
        locate(f"hf:{folder}?remap=rerope:window=4").peek(LoadOptions())


@pytest.mark.parametrize("name", ["gpt2", "opt", "bloom", "mpt", "falcon"])
def test_a_model_without_rope_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    folder = save(config_of(name), tmp_path / "model")
    with pytest.raises(CheckpointError, match=f"type {name} has no RoPE.*measure it without one") as caught:
        locate(f"hf:{folder}?remap=rerope").peek(LoadOptions())
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="no RoPE"):
        locate(f"hf:{folder}").peek(LoadOptions(remap="rerope"))


def test_a_model_whose_layers_all_see_windows_is_refused(tmp_path: Path) -> None:
    folder = save(transformers.MistralConfig(**SIZES, sliding_window=16), tmp_path / "mistral")
    with pytest.raises(CheckpointError, match="every layer with RoPE sees a window"):
        opened(folder, "?remap=rerope")


@since_version_5
def test_a_model_that_changes_what_it_has_turned_is_refused(tmp_path: Path) -> None:
    config = transformers.HunYuanDenseV1Config(**SIZES, head_dim=8)
    folder = with_biases(save(config, tmp_path / "hunyuan"))
    with pytest.raises(CheckpointError, match="layer 0 turns its queries and keys by more than"):
        opened(folder, "?remap=rerope")


@since_version_5
def test_a_model_whose_attention_does_more_than_is_registered_is_refused(tmp_path: Path) -> None:
    """Sinks are handed over beside queries and keys, and nothing here knows them."""
    config = transformers.GptOssConfig(
        **SIZES, head_dim=8, num_local_experts=2, num_experts_per_tok=1, sliding_window=16,
        layer_types=["full_attention"] * 2, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    folder = save(config, tmp_path / "gpt_oss")
    with pytest.raises(CheckpointError, match="does more than transformers registers"):
        opened(folder, "?remap=rerope")


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ("?remap=rerope:window=0", SpecError, "window.*greater than or equal to 1"),
        ("?remap=self_extend:group=0", SpecError, "group.*greater than or equal to 1"),
        ("?remap=selfextend", UnknownName, "did you mean self_extend"),
        ("?remap=dca:chunk_size=4,local=8", SpecError, "chunk_size above local"),
        ("?remap=", UnknownName, "no remap of distances"),
        ("?remaps=rerope", SpecError, "no setting remaps"),
    ],
)
def test_bad_settings_are_told_in_a_sentence(
    settings: str, error: type[Exception], told: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(error, match=told) as caught:
        locate(f"hf:{folders['llama']}{settings}").peek(LoadOptions())
    assert "\n" not in str(caught.value)


def test_flag_and_address_are_one_and_each_remap_is_a_model_of_its_own(folders: dict[str, Path]) -> None:
    place = f"hf:{folders['llama']}"
    by_flag = locate(place).peek(LoadOptions(remap="rerope:window=4", rope_scaling="yarn:4"))
    assert by_flag == locate(f"{place}?remap=rerope:window=4&rope_scaling=yarn:4").peek(LoadOptions())
    assert by_flag == locate(f"{place}?rope_scaling=yarn:4&remap={{method: rerope, window: 4}}").peek(LoadOptions())
    assert by_flag.name == "llama yarn:4 rerope:window=4"
    digests = {locate(f"{place}{each}").peek(LoadOptions()).digest for each in ("", *(f"?remap={x}" for x in REMAPS))}
    assert len(digests) == 1 + len(REMAPS)
    # The training length says what is meant.
    meant = locate(f"{place}?remap=self_extend:window=16,group=8").peek(LoadOptions()).digest
    assert locate(f"{place}?remap=self_extend").peek(LoadOptions()).digest == meant


def test_lengths_may_come_in_any_order_and_models_side_by_side(folders: dict[str, Path]) -> None:
    place = folders["llama"]
    models = [opened(place, each) for each in ("", "?remap=rerope:window=9&rope_scaling=dynamic:2", "?remap=dca")]
    alone = {}
    for length in (32, 200, 96):
        alone[length] = [answers(each, length) for each in models]
    for length in (200, 32, 96):
        for model, wanted in zip(reversed(models), reversed(alone[length]), strict=True):
            assert torch.equal(answers(model, length), wanted)


def test_a_model_that_is_dropped_leaves_nothing_behind(folders: dict[str, Path]) -> None:
    gc.collect()
    before = len(_CHANGES)
    model = opened(folders["llama"], "?remap=rerope")
    assert len(_CHANGES) == before + 2
    del model
    gc.collect()
    assert len(_CHANGES) == before


def test_an_attention_path_that_would_not_be_taken_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(SpecError, match="leave --attention hf-sdpa out"):
        locate(f"hf:{folders['llama']}?remap=rerope").peek(LoadOptions(attention="hf-sdpa"))


def test_how_many_layers_of_half_precision_turn_is_still_seen(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**{**SIZES, "num_hidden_layers": 24})
    folder = save(config, tmp_path / "deep")
    model = opened(folder, "?remap=rerope:window=20,log_n=false", dtype=torch.bfloat16)
    assert model.recorded()["remap"]["layers"] == 24


def test_half_precision_stays_near(folders: dict[str, Path]) -> None:
    exact = answers(opened(folders["llama"], "?remap=rerope:window=20"))
    near(answers(opened(folders["llama"], "?remap=rerope:window=20", dtype=torch.bfloat16)), exact.double(), 0.1)


PEAK = """
import resource, sys, torch
from lpe_eval.model.checkpoint import LoadOptions, locate
model = locate(sys.argv[1]).load(LoadOptions())
tokens = torch.randint(61, (1, int(sys.argv[2])), generator=torch.Generator().manual_seed(0))
model.hidden(tokens[:, :512], 1, torch.Generator())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model.hidden(tokens, 1, torch.Generator())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("remap", ["self_extend:group=8,window=512", "dca:chunk_size=900,local=100"])
def test_memory_grows_with_the_length_and_not_its_square(remap: str, folders: dict[str, Path]) -> None:
    def peak(length: int) -> float:
        command = [sys.executable, "-c", PEAK, f"hf:{folders['llama']}?remap={remap}", str(length)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    # A matrix of logits, or a mask of truth values, would take 1,024 MiB a head, or 256.
    assert peak(16384) < 130


def test_what_was_mapped_is_told(folders: dict[str, Path]) -> None:
    told = dict(opened(folders["llama"], "?remap=self_extend:window=20").architecture())["remap"]
    assert told == "method self_extend, window 20, group 8, division floor, log_n False, layers 2"
    assert json.dumps(opened(folders["llama"], "?remap=dca").recorded()["remap"]) == (
        '{"method": "dca", "chunk_size": 48, "local": 8, "log_n": false, "length_factor": "none", "layers": 2}'
    )
