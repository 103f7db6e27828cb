"""How a reference on the command line becomes a format and an address."""

import json
from pathlib import Path

import pytest

from lpe_eval.errors import CheckpointError, SpecError, UnknownName
from lpe_eval.measure.plan import split_alias
from lpe_eval.model.checkpoint import SHORT_NAMES, LoadOptions, locate
from lpe_eval.registry import CHECKPOINTS


def name_of(reference: str) -> str:
    return locate(reference).format.__module__.rpartition(".")[2]


@pytest.mark.parametrize(
    ("reference", "format_name", "address"),
    [
        ("hf:EleutherAI/pythia-70m@step3000", "huggingface", "EleutherAI/pythia-70m@step3000"),
        ("huggingface:./x", "huggingface", "./x"),
        ("py:pkg.module:factory?url=http://a//b&n=2", "python", "pkg.module:factory?url=http://a//b&n=2"),
        ("python:dir/file.py:make", "python", "dir/file.py:make"),
        ("native:runs/mine", "native", "runs/mine"),
    ],
)
def test_a_prefix_settles_the_format_and_keeps_the_address_as_it_is(reference, format_name, address):
    assert name_of(reference) == format_name
    assert locate(reference).path == address


def test_every_short_name_is_of_a_format():
    for short, name in SHORT_NAMES.items():
        assert name in CHECKPOINTS.names()
        assert locate(f"{short}:x").format is CHECKPOINTS.load(name)


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_folder_is_recognised_by_its_content(tmp_path):
    native = write(tmp_path / "a", {"config.yaml": "", "model.safetensors": ""})
    hugging = write(tmp_path / "b", {"config.json": json.dumps({"model_type": "llama"}), "model.safetensors": ""})
    (tmp_path / "c.py").write_text("", encoding="utf-8")
    assert name_of(str(native)) == "native"
    assert name_of(str(hugging)) == "huggingface"
    assert name_of(str(tmp_path / "c.py")) == "python"


def test_no_two_formats_claim_one_folder(tmp_path):
    folders = [
        write(tmp_path / "a", {"config.yaml": "", "model.safetensors": ""}),
        write(tmp_path / "b", {"config.json": json.dumps({"model_type": "llama"}), "model.safetensors": ""}),
        write(tmp_path / "d", {"notes.txt": ""}),
    ]
    claims = [[name for name in CHECKPOINTS.names() if CHECKPOINTS.load(name).recognises(each)] for each in folders]
    assert claims == [["native"], ["huggingface"], []]


def test_a_folder_of_two_formats_asks_for_a_prefix(tmp_path):
    both = {"config.yaml": "", "model.safetensors": "", "config.json": json.dumps({"model_type": "llama"})}
    folder = write(tmp_path / "both", both)
    with pytest.raises(CheckpointError, match=f"huggingface:{folder} or native:{folder}"):
        locate(str(folder))


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"something": "else"}'])
def test_a_config_of_something_else_is_not_a_model(text, tmp_path):
    folder = write(tmp_path / "x", {"config.json": text})
    with pytest.raises(CheckpointError, match="not a checkpoint of any known format"):
        locate(str(folder))


def test_what_is_not_there_is_told_with_a_hint():
    with pytest.raises(UnknownName, match="did you mean hf"):
        locate("hff:org/name")
    with pytest.raises(UnknownName, match="did you mean native"):
        locate("natve:runs/mine")
    with pytest.raises(CheckpointError, match="hf:org/name"):
        locate("org/name")
    with pytest.raises(CheckpointError, match="no checkpoint at /no/such/place"):
        locate("/no/such/place")
    with pytest.raises(CheckpointError, match=r"py:dir/model\.py:make"):
        locate("dir/model.py:make")
    with pytest.raises(CheckpointError, match="names no checkpoint"):
        locate("hf:")
    with pytest.raises(UnknownName):
        locate("nothing-like-this")


def test_an_option_that_a_format_ignores_is_refused(tmp_path):
    of_fairseq = [LoadOptions(rope_theta=1e6), LoadOptions(rope_scaling="yarn:4"), LoadOptions(remap="rerope")]
    ignored = [("fairseq", options) for options in of_fairseq] + [("native", LoadOptions(revision="main"))]
    for name, options in ignored:
        located = locate(f"{name}:{tmp_path}")
        with pytest.raises(SpecError, match="has no effect"):
            located.peek(options)
        with pytest.raises(SpecError, match="has no effect"):
            located.load(options)


@pytest.mark.parametrize(
    ("text", "alias", "reference"),
    [
        ("mine=hf:org/name", "mine", "hf:org/name"),
        ("my model (1)=py:f.py:make?a=1", "my model (1)", "py:f.py:make?a=1"),
        ("py:f.py:make?a=1&b=2", "", "py:f.py:make?a=1&b=2"),
        ("runs/a=b", "", "runs/a=b"),
        ("alibi", "", "alibi"),
    ],
)
def test_a_name_is_told_from_a_reference_with_an_equals_sign(text, alias, reference):
    assert split_alias(text) == (alias, reference)
