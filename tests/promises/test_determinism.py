"""The same command gives the same values: in one process, in two, resumed, and with --deterministic."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.errors import SpecError
from lpe_eval.measure.determinism import deterministic
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.transformer import Transformer
from lpe_eval.report.folders.ppl import read_run
from lpe_eval.spec.model_spec import CheckpointSpec
from lpe_eval.spec.ppl_spec import PerplexitySpec
from lpe_eval.spec.train_spec import TrainSpec

pytestmark = pytest.mark.slow

ENCODINGS = ("kerple_log", "dape(kerple_log)", "randomized(rope)", "cope")
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    for number, encoding in enumerate(ENCODINGS):
        shape = {"width": 16, "layers": 2, "heads": 2, "mlp_width": 32, "train_length": 32, "encoding": encoding}
        spec = CheckpointSpec.model_validate({"schema": 1, "name": f"m{number}", "model": shape})
        model = Transformer(spec.model)
        model.initialise(torch.Generator().manual_seed(number))
        for parameter in model.parameters():
            parameter.data *= 4  # Far from uniform, so that context moves the loss.
        Native.save(model, spec, root / f"m{number}", torch.float32)
    return sorted(root.iterdir())


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(f"word{(each * each) % 91}" for each in range(200)))
    return path


def arguments(models: list[Path], text: Path, out: Path, *more: str) -> list[str]:
    named = [part for each in models for part in ("-m", str(each))]
    fixed = ["--data", str(text), "--lengths", "16,64", "--protocol", "sliding", "--max-tokens", "900"]
    return ["ppl", *named, *fixed, "-q", "--out", str(out), *more]


def in_this_process(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)


def in_a_process_of_its_own(arguments: list[str]) -> None:
    threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "lpe_eval", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=threads)
    assert done.returncode == 0, done.stderr


def test_the_same_command_gives_the_same_bytes_again_in_another_process_and_with_the_flag(models, text, tmp_path):
    in_this_process(arguments(models, text, tmp_path / "first"))
    in_this_process(arguments(models, text, tmp_path / "again"))
    in_a_process_of_its_own(arguments(models, text, tmp_path / "elsewhere"))
    in_this_process(arguments(models, text, tmp_path / "flag", "--deterministic"))
    first = (tmp_path / "first" / "rows.csv").read_bytes()
    assert b"nan" not in first and first.count(b"\n") == 1 + len(ENCODINGS) * 2 * 3
    assert (tmp_path / "again" / "rows.csv").read_bytes() == first
    assert (tmp_path / "elsewhere" / "rows.csv").read_bytes() == first
    flagged, plain = (read_run(tmp_path / each) for each in ("flag", "first"))
    assert flagged.rows.drop(columns="run").equals(plain.rows.drop(columns="run"))
    assert flagged.spec["deterministic"] is True and flagged.provenance["environment"]["deterministic"] is True
    assert "deterministic" not in plain.spec and plain.provenance["environment"]["deterministic"] is False
    assert not torch.are_deterministic_algorithms_enabled()


def test_cells_measured_in_a_second_start_have_the_values_of_the_first(models, text, tmp_path):
    in_this_process(arguments(models, text, tmp_path / "whole"))
    in_this_process(arguments(models, text, tmp_path / "torn"))
    for number, cell in enumerate(sorted((tmp_path / "torn" / "cells").glob("*.json"))):
        if number % 2:
            cell.unlink()
    in_a_process_of_its_own(arguments(models, text, tmp_path / "torn"))
    assert (tmp_path / "torn" / "rows.csv").read_bytes() == (tmp_path / "whole" / "rows.csv").read_bytes()


def test_a_training_ends_with_the_same_weights_in_another_process_and_with_the_flag(text, tmp_path):
    (tmp_path / "text").mkdir()
    for split in ("train", "valid"):
        (tmp_path / "text" / f"{split}.txt").write_text(text.read_text())
    shape = ["--width", "16", "--layers", "1", "--heads", "2", "--train-length", "32", "--batch-tokens", "64"]

    def command(out: str) -> list[str]:
        where = ["--corpus", str(tmp_path / "text"), "--out", str(tmp_path / out)]
        return ["train", "--encoding", "dape(kerple_log)", "--steps", "3", *where, *shape, "-q"]

    in_this_process(command("one"))
    in_a_process_of_its_own(command("two"))
    in_this_process([*command("flag"), "--deterministic"])
    weights = [(tmp_path / each / "model.safetensors").read_bytes() for each in ("one", "two", "flag")]
    assert weights[0] == weights[1] == weights[2]
    assert yaml.safe_load((tmp_path / "flag" / "spec.yaml").read_text())["deterministic"] is True


def test_the_switches_are_put_back_also_after_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(WORKSPACE, raising=False)
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled() and WORKSPACE not in os.environ
    with pytest.raises(KeyError), deterministic(True):
        assert torch.are_deterministic_algorithms_enabled() and os.environ[WORKSPACE] == ":4096:8"
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled() and WORKSPACE not in os.environ
    monkeypatch.setenv(WORKSPACE, ":16:8")
    with deterministic(True):
        assert os.environ[WORKSPACE] == ":16:8"
    assert os.environ[WORKSPACE] == ":16:8"


def test_a_workspace_that_does_not_repeat_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with pytest.raises(SpecError, match="unset it, or set :4096:8"), deterministic(True):
        raise AssertionError("nothing may run")


def test_a_step_without_a_deterministic_form_is_told_in_a_sentence():
    with pytest.raises(SpecError, match="--deterministic: put_ does not have a deterministic"), deterministic(True):
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
    with pytest.raises(RuntimeError, match="size of tensor"), deterministic(True):
        torch.zeros(3) + torch.zeros(4)


def test_fields_that_came_later_leave_the_text_of_older_specs_as_it_was():
    fields = {"models": ["alibi"], "corpus": "python-stdlib", "protocols": [{"name": "last"}], "lengths": [8]}
    spec = PerplexitySpec.model_validate({**fields, "max_tokens": 9})
    assert not {"deterministic", "task_fingerprint"} & spec.model_dump().keys()
    training = TrainSpec.model_validate({"name": "m", "model": {"encoding": "alibi"}, "corpus": "python-stdlib"})
    assert "deterministic" not in training.model_dump()
    assert TrainSpec.model_validate({**training.model_dump(), "deterministic": True}).model_dump()["deterministic"]
