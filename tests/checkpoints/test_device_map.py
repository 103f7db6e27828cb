"""Models of `transformers` whose parts lie in several places: the bytes of a model that lies in one."""

import gc
import json
import math
from pathlib import Path

import pytest
import torch
import transformers

from lpe_eval.errors import CheckpointError, LengthError, MissingExtra, SpecError, UnknownName
from lpe_eval.interface.measuring import ppl
from lpe_eval.measure.device import placed_device
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.checkpoints.huggingface import HuggingFace
from lpe_eval.model.foreign.transformers_placing import resolved
from lpe_eval.spec.device_map import checked, parse_device_map
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.spec.recall_spec import RecallSpec
from tests.support.transformers_models import STREAM, SYMBOLS, TRAINED, config_of, save

DIVIDED = {
    "llama": {"": "cpu", "model.layers.1": "disk", "lm_head": "disk"},
    "gpt2": {"transformer.wte": "disk", "lm_head": "disk", "transformer.h.0": "disk", "": "cpu"},
    "pythia": {"": "disk", "gpt_neox.layers.0": "cpu"},
    "mistral": {"model.layers": "disk", "": "cpu"},
    "qwen2": {"model.layers.0.mlp": "disk", "": "cpu"},
    "bloom": {"": "disk"},
    "gemma2": {"": "disk", "model.layers.1.self_attn": "cpu"},
}


def config(name: str) -> transformers.PreTrainedConfig:
    sizes = {"vocab_size": SYMBOLS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": TRAINED}  # fmt: skip
    match name:
        case "mistral":
            return transformers.MistralConfig(**sizes, sliding_window=16)
        case "qwen2":
            return transformers.Qwen2Config(**sizes, tie_word_embeddings=True)
        case "gemma2":
            return transformers.Gemma2Config(**sizes, head_dim=8, sliding_window=16)
    return config_of("llama plain" if name == "llama" else name)


def scores(model, length: int):
    tokens = STREAM[:, :length]
    return model.logits(model.hidden(tokens, length, torch.Generator()).flatten(0, 1))


@pytest.mark.parametrize("name", DIVIDED)
def test_a_model_in_several_places_gives_the_bytes_of_one_in_main_memory(name, tmp_path):
    folder = save(config(name), tmp_path / "model", tokenizer=False)
    plain = HuggingFace.load(folder, LoadOptions())
    for device_map in (DIVIDED[name], "auto" if name == "llama" else {"": "cpu"}):
        model = HuggingFace.load(folder, LoadOptions(device_map=device_map))
        away = sum(each.device.type == "meta" for each in model.model.parameters())
        assert (away > 0) == (device_map == DIVIDED[name]), "what lies on disk is on no device between passes"
        assert model.attention == plain.attention and model.facts == plain.facts
        for length in (12, 2 * TRAINED):
            if name == "gpt2" and length > TRAINED:
                with pytest.raises(LengthError, match="ends at 64"):
                    scores(model, length)
                continue
            assert torch.equal(scores(model, length), scores(plain, length))
    assert model.recorded() == {"device_map": {"all": "cpu"}}


@pytest.mark.parametrize("changes", [{"remap": "rerope:window=20"}, {"rope_scaling": "dynamic:2"}])
@pytest.mark.parametrize("name", ["llama", "pythia"])
def test_what_is_ours_in_a_layer_works_where_the_layer_lies(name, changes, tmp_path):
    folder = save(config(name), tmp_path / "model", tokenizer=False)
    plain, model = (HuggingFace.load(folder, LoadOptions(device_map=each, **changes)) for each in (None, DIVIDED[name]))
    for length in (16, 2 * TRAINED):
        assert torch.equal(scores(model, length), scores(plain, length))


def test_the_files_of_a_run_with_a_map_are_those_of_one_without(tmp_path):
    folder = save(config("llama"), tmp_path / "model")
    (tmp_path / "text.txt").write_text(" ".join(f"w{1 + n * n % 60}" for n in range(400)), encoding="utf-8")
    for out, device_map in (("plain", None), ("mapped", DIVIDED["llama"])):
        ppl(f"hf:{folder}", [16, 32], data=tmp_path / "text.txt", max_tokens=150, out=tmp_path / out,
            device_map=device_map)  # fmt: skip
    one, other = ((tmp_path / out / "rows.csv").read_bytes() for out in ("plain", "mapped"))
    assert one == other and one.count(b",ok,") > 0
    assert "model.layers.1: disk" in (tmp_path / "mapped" / "spec.yaml").read_text(encoding="utf-8")
    provenance = json.loads((tmp_path / "mapped" / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["models"]["model"]["opened"]["device_map"]["model.layers.1"] == "disk"


def test_what_position_adds_is_read_from_layers_on_disk(tmp_path):
    folder = save(config("llama"), tmp_path / "model", tokenizer=False)
    found: list[list] = []
    for device_map in (None, DIVIDED["llama"]):
        layers: list = []
        model = HuggingFace.load(folder, LoadOptions(device_map=device_map))
        model.last_query(STREAM[:, :50], torch.Generator(), layers.append)
        found.append(layers)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.content, other.content) and torch.equal(one.added, other.added)


def test_the_folder_of_converted_weights_goes_with_the_model(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    folder = save(config("llama"), tmp_path / "model", tokenizer=False)
    model = HuggingFace.load(folder, LoadOptions(device_map=DIVIDED["llama"]))
    assert len(list(tmp_path.glob("lpe-eval-offload-*"))) == 1
    del model
    gc.collect()
    assert not list(tmp_path.glob("lpe-eval-offload-*"))


def test_files_that_change_under_weights_on_disk_are_noticed(tmp_path):
    folder = save(config("llama"), tmp_path / "model", tokenizer=False)
    model = HuggingFace.load(folder, LoadOptions(device_map=DIVIDED["llama"]))
    scores(model, 12)
    weights = folder / "model.safetensors"
    (tmp_path / "copy").write_bytes(weights.read_bytes())
    (tmp_path / "copy").replace(weights)
    with pytest.raises(CheckpointError, match="changed while it was being measured"):
        scores(model, 12)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.mlp = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)


class Stack(torch.nn.Module):
    _no_split_modules = ["Layer"]

    def __init__(self):
        super().__init__()
        self.embedding, self.head = torch.nn.Embedding(3, 2), torch.nn.Linear(2, 3, bias=False)
        self.head.weight = self.embedding.weight
        self.layers = torch.nn.ModuleList([Layer(), Layer()])
        self.idle = torch.nn.Identity()


def test_a_map_becomes_places_of_whole_parts():
    places = resolved({"": "cuda:1", "layers": "cpu", "layers.1": "disk"}, Stack(), "it")
    assert places == {"embedding": "cuda:1", "head": "cuda:1", "layers.0": "cpu", "layers.1": "disk", "idle": "cuda:1"}
    named = {"embedding": "cpu", "layers": "disk", "head": "cpu"}
    assert resolved(named, Stack(), "it") == named, "what holds no numbers needs no place"
    stored = {"": "cuda:1", "layers.0.mlp": "cpu", "layers.1.attention": "disk"}
    assert resolved(stored, Stack(), "it")["layers.0.mlp"] == "cpu", "it is computed on the card as well"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"": "cpu", "layer.0": "disk"}, r"'layer.0'; did you mean layers"),
        ({"layers": "cpu"}, "gives embedding of it no place"),
        ({"": "cpu", "head": "disk"}, r"embedding of it on cpu and head on disk, and they share a weight"),
        ({"layers.0": "cpu", "embedding": "cpu", "head": "cpu"}, r"gives layers.1 of it no place"),
        (
            {"": "cuda:0", "layers.1.mlp": "cuda:1"},
            r"parts of layers.1 of it on cuda:0 and cuda:1; a layer is computed",
        ),
        ({"": "cpu", "layers.0.mlp.weight": "disk"}, "no part of it"),
    ],
)
def test_a_map_that_does_not_fit_is_told(asked, told):
    with pytest.raises(SpecError, match=told):
        resolved(asked, Stack(), "it")


def test_a_wrong_map_is_told_before_weights_are_read(tmp_path):
    folder = save(config("llama"), tmp_path / "model", tokenizer=False)
    with pytest.raises(UnknownName, match=r"did you mean model\.layers"):
        HuggingFace.peek(folder, LoadOptions(device_map={"": "cpu", "model.layer.0": "disk"}))
    with pytest.raises(SpecError, match=r"gives lm_head of hf:.* no place"):
        HuggingFace.load(folder, LoadOptions(device_map={"model": "cpu"}))


def test_other_formats_have_no_map():
    with pytest.raises(SpecError, match=r"--device-map has no effect on .*alibi.*Native"):
        locate("alibi").peek(LoadOptions(device_map="auto"))


def test_without_accelerate_the_extra_is_named_and_everything_else_works(tmp_path, monkeypatch):
    folder = save(config("llama"), tmp_path / "model", tokenizer=False)
    monkeypatch.setattr("transformers.utils.is_accelerate_available", lambda *_: False)
    with pytest.raises(MissingExtra, match=r"--device-map needs an extra: pip install 'lpe-eval\[large\]'"):
        locate(str(folder)).peek(LoadOptions(device_map="auto"))
    assert HuggingFace.load(folder, LoadOptions()).facts.name == "model"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("automatic", "cannot be read: No such file or directory; write auto, balanced, sequential"),
        ("{'': 'cpu'}", "is not JSON"),
        ("map.json", "holds list"),
        ("broken.json", "is not JSON"),
    ],
)
def test_a_map_that_cannot_be_read_is_told(text, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("map.json").write_text("[1]", encoding="utf-8")
    Path("broken.json").write_text('{"": ', encoding="utf-8")
    with pytest.raises(SpecError, match=told):
        parse_device_map(text)


def test_a_map_is_typed_as_a_word_as_json_or_as_a_file(tmp_path):
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"": 0, "lm_head": "cpu"}), encoding="utf-8")
    assert parse_device_map("auto") == "auto"
    assert checked(parse_device_map('{"": "disk"}')) == {"": "disk"}
    assert checked(parse_device_map(str(file))) == {"": "cuda:0", "lm_head": "cpu"}
    for wrong in ("everywhere", {}, {"": "cpu:1"}, {"": "meta"}, {"": True}, {"": -1}, {1: "cpu"}, {"": None}):
        with pytest.raises(ValueError, match=r"device map|cannot lie on|have names"):
            checked(wrong)


def test_a_map_says_what_computes(monkeypatch):
    assert placed_device("auto", {"": "disk"}) == torch.device("cpu")
    assert placed_device("cpu", {"": "cpu"}, local=3) == torch.device("cpu")
    with pytest.raises(SpecError, match="every rank of torchrun"):
        placed_device("auto", {"": "cuda:0"}, local=0)
    if not torch.cuda.is_available():
        with pytest.raises(SpecError, match="--device-map cuda:7: no such device"):
            placed_device("auto", {"": "cuda:7"})


def test_a_field_that_is_not_used_leaves_specs_as_they_were():
    fields = {"models": ["alibi"], "corpus": {"name": "python_stdlib"}, "protocols": [{"name": "nonoverlap"}],
              "lengths": [64], "max_tokens": 300}  # fmt: skip
    for spec in (PerplexitySpec.model_validate(fields), RecallSpec(models=("alibi",))):
        assert not {"device_map", "tensor_parallel"} & set(spec.model_dump(mode="json"))
    spec = PerplexitySpec.model_validate({**fields, "device_map": {"": 0}})
    assert spec.opening == {"device_map": {"": "cuda:0"}} == {"device_map": spec.model_dump()["device_map"]}
    assert math.isfinite(len(repr(spec)))
