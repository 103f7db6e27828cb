"""Models of `transformers` at other distances, against the formulas, and refused where that cannot be exact."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from lpe_eval.model.remap_options import parse_remap
from lpe_eval.model.rope_scalings import DynamicNtk, Linear, Yarn
from lpe_eval.model.rotary import Frequencies, inverse_frequencies
from tests.support import llama_oracle, remap_oracle
from tests.support.remapped_models import EVERY_HEAD, LENGTH, REMAPS, SIZES, answers, near, opened, saved, with_biases
from tests.support.transformers_models import STREAM, TRAINED, save, since_version_5

pytestmark = pytest.mark.slow


def plainly(folder: Path, remap: str, inverse: Tensor, magnitude: float = 1.0) -> Tensor:
    """The logits from the formulas, for frequencies that any rule gave."""
    found = parse_remap(remap).resolved(TRAINED, "here")
    whole = remap_oracle.length_factor(found.factor, LENGTH, TRAINED) * magnitude**2
    numbers, original = dict(found.chosen), TRAINED if found.scaled else None
    return llama_oracle.logits(folder, STREAM[:, :LENGTH], found.method, numbers, inverse, original, whole)[0]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return saved(tmp_path_factory.mktemp("models"))


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


@since_version_5
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


@since_version_5
def test_a_soft_cap_is_kept_in_layers_of_both_kinds(tmp_path: Path) -> None:
    config = transformers.Gemma2Config(**SIZES, head_dim=8, sliding_window=16, attn_logit_softcapping=2.0)
    folder = save(config, tmp_path / "gemma")
    # Nothing is far below 100 tokens, and windows end at 16.
    own, kept = (answers(opened(folder, each), 90) for each in ("", "?remap=rerope:window=100,log_n=false"))
    near(kept, own.double(), 2e-5)
