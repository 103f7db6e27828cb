"""Folders of Hugging Face: what is missing, damaged, hostile or elsewhere, and settings that cannot be."""

import builtins
import importlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lpe_eval.data.corpus import open_corpus
from lpe_eval.errors import CheckpointError, MissingExtra, SpecError
from lpe_eval.measure.plan import plan_models
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.checkpoints.huggingface import HuggingFace
from lpe_eval.model.foreign.transformers_library import failures_told
from lpe_eval.reference import split_settings
from lpe_eval.spec.corpus_spec import CorpusSpec
from lpe_eval.spec.ppl_spec import PerplexitySpec
from tests.support.transformers_models import SYMBOLS, llama, save


def test_a_folder_without_a_tokenizer_asks_for_one(tmp_path):
    folder = save(llama(), tmp_path / "model", tokenizer=False)
    assert locate(f"hf:{folder}").peek(LoadOptions()).tokenizer == ""
    spec = {"models": [f"hf:{folder}"], "corpus": "python-stdlib", "protocols": [{"name": "last"}],
            "lengths": [8], "max_tokens": 9}  # fmt: skip
    with pytest.raises(CheckpointError, match="--tokenizer"):
        plan_models(PerplexitySpec.model_validate(spec), open_corpus(CorpusSpec.parse("python-stdlib")), LoadOptions())
    assert locate(f"hf:{folder}").peek(LoadOptions(tokenizer="bytes")).tokenizer == "bytes"


def test_a_token_beyond_the_vocabulary_is_told_in_a_sentence(tmp_path):
    model = HuggingFace.load(save(llama(), tmp_path / "model"), LoadOptions())
    with pytest.raises(CheckpointError, match="id 61"):
        model.hidden(torch.full((1, 4), SYMBOLS), 4, torch.Generator())


def test_equal_files_have_equal_digests_and_a_changed_weight_another(tmp_path):
    folder = save(llama(), tmp_path / "model")
    first = HuggingFace.peek(folder, LoadOptions()).digest
    assert HuggingFace.load(folder, LoadOptions()).facts.digest == first
    weights = folder / "model.safetensors"
    held = bytearray(weights.read_bytes())
    held[-1] ^= 1
    weights.write_bytes(bytes(held))
    assert HuggingFace.peek(folder, LoadOptions()).digest != first


def test_missing_and_superfluous_weights_are_told(tmp_path):
    folder = save(llama(), tmp_path / "model")
    file = folder / "config.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    for layers, told in ((3, "lacks model.layers.2"), (1, "does not know: model.layers.1")):
        file.write_text(json.dumps(raw | {"num_hidden_layers": layers}), encoding="utf-8")
        with pytest.raises(CheckpointError, match=told):
            HuggingFace.load(folder, LoadOptions())
    file.write_text(json.dumps(raw | {"intermediate_size": 64}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"shape|size"):
        HuggingFace.load(folder, LoadOptions())


def test_damaged_files_are_told_in_one_sentence(tmp_path):
    folder = save(llama(), tmp_path / "model")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:100], whole[: len(whole) // 2], b"", b"\xff" * 64):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=str(folder)) as caught:
            HuggingFace.load(folder, LoadOptions())
        assert "\n" not in str(caught.value)
    weights.unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        HuggingFace.load(folder, LoadOptions())
    for text in ("", "[]", "{", '{"model_type": "no such thing"}', '{"model_type": 3}'):
        (folder / "config.json").write_text(text, encoding="utf-8")
        weights.write_bytes(whole)
        with pytest.raises(CheckpointError, match=str(folder)) as caught:
            HuggingFace.load(folder, LoadOptions())
        assert "\n" not in str(caught.value)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        HuggingFace.load(folder, LoadOptions())


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_malicious_weight_file_executes_nothing(tmp_path):
    folder = save(llama(), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "executed"
    torch.save({"model.embed_tokens.weight": Malicious(marker)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"asks for (builtins\.)?getattr.*refused"):
        HuggingFace.load(folder, LoadOptions())
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Malicious(marker), protocol=2))
    with pytest.raises(CheckpointError, match=str(folder)):
        HuggingFace.load(folder, LoadOptions())
    assert not marker.exists()


def test_code_of_a_checkpoint_is_refused_without_the_flag(tmp_path):
    folder = save(llama(), tmp_path / "model")
    file = folder / "config.json"
    marker = tmp_path / "executed"
    raw = json.loads(file.read_text(encoding="utf-8")) | {
        "model_type": "homemade",
        "auto_map": {"AutoConfig": "homemade.Config", "AutoModelForCausalLM": "homemade.Model"},
    }
    file.write_text(json.dumps(raw), encoding="utf-8")
    (folder / "homemade.py").write_text(f"open({str(marker)!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="--trust-remote-code"):
        HuggingFace.load(folder, LoadOptions())
    assert not marker.exists()


def test_without_a_network_one_sentence_names_the_model(tmp_path):
    code = (
        "from lpe_eval.model.checkpoint import LoadOptions, locate\n"
        "from lpe_eval.errors import CheckpointError\n"
        "try:\n"
        "    locate('hf:some-org/some-model@main').peek(LoadOptions())\n"
        "except CheckpointError as error:\n"
        "    print(error)\n"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=offline, check=True)
    assert done.stdout.startswith("hf:some-org/some-model@main is neither a local folder, nor in the cache")
    assert done.stdout.count("\n") == 1


def test_a_cached_model_of_the_hub_is_opened_without_a_network(tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--some-org--some-model"
    save(llama(), cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit, encoding="utf-8")
    code = (
        "from lpe_eval.data.tokenizer import open_tokenizer\n"
        "from lpe_eval.model.checkpoint import LoadOptions, locate\n"
        "for reference in ('some-org/some-model', 'some-org/some-model@main?rope_scaling=yarn:4'):\n"
        "    located = locate(f'hf:{reference}')\n"
        "    peek = located.peek(LoadOptions())\n"
        "    facts = located.load(LoadOptions()).facts\n"
        "    assert facts.digest == peek.digest\n"
        "    print(peek.name, peek.tokenizer, open_tokenizer(peek.tokenizer).vocab_size, facts.encoding, sep='|')\n"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=offline, check=False)
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines() == [
        f"some-model|hf:some-org/some-model|{SYMBOLS}|rope",
        f"some-model yarn:4|hf:some-org/some-model@main|{SYMBOLS}|rope(yarn)",
    ]


@pytest.mark.slow
def test_the_code_of_a_checkpoint_runs_with_the_flag_and_is_part_of_its_digest(tmp_path):
    folder = save(llama(), tmp_path / "model")
    file = folder / "config.json"
    raw = json.loads(file.read_text(encoding="utf-8")) | {
        "model_type": "homemade",
        "auto_map": {"AutoConfig": "homemade.Config", "AutoModelForCausalLM": "homemade.Model"},
    }
    file.write_text(json.dumps(raw), encoding="utf-8")
    code = (
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        "class Config(LlamaConfig):\n    model_type = 'homemade'\n\n\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n"
    )
    (folder / "homemade.py").write_text(code, encoding="utf-8")
    program = (
        "import sys\n"
        "from lpe_eval.model.checkpoint import LoadOptions, locate\n"
        "model = locate('hf:' + sys.argv[1]).load(LoadOptions(trust_remote_code=True))\n"
        "print(type(model.model).__name__, model.facts.digest)\n"
    )
    digests = []
    for text in (code, code + "# changed\n"):
        (folder / "homemade.py").write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        )  # fmt: skip
        name, digest = done.stdout.split()
        assert name == "Model"
        digests.append(digest)
    assert digests[0] != digests[1]


def test_without_transformers_the_extra_is_named(tmp_path, monkeypatch):
    folder = save(llama(), tmp_path / "model")
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.partition(".")[0] == "transformers":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"lpe-eval\[hf\]"):
        HuggingFace.load(folder, LoadOptions())


@pytest.mark.parametrize(
    ("text", "told"),
    [("a?", "question mark"), ("a?b", "not key=value"), ("a?b=1&b=2", "twice"), ("a?b=[", "not YAML")],
)
def test_settings_that_cannot_be_read_are_told(text, told):
    with pytest.raises(SpecError, match=told):
        split_settings(text)


def test_an_unknown_setting_is_told(tmp_path):
    folder = save(llama(), tmp_path / "model")
    with pytest.raises(SpecError, match="no setting rope_sclaing"):
        locate(f"hf:{folder}?rope_sclaing=yarn:4").peek(LoadOptions())
    with pytest.raises(SpecError, match="rope_theta must be a number"):
        locate(f"hf:{folder}?rope_theta=much").peek(LoadOptions())


def test_a_revision_belongs_to_the_hub(tmp_path):
    folder = save(llama(), tmp_path / "model")
    with pytest.raises(SpecError, match="no effect on the local folder"):
        locate(f"hf:{folder}").peek(LoadOptions(revision="main"))
    with pytest.raises(SpecError, match="give one"):
        locate("hf:org/name@one").peek(LoadOptions(revision="two"))


def test_a_way_of_quantising_that_the_library_does_not_know_is_refused(tmp_path):
    folder = save(llama(), tmp_path / "model", tokenizer=False)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "unheard-of"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"is quantised by unheard-of, which transformers .* does not know"):
        HuggingFace.load(folder, LoadOptions())


def test_a_module_that_is_not_installed_is_named():
    told = r"hf:it needs the module nowhere_to_be_found, .* pip install nowhere_"
    with pytest.raises(CheckpointError, match=told), failures_told("hf:it", local=True):
        importlib.import_module("nowhere_to_be_found")


def test_weights_of_another_shape_are_told_by_name(tmp_path):
    folder = save(llama(), tmp_path / "model", tokenizer=False)
    held = load_file(folder / "model.safetensors")
    held["model.norm.weight"] = torch.ones(7)
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"has weights of another shape than the config's: model\.norm\.weight"):
        HuggingFace.load(folder, LoadOptions())
