"""Native checkpoints: what is saved is what is loaded, and nothing else is accepted."""

import pickle
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from lpe_eval.errors import CheckpointError, UnknownName
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.transformer import Transformer
from lpe_eval.spec.model_spec import CheckpointSpec

OPTIONS = LoadOptions(torch.device("cpu"))
TOKENS = torch.randint(0, 31, (2, 19), generator=torch.Generator().manual_seed(0))


def saved(folder: Path, encoding="kerple_log", dtype: torch.dtype = torch.float32, **changes) -> Transformer:
    shape = {"width": 24, "layers": 2, "heads": 3, "mlp_width": 40, "vocab_size": 31, "train_length": 16}
    spec = CheckpointSpec.model_validate(
        {"schema": 1, "name": "mine", "model": {"encoding": encoding, **shape, **changes}}
    )
    model = Transformer(spec.model)
    model.initialise(torch.Generator().manual_seed(0))
    Native.save(model, spec, folder, dtype)
    return model


@pytest.mark.parametrize(
    "encoding",
    ["none", "learned", "t5", "dape(kerple_log)", {"name": "dape", "hidden": 8, "base": {"name": "fire"}}],
    ids=str,
)
@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_computes_the_same_when_loaded(tmp_path: Path, encoding, tied: bool):
    model = saved(tmp_path, encoding, tied_embeddings=tied)
    loaded = Native.load(tmp_path, OPTIONS)
    tokens = TOKENS[:, :16]
    expected = model.logits(model(tokens, torch.Generator().manual_seed(0))).flatten(0, 1)
    hidden = loaded.hidden(tokens, 16, torch.Generator().manual_seed(0)).flatten(0, 1)
    torch.testing.assert_close(loaded.logits(hidden), expected, rtol=0, atol=0)
    assert loaded.facts.n_parameters == sum(each.numel() for each in model.parameters())
    assert (loaded.facts.name, loaded.facts.train_length, loaded.facts.format) == ("mine", 16, "native")


def test_parameters_that_layers_share_are_stored_once(tmp_path: Path):
    saved(tmp_path, {"name": "dape", "base": {"name": "kerple_log", "per_layer": False}})
    names = list(load_file(tmp_path / "model.safetensors"))
    assert sum(name.endswith("bias_p") for name in names) == 1
    assert sum(name.endswith("first.weight") for name in names) == 2
    Native.load(tmp_path, OPTIONS)


def test_bfloat16_on_disk_is_float32_in_use(tmp_path: Path):
    model = saved(tmp_path, dtype=torch.bfloat16)
    assert load_file(tmp_path / "model.safetensors")["embedding.weight"].dtype == torch.bfloat16
    loaded = Native.load(tmp_path, OPTIONS)
    state = loaded.hidden(TOKENS, 1, torch.Generator())
    assert state.dtype == torch.float32
    torch.testing.assert_close(state, model(TOKENS, torch.Generator(), 1), rtol=0.05, atol=0.05)


def test_the_digest_changes_with_any_weight_and_with_the_config(tmp_path: Path):
    saved(tmp_path)
    before = Native.peek(tmp_path, OPTIONS).digest
    assert Native.peek(tmp_path, OPTIONS).digest == before
    weights = load_file(tmp_path / "model.safetensors")
    weights["embedding.weight"][0, 0] += 1
    save_file(weights, tmp_path / "model.safetensors")
    after = Native.peek(tmp_path, OPTIONS).digest
    assert after != before
    config = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace("name: mine", "name: yours"))
    assert Native.peek(tmp_path, OPTIONS).digest not in (before, after)


def break_missing(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["layers.0.mlp_in.weight"]
    save_file(weights, folder / "model.safetensors")


def break_unexpected(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "stranger": torch.zeros(1)}, folder / "model.safetensors")


def break_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "encodings.0.bias_p": torch.zeros(5)}, folder / "model.safetensors")


def break_truncated(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


class _Marks:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def break_pickle(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(_Marks(folder / "executed")))


def edit(**changes):
    def change(folder: Path) -> None:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        for key, value in changes.items():
            place = config["model"] if key in config["model"] or key == "strange" else config
            place[key] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(config))

    return change


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (break_missing, r"missing: layers\.0\.mlp_in\.weight"),
        (break_unexpected, "unexpected: stranger"),
        (break_shape, r"encodings\.0\.bias_p has shape \[5\], the config makes it \[3\]"),
        (break_truncated, "not a readable safetensors file"),
        (break_pickle, "not a readable safetensors file"),
        (lambda folder: (folder / "config.yaml").write_text("a: [1"), "cannot be read as YAML"),
        (lambda folder: (folder / "config.yaml").write_text("- 1"), "must hold a mapping, not list"),
        (lambda folder: (folder / "config.yaml").write_bytes(b"\xff\xfe\x00"), "cannot be read as YAML"),
        (lambda folder: (folder / "config.yaml").unlink(), "config.yaml is missing"),
        (edit(heads=5), "width 24 is not a multiple of 5 heads"),
        (edit(strange=1), r"model\.strange: Extra inputs are not permitted"),
        (edit(schema=2), "schema 2, newer than this program knows"),
        (edit(encoding={"name": "alibbi"}), "no encoding named 'alibbi'; did you mean alibi"),
        (edit(layers=3), "missing: layers.2"),
    ],
)
def test_a_checkpoint_that_is_not_exactly_right_is_refused(tmp_path: Path, damage, sentence: str):
    saved(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=sentence):
        Native.load(tmp_path, OPTIONS)
    assert not (tmp_path / "executed").exists()


def test_a_folder_is_found_by_its_content_and_by_prefix(tmp_path: Path):
    saved(tmp_path)
    assert locate(str(tmp_path)).format is locate(f"native:{tmp_path}").format is Native


def test_what_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        locate(str(tmp_path / "nothing"))
    with pytest.raises(CheckpointError, match="not a checkpoint of any known format"):
        locate(str(tmp_path))
    with pytest.raises(UnknownName, match="released checkpoint"):
        locate("alibbi")
