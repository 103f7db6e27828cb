"""Weights that are replaced between planning and loading: no row may hold values of other weights than it names."""

import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.errors import CheckpointError
from lpe_eval.measure import problem_rows
from lpe_eval.model.checkpoint import LoadOptions, Located, locate
from lpe_eval.model.checkpoints.native import Native
from lpe_eval.model.unchanged import stamps
from lpe_eval.report.folders.ppl import read_run
from lpe_eval.report.frames import read_csv
from lpe_eval.spec.released import released_encoders
from lpe_eval.table import CHE
from tests.support.native_checkpoints import checkpoint

CHANGED = "changed while it was being measured; run again"


def command(*arguments: object, code: int) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "400"})
    assert result.exit_code == code, result.output + repr(result.exception)
    return " ".join(result.output.split())


def replace(folder: Path, other: Path) -> None:
    """The weights of another checkpoint under the name of these, as a training that saves writes them."""
    for file in other.iterdir():
        shutil.copyfile(file, folder / f"{file.name}.new")
        (folder / f"{file.name}.new").replace(folder / file.name)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for seed, name in enumerate(("mine", "steady", "other")):
        checkpoint(tmp_path / name, name="mine" if name == "other" else None, seed=seed)
    (tmp_path / "text.txt").write_text(" ".join(f"word{number * number % 91}" for number in range(400)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


FLAGS = ("--data", "text.txt", "--lengths", "16,32", "--max-tokens", 900, "--protocol", "nonoverlap", "-q")


@pytest.mark.parametrize("moment", ["before the load", "in the load"])
def test_cells_of_a_model_whose_weights_were_replaced_fail_and_the_others_have_values(
    place: Path, monkeypatch: pytest.MonkeyPatch, moment: str
):
    load = Native.load

    def replaced_meanwhile(path, options):
        if Path(path).name != "mine" or (place / "done").exists():
            return load(path, options)
        (place / "done").touch()
        if moment == "before the load":
            replace(place / "mine", place / "other")
            return load(path, options)
        model = load(path, options)
        replace(place / "mine", place / "other")
        return model

    monkeypatch.setattr(Native, "load", replaced_meanwhile)
    told = command("ppl", "-m", "mine", "-m", "steady", *FLAGS, "--out", "run", code=4)
    assert f"the checkpoint mine {CHANGED}" in told
    rows = read_run(place / "run").rows
    assert {name: set(found.status) for name, found in rows.groupby("model")} == {"mine": {"failed"}, "steady": {"ok"}}
    # The same command again is another run, of the new weights, and says so; in a folder of its own it ends well.
    assert "holds another run" in command("ppl", "-m", "mine", "-m", "steady", *FLAGS, "--out", "run", code=1)
    command("ppl", "-m", "mine", "-m", "steady", *FLAGS, "--out", "again", code=0)


def test_weights_overwritten_in_place_with_as_many_bytes_are_seen(place: Path):
    located, options = locate("mine"), LoadOptions()
    planned = located.peek(options)
    with (place / "mine" / "model.safetensors").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\0\0")
    with pytest.raises(CheckpointError, match=CHANGED):
        located.load_planned(options, planned)


def test_files_that_were_only_touched_are_the_same_checkpoint(place: Path, monkeypatch: pytest.MonkeyPatch):
    located, options = locate("mine"), LoadOptions()
    planned, load = located.peek(options), Located.load

    def touched_meanwhile(self, options):
        model = load(self, options)
        os.utime(place / "mine" / "model.safetensors")
        return model

    monkeypatch.setattr(Located, "load", touched_meanwhile)
    assert located.load_planned(options, planned).facts.digest == planned.digest


def test_a_factory_that_draws_other_weights_each_time_is_told_so(place: Path):
    (place / "own.py").write_text(
        "import torch\n\n\ndef make():\n    return torch.nn.Sequential(torch.nn.Embedding(256, 4), "
        "torch.nn.Linear(4, 256))\n"
    )
    told = command("ppl", "-m", "py:own.py:make", *FLAGS, "--out", "run", code=4)
    assert "is another model each time it is opened; draw its weights from a seed" in told


def test_stamps_see_folders_below_and_heed_no_settings(tmp_path: Path):
    (tmp_path / "run" / "global_step1").mkdir(parents=True)
    (tmp_path / "run" / "global_step1" / "layer.pt").write_bytes(b"1")
    before = stamps(tmp_path / "run")
    assert stamps(f"{tmp_path / 'run'}?vocab=5") == before and len(before) == 1
    (tmp_path / "run" / "global_step1" / "layer.pt").write_bytes(b"22")
    assert stamps(tmp_path / "run") != before
    assert stamps("org/name@main") == []


def test_encoders_that_were_replaced_fail_and_are_not_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(released_encoders()["rope"], tmp_path / "rope")
    load, tasks = problem_rows.load_encoder, "cycle_navigation,even_pairs,parity_check"

    def replaced_meanwhile(folder, config, task, device):
        if task == "even_pairs":
            weights = folder / f"{task}.safetensors"
            held = bytearray(weights.read_bytes())
            held[-2:] = b"\0\0"
            weights.with_suffix(".new").write_bytes(held)
            weights.with_suffix(".new").replace(weights)
        return load(folder, config, task, device)

    monkeypatch.setattr(problem_rows, "load_encoder", replaced_meanwhile)
    flags = ("--tasks", tasks, "--lengths", 10, "--samples", 8, "--device", "cpu", "-q")
    told = command("che", "-m", tmp_path / "rope", *flags, "--out", tmp_path / "run", code=4)
    assert CHANGED in told
    rows = read_csv(tmp_path / "run" / "che.csv", CHE)
    status = {task: set(found.status) for task, found in rows.groupby("task")}
    assert status == {"cycle_navigation": {"ok"}, "even_pairs": {"failed"}, "parity_check": {"failed"}}
