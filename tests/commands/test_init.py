"""`lpe-eval init`: what it writes works as it is, and what is there stays."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.commands.init import SPEC, WORKFLOW, begin, requirement_of
from lpe_eval.errors import SpecError
from lpe_eval.report.folders.ppl import read_run
from tests.support.native_checkpoints import checkpoint

COMMANDS: Any = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]


def said(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "checkpoints" / "mine")
    Path("texts").mkdir()
    for number in range(12):
        words = " ".join(f"word{(number * 7 + each * each) % 91}" for each in range(60))
        Path("texts", f"{number:02}.txt").write_text(words)
    return tmp_path


def test_the_spec_that_is_written_runs_as_it_is(repository: Path):
    written = said("init", "-m", "mine=checkpoints/mine", "-d", "texts", "--lengths", "32,16")
    assert "ppl.yaml .github/workflows/length-gate.yml" in written
    assert written.endswith("next: lpe-eval run ppl.yaml --dry-run")
    said("run", "ppl.yaml", "--out", "out", "-q")
    rows = read_run(repository / "out").rows
    assert set(rows.model) == {"mine"} and set(rows.length) == {16, 32} and set(rows.status) == {"ok"}
    assert set(rows.protocol) == {"nonoverlap"} and set(rows.dtype) == {"float32"}


def test_what_stands_in_comments_is_right_too(repository: Path):
    said("init", "-m", "mine=checkpoints/mine", "-d", "texts", "--lengths", "16,32")
    spec = Path("ppl.yaml")
    text = spec.read_text()
    alternatives = re.findall(r"^  # (- \{.*?\})", text, re.MULTILINE)
    assert len(alternatives) == 2
    spec.write_text(
        re.sub(r"^  # (- \{.*?\})", lambda found: f"  {found[1]}".replace("256", "8"), text, flags=re.MULTILINE)
    )
    said("run", "ppl.yaml", "--out", "out", "-q")
    assert set(read_run(repository / "out").rows.protocol) == {"nonoverlap", "sliding", "anchored-8"}
    for line in re.findall(r"lpe-eval .*", text):
        _, name, *arguments = shlex.split(line)
        assert COMMANDS[name].make_context(name, arguments)
    assert "36" not in text and yaml.safe_load(text)["max_tokens"] == 36 * 32


def test_with_no_flags_the_models_that_ship_are_measured_on_what_every_python_has(repository: Path):
    said("init")
    spec = yaml.safe_load(SPEC.read_text())
    assert spec["models"] == ["alibi", "rope"] and spec["corpus"] == "python-stdlib"
    assert spec["lengths"] == [512, 2048] and spec["max_tokens"] == 73728


def test_nothing_is_overwritten(repository: Path):
    SPEC.write_text("mine")
    assert "ppl.yaml is there already and was left as it is" in said("init")
    assert SPEC.read_text() == "mine" and WORKFLOW.is_file()
    before = WORKFLOW.read_bytes()
    assert "length-gate.yml is there already" in said("init", "--baseline", "other")
    assert WORKFLOW.read_bytes() == before
    SPEC.unlink()
    SPEC.symlink_to("nowhere")
    said("init")
    assert SPEC.is_symlink() and not Path("nowhere").exists()


def test_the_workflow_is_one_and_its_commands_are_real(repository: Path):
    said("init", "--baseline", "good")
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {"contents": "read"} and workflow["env"]["BASELINE"] == "good"
    assert Path(workflow["env"]["SPEC"]).is_file()
    scripts = [step["run"] for step in workflow["jobs"]["gate"]["steps"] if "run" in step]
    typed = re.findall(r"lpe-eval (?:[^\n|&]|\\\n)+", "\n".join(scripts).replace("\\\n", " "))
    assert len(typed) == 3
    for line in typed:
        _, name, *arguments = shlex.split(line.partition(" 2>")[0])
        assert COMMANDS[name].make_context(name, arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--lengths", "many"], "'many' is no length"),
        (["--lengths", "0"], "length must be between 1 and"),
        (["-d", "nothing"], "no corpus named 'nothing'"),
        (["--baseline", "../good"], "a baseline cannot be called"),
        (["-m", "a*"], "matches this pattern"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_writes_nothing(repository: Path, arguments: list[str], sentence: str):
    assert sentence in said("init", "there", *arguments, code=2)
    assert not Path("there").exists()


def test_text_is_looked_for_in_the_repository_that_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch):
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert said("init", "..", "-d", "texts").endswith("next: cd .. && lpe-eval run ppl.yaml --dry-run")
    assert yaml.safe_load(Path("../ppl.yaml").read_text())["corpus"] == "texts"


def test_a_folder_that_is_a_file_is_one_sentence(repository: Path):
    Path("file").write_text("x")
    assert "cannot write file/ppl.yaml" in said("init", "file", code=1)


@pytest.mark.parametrize("name", ['a: b, "c"', "- x", "#no", "mine=py:a.py:make?x=[1,2]", "ä ☃", "{x}"])
def test_names_are_written_so_that_yaml_reads_them_back(tmp_path: Path, name: str):
    begin(tmp_path, [name], "python-stdlib", [16], "mine")
    assert yaml.safe_load((tmp_path / SPEC).read_text(encoding="utf-8"))["models"] == [name]


def test_a_name_that_no_spec_may_have_is_refused_at_once(tmp_path: Path):
    with pytest.raises(SpecError, match="cannot be printed"):
        begin(tmp_path, ["a\x1bb=mine"], "python-stdlib", [16], "mine")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("noted", "found"),
    [
        (
            {"url": "https://example.org/a/b.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
            f"lpe-eval[hf] @ git+https://example.org/a/b.git@{COMMIT}",
        ),
        # A token of somebody's, a key of theirs, a folder of theirs, an archive, no commit, nothing.
        ({"url": "https://token@example.org/a/b.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}}, ""),
        ({"url": "ssh://git@example.org/a/b.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}}, ""),
        ({"url": "file:///home/somebody/lpe-eval", "dir_info": {"editable": True}}, ""),
        ({"url": "https://example.org/a.whl", "archive_info": {}}, ""),
        ({"url": "https://example.org/a/b.git", "vcs_info": {"vcs": "git", "commit_id": "main"}}, ""),
        ({}, ""),
    ],
)
def test_what_pip_should_install_is_taken_over_where_it_is_public(noted: dict[str, Any], found: str):
    assert requirement_of(noted) == found


def test_it_is_filled_in(repository: Path, monkeypatch: pytest.MonkeyPatch):
    noted = {"url": "https://example.org/a/b.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}}

    class Installed:
        @staticmethod
        def read_text(name: str) -> str:
            return json.dumps(noted)

    monkeypatch.setattr("lpe_eval.commands.init.metadata.distribution", lambda name: Installed)
    assert "what pip installs" not in said("init")
    assert yaml.safe_load(WORKFLOW.read_text())["env"]["LPE_EVAL"] == requirement_of(noted)
