"""Where a number came from is written down, is ours and not the neighbour's, and tells nothing of the user."""

import getpass
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.measure.provenance import Account, cost, driver_version, invocation, publishable, source
from lpe_eval.report.folders.ppl import read_run
from lpe_eval.spec.tasks import read_task

CPU = torch.device("cpu")


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=clean).stdout.strip()


def repository(folder: Path, package: str = "lpe_eval") -> str:
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text("version = 1\n")
    (folder / "README.md").write_text("read me\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return git(folder, "rev-parse", "HEAD")


def test_the_commit_is_of_our_own_tree_whatever_the_current_folder_and_the_environment_say(tmp_path, monkeypatch):
    ours = repository(tmp_path / "ours")
    theirs = repository(tmp_path / "theirs", "novel")
    monkeypatch.chdir(tmp_path / "theirs")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "theirs" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "theirs"))
    found = source(tmp_path / "ours" / "lpe_eval")
    assert found["commit"] == ours != theirs and found["dirty"] is False


def test_changed_and_new_files_of_the_package_make_it_dirty_and_others_do_not(tmp_path: Path):
    repository(tmp_path)
    package = tmp_path / "lpe_eval"
    before = source(package)
    (tmp_path / "README.md").write_text("read me too\n")
    assert source(package) == before and before["dirty"] is False
    (package / "new.py").write_text("")
    untracked = source(package)
    assert untracked["dirty"] is True and untracked["files"] != before["files"]
    (package / "new.py").unlink()
    (package / "__init__.py").write_text("version = 2\n")
    changed = source(package)
    assert changed["dirty"] is True and changed["commit"] == before["commit"] and changed["files"] != before["files"]


def test_a_package_that_only_lies_inside_somebodys_repository_has_no_commit(tmp_path: Path):
    repository(tmp_path, "novel")
    (tmp_path / "lpe_eval").mkdir()
    (tmp_path / "lpe_eval" / "__init__.py").write_text("")
    found = source(tmp_path / "lpe_eval")
    assert found["commit"] is None and found["note"] == "an installed package; it has no commit"


def test_an_installed_package_has_the_commit_that_pip_noted_or_says_that_there_is_none(tmp_path, monkeypatch):
    package, metadata = tmp_path / "lpe_eval", tmp_path / "lpe_eval-9.dist-info"
    for folder in (package, metadata):
        folder.mkdir()
    (package / "__init__.py").write_text("")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lpe-eval\nVersion: 9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "no commit" in source(package)["note"]
    noted = {"url": "file:///home/alice/lpe", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}
    (metadata / "direct_url.json").write_text(json.dumps(noted))
    found = source(package)
    assert found["commit"] == "c0ffee" and "alice" not in json.dumps(found)
    (metadata / "direct_url.json").write_text("{")
    assert source(package)["commit"] is None


def test_a_repository_without_a_commit_is_said_to_be_one(tmp_path: Path):
    (tmp_path / "lpe_eval").mkdir()
    (tmp_path / "lpe_eval" / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    assert source(tmp_path / "lpe_eval")["note"] == "git does not tell the commit of this source tree"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("/home/al/runs/x", "~/runs/x"),
        ("/home/al", "~"),
        ("/home/alice/x", "/home/alice/x"),
        ("/mnt/home/al/x", "/mnt/home/al/x"),
        ("hf:/home/al/model?dtype=x", "hf:~/model?dtype=x"),
        ("file:///home/al/x", "file://~/x"),
        ("NAME=/home/al/x", "NAME=~/x"),
        ("cannot read '/home/al/x y'", "cannot read '~/x y'"),
        (Path("/home/al/x"), "~/x"),
        ({"/home/al/k": ["/home/al", 3, None, True, 0.5]}, {"~/k": ["~", 3, None, True, 0.5]}),
        (("a", "/home/al"), ["a", "~"]),
    ],
)
def test_the_home_directory_is_written_as_a_tilde(given: Any, told: Any):
    assert publishable(given, ["/home/al/"]) == told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("/home/al/eval/out", "out"),
        ("/home/al/eval//out/", "out/"),
        ("/home/al/eval", "."),
        ("/home/al/eval/", "."),
        ("mine=/home/al/eval/x,/home/al/eval/y", "mine=x,y"),
        ("/home/al/evaluation/x", "~/evaluation/x"),
        ("/data/home/al/eval/x", "/data/home/al/eval/x"),
        ("/home/al/x", "~/x"),
    ],
)
def test_what_lies_in_the_current_directory_is_told_from_there(given: str, told: str):
    assert publishable({"argv": [given]}, ["/home/al"], "/home/al/eval/") == {"argv": [told]}


@pytest.mark.parametrize("here", ["/", "/home/al"])
def test_a_current_directory_that_is_the_root_or_the_home_makes_no_path_relative(here: str):
    assert publishable("/home/al/x:/data", ["/home/al"], here) == "~/x:/data"


def test_a_current_directory_that_is_gone_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert publishable("/home/al/x:/data", ["/home/al"]) == "~/x:/data"


def test_a_home_that_is_the_root_hides_nothing():
    assert publishable("/data/x", ["/"]) == "/data/x"


def test_the_command_is_told_without_the_place_of_the_program():
    assert invocation(["/home/al/.venv/bin/lpe-eval", "ppl", "-m", "/data/x"]) == ["lpe-eval", "ppl", "-m", "/data/x"]
    assert invocation(["/home/al/lpe_eval/__main__.py", "ppl"]) == ["lpe-eval", "ppl"]
    assert invocation(["/home/al/study.py"]) == ["study.py"]
    assert invocation([""]) == invocation([]) == ["lpe-eval"]


def test_starts_are_kept_each_with_its_environment_where_that_was_another(monkeypatch: pytest.MonkeyPatch):
    first = Account(CPU, {}).provenance({"kind": "ppl"}, cells=2)
    again = Account(CPU, first).provenance({"kind": "ppl"}, cells=1)
    assert [each["cells"] for each in again["starts"]] == [2, 1] and again["kind"] == "ppl"
    assert all(each["seconds"] >= 0 for each in again["starts"])
    assert not any("environment" in each for each in again["starts"])
    monkeypatch.setattr("lpe_eval.__version__", "99")
    moved = Account(CPU, again).provenance({})
    assert [each.get("environment", {}).get("lpe_eval") for each in moved["starts"]] == ["0.1.0", "0.1.0", None]
    assert moved["environment"]["lpe_eval"] == "99"
    later = Account(CPU, moved).provenance({})
    assert [each.get("environment", {}).get("lpe_eval") for each in later["starts"]] == ["0.1.0", "0.1.0", None, None]


def test_a_clock_that_goes_backwards_costs_nothing(monkeypatch: pytest.MonkeyPatch):
    account = Account(CPU, {})
    monkeypatch.setattr("time.monotonic", lambda: -1e9)
    assert account.provenance({})["starts"][-1]["seconds"] == 0.0


def test_cost_is_a_quotient_where_there_was_any_time():
    assert cost(1000, 0.5, 12.34)["tokens_per_second"] == 2000 and cost(0, 0.0, None)["tokens_per_second"] is None


def test_the_driver_is_read_as_the_kernel_module_writes_it(tmp_path: Path):
    path = tmp_path / "version"
    assert driver_version(path) is None
    path.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:\n"
    )
    assert driver_version(path) == "550.54.15"
    path.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build\n")
    assert driver_version(path) == "560.35.03"
    path.write_text("something else\n")
    assert driver_version(path) is None


def lpe_eval(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output + repr(result.exception)


def secrets_of(home: Path) -> list[str]:
    told = [sys.executable, sys.prefix, str(home), socket.gethostname(), getpass.getuser()]
    # A name such as `root` or `vm` is part of ordinary words; one of five letters is not.
    return [each for each in told if len(each) > 4]


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user whose home is the current folder, with a text in it."""
    home = tmp_path / "user-wanda"
    (home / "text").mkdir(parents=True)
    for split in ("train", "valid", "test"):
        (home / "text" / f"{split}.txt").write_text(" ".join(f"word{(each * each) % 91}" for each in range(300)))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return home


SHAPE = ("--width", "16", "--layers", "1", "--heads", "2")
TRAIN = ("train", "--encoding", "dape(kerple_log)", "--steps", "2", "--train-length", "32", "--batch-tokens", "64")


def test_every_kind_of_run_says_where_it_came_from_and_nothing_of_the_user(at_home: Path):
    lpe_eval(*TRAIN, *SHAPE, "--corpus", at_home / "text", "--out", "model", "--seed", "3", "-q")
    command = [sys.executable, "-m", "lpe_eval", "ppl", "-m", at_home / "model", "--data", "text/test.txt"]
    command += ["--lengths", "32,64", "--max-tokens", "500", "--out", "run", "-q"]
    subprocess.run([str(each) for each in command], check=True, capture_output=True)
    lpe_eval("speed", "--encoding", "alibi", "--lengths", "16", "--mode", "forward", *SHAPE, "--out", "speed", "-q")
    found = {kind: json.loads((at_home / kind / "provenance.json").read_text()) for kind in ("model", "run", "speed")}
    for kind, known in found.items():
        text = (at_home / kind / "provenance.json").read_text()
        assert not [each for each in secrets_of(at_home) if each in text], kind
        here = known["environment"]
        assert {"lpe_eval", "source", "python", "platform", "libraries", "device", "threads"} <= here.keys()
        assert here["threads"] == torch.get_num_threads() or kind == "run"
        assert here["libraries"]["torch"] == torch.__version__ and len(here["source"]["files"]) == 64
        assert known["starts"][-1]["seconds"] > 0 and known["starts"][-1]["began"].endswith("+00:00")
        assert known["attention"] and known["dtype"] and known["seeds"]
    run, model = found["run"], found["model"]
    assert run["starts"][0]["argv"][:4] == ["lpe-eval", "ppl", "-m", "~/model"]
    assert run["corpus"]["path"] == "text/test.txt" and model["corpus"]["describe"]["path"] == "~/text"
    assert run["cost"]["tokens"] > 0 and run["cost"]["tokens_per_second"] > 0 and run["cost"]["peak_memory_mib"] > 50
    assert model["cost"]["tokens"] == 2 * 64 and model["cost"]["peak_memory_mib"] > 50
    (opened,) = run["models"].values()
    assert opened["digest"] == model["checkpoint_digest"] and len(opened["text_fingerprint"]) == 64
    assert opened["opened"]["encoding_options"] == {"name": "dape", "base": {"name": "kerple_log"}}
    assert opened["opened"]["n_parameters"] == model["n_parameters"]
    assert run["seeds"] == {"documents_and_positions": 0} and model["seeds"] == {"weights_and_order": 3}
    assert found["speed"]["models"].keys() == {"plain", "alibi"} and "sdpa" in found["speed"]["attention"]


def ppl(at_home: Path, *more: object) -> dict[str, Any]:
    lpe_eval("ppl", "-m", "alibi", "--lengths", "32", "--protocol", "nonoverlap", "--out", at_home / "run", "-q", *more)
    return read_run(at_home / "run").provenance


def test_a_task_is_known_by_the_fingerprint_of_the_file_that_was_used(at_home: Path):
    official = ppl(at_home, "--max-tokens", 200)["task"]
    assert official == {"name": "python-stdlib", "version": 1, "fingerprint": read_task("python-stdlib").fingerprint}
    custom = ppl(at_home, "--data", "text/test.txt", "--max-tokens", 200, "--overwrite")["task"]
    assert custom == {"name": "custom", "version": 0, "fingerprint": None}
    mine = "name: python-stdlib\nversion: 1\ntitle: t\ncorpus: text/test.txt\nprotocols: [{name: last}]\n"
    (at_home / "python-stdlib.yaml").write_text(f"{mine}lengths: [8]\nmax_tokens: 99\n")
    copied = ppl(at_home, "--task", "python-stdlib.yaml", "--max-tokens", 200, "--overwrite")["task"]
    assert copied["fingerprint"] == read_task("python-stdlib.yaml").fingerprint != official["fingerprint"]
    lpe_eval("run", at_home / "run" / "spec.yaml", "--out", at_home / "again", "-q")
    again = read_run(at_home / "again").provenance
    assert again["task"] == copied and again["run"] == read_run(at_home / "run").provenance["run"]


def test_a_start_with_nothing_to_do_leaves_the_provenance_and_one_with_something_adds_to_it(at_home: Path):
    first = ppl(at_home, "--data", "text/test.txt", "--max-tokens", 200)
    assert ppl(at_home, "--data", "text/test.txt", "--max-tokens", 200) == first
    (cell,) = (at_home / "run" / "cells").glob("*.json")
    cell.unlink()
    second = ppl(at_home, "--data", "text/test.txt", "--max-tokens", 200)
    assert [each["cells"] for each in second["starts"]] == [1, 1] and second["models"] == first["models"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"models": 3}', '{"starts": {}}', '{"models": {"alibi": []}}'])
def test_a_damaged_provenance_of_an_earlier_start_is_written_anew(at_home: Path, damage: str):
    ppl(at_home, "--data", "text/test.txt", "--max-tokens", 200)
    (at_home / "run" / "provenance.json").write_text(damage)
    anew = ppl(at_home, "--data", "text/test.txt", "--max-tokens", 200)
    assert len(anew["starts"]) == 1 and anew["models"]["alibi"]["digest"]
