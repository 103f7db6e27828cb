"""Released checkpoints replaced or harmed, measured and compared as users do: none of it may exit 0."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.spec.released import released_folder

pytestmark = pytest.mark.slow


def lpe_eval(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result.exit_code, " ".join(result.output.split())


def released(name: str) -> Path:
    folder = released_folder(name)
    assert folder is not None
    return folder


def harmed(folder: Path, rows: slice) -> Path:
    """`alibi` with some rows of its embedding, which is also its head, in the reverse order."""
    shutil.copytree(released("alibi"), folder)
    weights = load_file(folder / "model.safetensors")
    embedding = weights["embedding.weight"].clone()
    embedding[rows] = embedding[rows].flip(0)
    save_file({**weights, "embedding.weight": embedding}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(("tokens", "length"), [(400, 128), (1500, 512), (2000, 512)])
def test_another_model_under_the_name_of_alibi_does_not_pass_on_little_text(tmp_path, tokens, length):
    noise = tmp_path / "noise"
    shutil.copytree(released("alibi"), noise)
    draw = torch.Generator().manual_seed(0)
    weights = load_file(noise / "model.safetensors")
    save_file(
        {n: (torch.randn(t.shape, generator=draw) * 0.02).to(t.dtype) for n, t in weights.items()},
        noise / "model.safetensors",
    )
    flags = ("--protocol", "nonoverlap", "--lengths", length, "--max-tokens", tokens, "--device", "cpu", "-q")
    assert lpe_eval("ppl", "-m", f"alibi={released('alibi')}", "--out", tmp_path / "old", *flags)[0] == 0
    code, told = lpe_eval(
        "ppl", "-m", f"alibi={released('alibi')}", "--out", tmp_path / "again", *flags, "--batch-size", 1,
        "--baseline", tmp_path / "old",
    )  # fmt: skip
    assert code == 0 and "1 same" in told, "identical weights pass however little text there is"
    for model in (released("nope"), released("sinusoidal"), noise):
        out = tmp_path / f"run-{model.name}"
        code, told = lpe_eval("ppl", "-m", f"alibi={model}", "--out", out, *flags, "--baseline", tmp_path / "old")
        assert code in (3, 5), (model, told)


def test_a_defect_that_shows_in_one_of_23_documents_fails_and_names_it(tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    for number in range(22):
        words = " ".join(f"word{(number * 7 + each * each) % 91}" for each in range(120))
        (text / f"{number:02}.txt").write_text(words)
    (text / "accents.txt").write_text(
        "Où est-il né, ce garçon étrange ? Là-bas, près de la forêt. " * 12, encoding="utf-8"
    )
    flags = (
        "--data",
        text,
        "--protocol",
        "nonoverlap",
        "--lengths",
        256,
        "--max-tokens",
        30000,
        "--device",
        "cpu",
        "-q",
    )
    lpe_eval("ppl", "-m", f"alibi={released('alibi')}", "--out", tmp_path / "old", *flags)
    bad = harmed(tmp_path / "bad", slice(128, 256))
    assert lpe_eval("ppl", "-m", f"alibi={bad}", "--out", tmp_path / "new", *flags)[0] == 0
    report = tmp_path / "gate.json"
    code, told = lpe_eval("compare", tmp_path / "new", "--baseline", tmp_path / "old", "--json", report)
    (row,) = json.loads(report.read_text())["rows"]
    assert (code, row["verdict"], row["document"]) == (3, "worse", "accents.txt"), told
    assert row["document_change"] > row["document_allowed"] and "accents.txt +" in told
