"""`lpe-eval inspect`: what a checkpoint of each format is said to be."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.commands.inspect import inspect_checkpoint
from lpe_eval.errors import CheckpointError
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.spec.ppl_spec import PerplexitySpec
from tests.support.fairseq_reference import flags, state_dict
from tests.support.fairseq_reference import write as write_fairseq
from tests.support.native_checkpoints import native
from tests.support.neox_files import LAYERS, SYMBOLS, layers_of, write


@pytest.fixture(autouse=True)
def a_wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "220")


def neox(folder: Path, pos_emb: str = "kerple_log", **settings: object) -> Path:
    layers = {at: {key: value.half() for key, value in found.items()} for at, found in layers_of(pos_emb).items()}
    return write(folder, pos_emb, layers, **settings).folder


def inspect(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["inspect", *map(str, arguments)])
    assert result.exit_code == code, result.output + repr(result.exception)
    return "\n".join(" ".join(line.split()) for line in result.output.splitlines())


def spec(reference: str, **fields: object) -> PerplexitySpec:
    base = {"corpus": "python-stdlib", "protocols": [{"name": "nonoverlap"}], "lengths": [64], "max_tokens": 600}
    return PerplexitySpec.model_validate({"models": [reference], **base, **fields})


def tables(reference: str, **fields: object) -> dict[str, list[tuple[str, ...]]]:
    found = inspect_checkpoint(reference, spec(reference, **fields)).tables
    return {table.title: [tuple(map(str, row)) for row in table.rows] for table in found}


def test_a_native_checkpoint_is_told_in_full(tmp_path: Path) -> None:
    folder = native(tmp_path / "mine", "kerple_log", torch.bfloat16)
    told = inspect(folder)
    located = locate(str(folder))
    model = located.load(LoadOptions())
    for line in (
        "format native",
        "shape 2 layers, width 16, 2 heads of 8, MLP 32 (gelu)",
        "vocabulary 258 symbols",
        "encoding kerple_log",
        "method KERPLE-log (Chi et al. 2022, arXiv 2205.09921)",
        "train length 32",
        f"parameters {model.facts.n_parameters:,}",
        "type on disk bfloat16",
        f"digest {model.facts.digest}",
    ):
        assert line in told
    assert "tokenizer bytes (258 symbols" in told
    assert "task python-stdlib" in told and "nonoverlap 8192 8192 6 36,861" in told


def test_the_parameters_of_kerple_are_those_of_the_file_head_by_head(tmp_path: Path) -> None:
    folder = native(tmp_path / "mine", "kerple_log")
    stored = load_file(folder / "model.safetensors")
    rows = tables(str(folder))["numbers of the encoding, as stored"]
    assert [(where, name, learned) for where, name, _, learned, _ in rows] == [
        ("all layers", "bias_p", "yes"), ("all layers", "bias_a", "yes"),
    ]  # fmt: skip
    for _, name, shape, _, values in rows:
        wanted = stored[f"encodings.0.{name}"]
        assert shape == "2" and [float(each) for each in values.split()] == pytest.approx(wanted.tolist(), rel=1e-3)


def test_an_encoding_with_parameters_for_each_layer_is_told_by_layer_and_large_ones_by_range(tmp_path: Path) -> None:
    rows = tables(str(native(tmp_path / "mine", "dape(kerple_log)")))["numbers of the encoding, as stored"]
    assert {where for where, *_ in rows} == {"layer 0", "layer 1"}
    (told,) = [values for where, name, _, _, values in rows if (where, name) == ("layer 1", "second.weight")]
    stored = load_file(tmp_path / "mine" / "model.safetensors")
    matrix = next(value for name, value in stored.items() if name.endswith("1.second.weight"))
    assert told == f"{matrix.min():.4g} to {matrix.max():.4g}, mean {matrix.double().mean():.4g}"


def test_a_neox_folder_says_what_became_of_each_key(tmp_path: Path) -> None:
    folder = neox(tmp_path / "run")
    found = tables(f"neox:{folder}")
    facts = dict(found["checkpoint"])
    assert facts["format"] == "gpt_neox" and facts["type on disk"] == "float16"
    assert facts["vocabulary"] == f"{SYMBOLS} symbols" and facts["train length"] == "16"
    mapped = dict(found["keys of the file and what they became"])
    assert len(mapped) >= sum(map(len, layers_of("kerple_log").values()))
    assert any("attention.rpe.bias_p" in theirs and "bias_p" in ours for theirs, ours in mapped.items())
    assert mapped["attention.dense.bias of layer 3"] == "layers.1.attention_out.bias"
    assert dict(tables(f"neox:{folder}", as_published=True)["checkpoint"])["vocabulary"] == "128 symbols"
    assert len([key for key in mapped if "rpe.bias_p" in key]) == LAYERS


def test_a_fairseq_file_is_told_with_its_dictionary(tmp_path: Path) -> None:
    path = write_fairseq(tmp_path / "wt103", flags())
    told = inspect(path, "--task", "python-stdlib")
    assert "format fairseq" in told and "encoding alibi" in told and "head adaptive" in told
    assert f"tokenizer fairseq_dict:{path.parent / 'dict.txt'} (40 symbols" in told
    mapped = dict(tables(str(path))["keys of the file and what they became"])
    assert mapped.keys() == {key for key in state_dict(flags()) if not key.endswith(("_float_tensor", "version"))}


@pytest.mark.parametrize(("scaling", "label"), [(None, "rope"), ("yarn:4", "yarn")])
def test_a_hugging_face_folder_shows_its_frequencies(tmp_path: Path, scaling: str | None, label: str) -> None:
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "llama")
    found = tables(f"hf:{tmp_path / 'llama'}", tokenizer="bytes", rope_scaling=scaling)
    facts = dict(found["checkpoint"])
    assert facts["architecture"] == "LlamaForCausalLM" and facts["shape"] == "3 layers, width 32, 4 heads of 8"
    assert facts["type on disk"] == "bfloat16" and label in facts["encoding"] and facts["train length"] == "64"
    frequencies = {name: values for _, name, _, _, values in found["numbers of the encoding, as stored"]}["inv_freq"]
    plain = [10000.0 ** -(2 * pair / 8) for pair in range(4)]
    near = [float(each) for each in frequencies.split()] == pytest.approx(plain, rel=1e-3)
    assert near == (scaling is None)
    if scaling is not None:
        assert "rope_scaling=yarn:4" in facts["opened with"]


def test_a_learned_table_is_found_in_a_hugging_face_model(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=256, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    rows = tables(f"hf:{tmp_path / 'gpt2'}", tokenizer="bytes")["numbers of the encoding, as stored"]
    assert [(name, shape) for _, name, shape, *_ in rows] == [("transformer.wpe.weight", "64 x 32")]


def test_a_function_of_ones_own_is_told(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\nclass Own(torch.nn.Module):\n    train_length = 9\n    encoding = 'none at all'\n"
        "    def forward(self, tokens):\n        return torch.zeros(*tokens.shape, 256)\n"
    )
    told = inspect(f"py:{tmp_path / 'own.py'}:Own")
    for line in ("format python", "architecture Own", "encoding none at all", "train length 9", "type on disk unknown"):
        assert line in told


def test_a_tokenizer_that_is_missing_hides_nothing_else(tmp_path: Path) -> None:
    folder = neox(tmp_path / "run", with_vocabulary=False)
    told = inspect(f"neox:{folder}?vocab={SYMBOLS}")
    assert "cannot be opened" in told and "nothing could be measured yet" in told
    assert "keys of the file" in told and f"vocabulary {SYMBOLS} symbols" in told


def test_what_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    folder = native(tmp_path / "mine", "alibi")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    told = inspect(folder, code=2)
    assert told.startswith("error:") and "not a readable safetensors file" in told and len(told.splitlines()) == 1


def test_keys_are_listed_layer_by_layer(tmp_path: Path) -> None:
    found = tables(f"neox:{neox(tmp_path / 'run')}")["keys of the file and what they became"]
    layers = [int(ours.split(".")[1]) for _, ours in found if ours.startswith("layers.")]
    assert layers == sorted(layers) and set(layers) == set(range(LAYERS))


def test_types_on_disk_are_read_without_loading(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        folder = native(tmp_path / str(dtype), "alibi", dtype)
        assert locate(str(folder)).stored_types() == [str(dtype).removeprefix("torch.")]
    assert locate(str(neox(tmp_path / "layers"))).stored_types() == ["float16"]
    assert locate(str(neox(tmp_path / "sequential", sequential=True))).stored_types() == ["float16"]
    assert locate("hf:org/name").stored_types() == []
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert locate(f"hf:{empty}").stored_types() == []
    (empty / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a readable"):
        locate(f"hf:{empty}").stored_types()
