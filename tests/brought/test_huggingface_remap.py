"""Models of `transformers` at other distances, against the formulas, and refused where that cannot be exact."""

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from lpe_eval.errors import CheckpointError, SpecError, UnknownName
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.foreign.transformers_attention import _CHANGES
from lpe_eval.model.foreign.transformers_model import TransformersModel
from lpe_eval.model.remap_options import parse_remap
from lpe_eval.model.rope_scalings import DynamicNtk, Linear, Yarn
from lpe_eval.model.rotary import Frequencies, inverse_frequencies
from tests.support import llama_oracle, remap_oracle
from tests.support.transformers_models import STREAM, SYMBOLS, TRAINED, config_of, save, since_version_5

LENGTH = 200
SIZES: dict[str, Any] = {
    "vocab_size": SYMBOLS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": TRAINED,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EVERY_HEAD = {name: value for name, value in SIZES.items() if name != "num_key_value_heads"}
REMAPS = [
    "self_extend:group=3,window=20",
    "self_extend:group=4,window=17,division=real",
    "rerope:window=24",
    "rerope:window=5,log_n=false",
    "leaky_rerope:window=24,factor=4",
    "dca:chunk_size=40,local=8",
    "dca:chunk_size=40,local=8,length_factor=chunkllama",
    "dca:chunk_size=21,local=5,length_factor=vllm,log_n=true",
    "log_n",
]


def opened(folder: Path, settings: str = "", **options: Any) -> TransformersModel:
    model = locate(f"hf:{folder}{settings}").load(LoadOptions(**options))
    assert isinstance(model, TransformersModel)
    return model


def answers(model: TransformersModel, length: int = LENGTH) -> Tensor:
    return model.logits(model.hidden(STREAM[:, :length], length, torch.Generator())[0])


def plainly(folder: Path, remap: str, inverse: Tensor, magnitude: float = 1.0) -> Tensor:
    """The logits from the formulas, for frequencies that any rule gave."""
    found = parse_remap(remap).resolved(TRAINED, "here")
    whole = remap_oracle.length_factor(found.factor, LENGTH, TRAINED) * magnitude**2
    numbers, original = dict(found.chosen), TRAINED if found.scaled else None
    return llama_oracle.logits(folder, STREAM[:, :LENGTH], found.method, numbers, inverse, original, whole)[0]


def near(found: Tensor, wanted: Tensor, within: float = 1e-5) -> None:
    assert (found.double() - wanted).abs().max() <= within * wanted.abs().max()


def with_biases(folder: Path) -> Path:
    """The same weights, with biases and norms drawn too."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, each in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                each.add_(0.2 * torch.randn(each.shape, generator=draw))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    configs = {
        "llama": transformers.LlamaConfig(**SIZES),
        "qwen2": transformers.Qwen2Config(**SIZES),
        "qwen3": transformers.Qwen3Config(**SIZES, head_dim=8),
    }
    return {name: with_biases(save(config, place / name)) for name, config in configs.items()}


@pytest.mark.parametrize("remap", REMAPS)
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_logits_are_those_of_the_formulas(name: str, remap: str, folders: dict[str, Path]) -> None:
    model = opened(folders[name], f"?remap={remap}")
    near(answers(model), plainly(folders[name], remap, inverse_frequencies(8, 10000.0)))
    assert model.facts.prefix_stable == ("length_factor" not in remap)
    assert model.attention == "hf-remapped"
    assert model.facts.encoding == f"remap(rope, {remap.partition(':')[0]})"


@pytest.mark.parametrize("remap", REMAPS[:1] + REMAPS[2:3] + REMAPS[5:6])
@pytest.mark.parametrize("rule", ["linear:2", pytest.param("yarn:4", marks=since_version_5), "dynamic:2"])
def test_scaled_frequencies_and_another_base_serve_as_well(rule: str, remap: str, folders: dict[str, Path]) -> None:
    factor = float(rule.partition(":")[2])
    found: Frequencies = {
        "linear": Linear(factor=factor), "yarn": Yarn(factor=factor), "dynamic": DynamicNtk(factor=factor)
    }[rule.partition(":")[0]].frequencies(8, 20000.0, TRAINED, LENGTH)  # fmt: skip
    model = opened(folders["llama"], f"?remap={remap}&rope_scaling={rule}&rope_theta=20000")
    near(answers(model), plainly(folders["llama"], remap, found.inverse, found.attention_factor), 2e-5)
    assert model.facts.encoding == f"remap(rope({rule.partition(':')[0]}), {remap.partition(':')[0]})"
    assert model.facts.prefix_stable == (not rule.startswith("dynamic"))


ONE, EVERY = {**SIZES, "num_hidden_layers": 1}, {**EVERY_HEAD, "num_hidden_layers": 1}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral": ("MistralConfig", {**ONE, "sliding_window": None}),
    "phi": ("PhiConfig", {**ONE, "partial_rotary_factor": 0.5}),
    "gpt_neox": ("GPTNeoXConfig", EVERY),
    "gemma": ("GemmaConfig", {**ONE, "head_dim": 8}),
    "olmo": ("OlmoConfig", ONE),
    "glm": ("GlmConfig", {**ONE, "head_dim": 8}),
}
OF_VERSION_5: dict[str, tuple[str, dict[str, Any]]] = {
    "phi3": ("Phi3Config", ONE),
    "gemma2": ("Gemma2Config", {**ONE, "head_dim": 8, "layer_types": ["full_attention"]}),
    "gemma3": ("Gemma3TextConfig", {**ONE, "head_dim": 8, "layer_types": ["full_attention"]}),
    "olmo2": ("Olmo2Config", ONE),
    "smollm3": ("SmolLM3Config", ONE),
    "cohere": ("CohereConfig", ONE),
    "stablelm": ("StableLmConfig", ONE),
    "persimmon": ("PersimmonConfig", EVERY),
    "modernbert_decoder": (
        "ModernBertDecoderConfig",
        {**EVERY, "cls_token_id": 1, "sep_token_id": 2, "layer_types": ["full_attention"]},
    ),
    "deepseek_v3": (
        "DeepseekV3Config",
        {
            **EVERY, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
            "moe_intermediate_size": 16, "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 6, "v_head_dim": 8, "first_k_dense_replace": 1,
        },
    ),
}  # fmt: skip
"""Each with one layer and full attention, in every way in which the library turns queries and keys."""
NEWER = int(transformers.__version__.partition(".")[0]) >= 5
FAMILIES |= OF_VERSION_5 if NEWER else {}
of_version_5 = pytest.mark.skipif(not NEWER, reason="transformers 4 has no such model")


@torch.no_grad()
def last_row(folder: Path, distances: Tensor) -> Tensor:
    """What the unmapped model answers at the last token if each token stands as far away as `distances` says.

    With one layer the last row depends on no other one, so any distances to its keys are positions of the keys.
    """
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens, positions = STREAM[:, : len(distances)], (distances.max() - distances).long()[None]
    # With a mask of ones, positions that do not run on are not taken for several texts in one.
    return model(tokens, position_ids=positions, attention_mask=torch.ones_like(tokens)).logits[0, -1]


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_answers_as_if_its_keys_stood_at_the_mapped_distances(name: str, tmp_path: Path) -> None:
    kind, fields = FAMILIES[name]
    folder = with_biases(save(getattr(transformers, kind)(**fields), tmp_path / name))
    for remap in ("self_extend:group=3,window=17", "dca:chunk_size=25,local=4"):
        found = parse_remap(remap).resolved(TRAINED, "here")
        model = opened(folder, f"?remap={remap}")
        for length in (12, 76):
            wanted = last_row(folder, remap_oracle.table(length, found.method, dict(found.chosen))[-1])
            near(answers(model, length)[-1], wanted.double(), 3e-5)


@of_version_5
def test_layers_with_windows_or_without_rope_are_left_alone_and_counted(tmp_path: Path) -> None:
    four: dict[str, Any] = {**SIZES, "num_hidden_layers": 4}
    gemma = transformers.Gemma3TextConfig(
        **four, head_dim=8, sliding_window=16, layer_types=["sliding_attention", "full_attention"] * 2
    )
    model = opened(save(gemma, tmp_path / "gemma"), "?remap=rerope:window=20,log_n=false")
    assert list(model.notes()) == ["its remap leaves of 4 layers 2 that see a window as they are"]
    assert model.recorded()["remap"]["layers"] == 2
    own = answers(opened(tmp_path / "gemma"), 100)
    near(answers(model, 100)[:20], own[:20].double())
    assert (answers(model, 100)[20:] - own[20:]).abs().max() > 0.01 * own.abs().max()
    smol = save(transformers.SmolLM3Config(**four), tmp_path / "smol")
    model = opened(smol, "?remap=rerope:window=20")
    assert list(model.notes()) == ["its remap leaves of 4 layers 1 without RoPE as they are"]
    assert model.facts.encoding == "remap(rope+none, rerope)"


@of_version_5
def test_a_soft_cap_is_kept_in_layers_of_both_kinds(tmp_path: Path) -> None:
    config = transformers.Gemma2Config(**SIZES, head_dim=8, sliding_window=16, attn_logit_softcapping=2.0)
    folder = save(config, tmp_path / "gemma")
    # Nothing is far below 100 tokens, and windows end at 16.
    own, kept = (answers(opened(folder, each), 90) for each in ("", "?remap=rerope:window=100,log_n=false"))
    near(kept, own.double(), 2e-5)


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


@of_version_5
def test_a_model_that_changes_what_it_has_turned_is_refused(tmp_path: Path) -> None:
    config = transformers.HunYuanDenseV1Config(**SIZES, head_dim=8)
    folder = with_biases(save(config, tmp_path / "hunyuan"))
    with pytest.raises(CheckpointError, match="layer 0 turns its queries and keys by more than"):
        opened(folder, "?remap=rerope")


@of_version_5
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
