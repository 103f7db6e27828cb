"""Changes of RoPE in models that have one for each type of layer, and NTK-aware scaling as another base."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from lpe_eval.errors import CheckpointError, SpecError
from lpe_eval.model.checkpoint import LoadOptions, locate
from tests.support.transformers_models import STREAM, SYMBOLS, TRAINED, llama, save

SIZES: dict[str, Any] = {
    "vocab_size": SYMBOLS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": TRAINED, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16,
}  # fmt: skip
by_layer = pytest.mark.skipif(
    int(transformers.__version__.partition(".")[0]) < 5, reason="transformers 4 has no RoPE for each type of layer"
)


def config(name: str) -> Any:
    if name == "gemma3":
        return transformers.Gemma3TextConfig(**SIZES, num_key_value_heads=2, head_dim=8)
    ends = {"cls_token_id": 1, "sep_token_id": 2}
    return transformers.ModernBertDecoderConfig(**{**SIZES, "local_attention": 32, **ends})


def answers(reference: str) -> Tensor:
    model = locate(reference).load(LoadOptions())
    return model.logits(model.hidden(STREAM[:, :150], 150, torch.Generator())[0])


def written(folder: Path, layer_type: str, fields: dict[str, Any], place: Path) -> Path:
    """The same weights under a config that says so."""
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    raw["rope_parameters"][layer_type] = {**raw["rope_parameters"][layer_type], **fields}
    (place / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    return place


@by_layer
@pytest.mark.parametrize("name", ["gemma3", "modernbert_decoder"])
@pytest.mark.parametrize(
    ("settings", "layer_type", "fields"),
    [
        ("rope_scaling=full_attention:linear:4", "full_attention", {"rope_type": "linear", "factor": 4.0}),
        ("rope_scaling=sliding_attention:default&rope_theta=300", "sliding_attention", {"rope_theta": 300.0}),
    ],
)
def test_one_type_of_layers_is_changed_and_the_others_stay(
    name: str, settings: str, layer_type: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    folder = save(config(name), tmp_path / "model")
    got = answers(f"hf:{folder}?{settings}")
    torch.testing.assert_close(got, answers(f"hf:{written(folder, layer_type, fields, tmp_path / 'other')}"))
    assert (got - answers(f"hf:{folder}")).abs().max() > 1e-3


@by_layer
@pytest.mark.parametrize("name", ["gemma3", "modernbert_decoder"])
def test_without_a_type_or_with_an_unknown_one_the_types_are_named(name: str, tmp_path: Path) -> None:
    folder = save(config(name), tmp_path / "model")
    for options in (LoadOptions(rope_scaling="yarn:4"), LoadOptions(rope_theta=2e4)):
        with pytest.raises(CheckpointError, match=r"other layers; say for which.*full_attention and sliding_attention"):
            locate(f"hf:{folder}").peek(options)
    with pytest.raises(CheckpointError, match="parameters for full_attention and sliding_attention"):
        locate(f"hf:{folder}").peek(LoadOptions(rope_scaling="chunked_attention:yarn:4"))


def test_a_type_of_layers_is_refused_where_there_is_one_rope(tmp_path: Path) -> None:
    folder = save(llama(), tmp_path / "model")
    with pytest.raises(CheckpointError, match="one RoPE for all of its layers"):
        locate(f"hf:{folder}").peek(LoadOptions(rope_scaling="full_attention:yarn:4"))
    with pytest.raises(SpecError, match="no rule 'yarnn'"):
        locate(f"hf:{folder}").peek(LoadOptions(rope_scaling="full_attention:yarnn:4"))


@by_layer
def test_a_remap_takes_each_type_of_layers_as_it_is(tmp_path: Path) -> None:
    folder = save(config("gemma3"), tmp_path / "model")
    model = locate(f"hf:{folder}?remap=rerope:window=9&rope_scaling=full_attention:yarn:4").load(LoadOptions())
    assert model.facts.encoding == "remap(rope(yarn), rerope)"
    assert list(model.notes()) == ["its remap leaves of 2 layers 1 that see a window as they are"]


@pytest.mark.parametrize(("kind", "width"), [("llama", 8), ("phi", 4)])
def test_ntk_is_another_base(kind: str, width: int, tmp_path: Path) -> None:
    sizes = {name: value for name, value in SIZES.items() if name not in ("layer_types", "sliding_window")}
    made = llama() if kind == "llama" else transformers.PhiConfig(**{**sizes, "partial_rotary_factor": 0.5})
    folder = save(made, tmp_path / "model")
    base = 10000.0 * 3.0 ** (width / (width - 2))
    assert torch.equal(answers(f"hf:{folder}?rope_scaling=ntk:3"), answers(f"hf:{folder}?rope_theta={base!r}"))
    peek = locate(f"hf:{folder}?rope_scaling=ntk:3").peek(LoadOptions())
    assert peek.name == "model ntk:3"
    with pytest.raises(CheckpointError, match="leave its frequencies as they were"):
        answers(f"hf:{folder}?rope_scaling=ntk:1")
