"""The workflow that users copy: what GitHub would make of it, and its steps run from beginning to end elsewhere."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from lpe_eval.cli import app
from tests.support.native_checkpoints import checkpoint

ROOT = Path(__file__).parents[2]
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / "results/baselines/gate-your-checkpoint.yml").read_text())
STEPS: list[dict[str, Any]] = WORKFLOW["jobs"]["gate"]["steps"]
GIVEN = {"RUNNER_TEMP", "GITHUB_STEP_SUMMARY"}
"""What GitHub sets."""


def test_it_may_read_and_nothing_else():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in WORKFLOW["jobs"]["gate"]
    # YAML 1.1 takes `on` for true. A workflow of `pull_request_target` would hand strangers our token.
    assert set(WORKFLOW[True]) == {"pull_request", "workflow_dispatch"}
    (checkout,) = [step for step in STEPS if "checkout" in step.get("uses", "")]
    assert checkout["with"]["persist-credentials"] is False


def test_actions_are_pinned_and_nothing_is_cached():
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert len(used) == 3
    for each in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", each)
    assert "cache" not in str(STEPS)


def test_steps_use_the_variables_that_are_set_and_no_expressions():
    scripts = "\n".join(step.get("run", "") for step in STEPS)
    assert set(re.findall(r"\$(\w+)", scripts)) == (set(WORKFLOW["env"]) - {"COLUMNS"}) | GIVEN
    # An expression in a script is pasted in before the shell reads it.
    assert "${{" not in scripts


def test_progress_is_told_and_reports_are_kept_whatever_the_verdict():
    by_name = {step["name"]: step for step in STEPS if "name" in step}
    assert "-q" not in by_name["Measure"]["run"].split() and "--quiet" not in by_name["Measure"]["run"]
    for name in ("Summary", "Keep the reports"):
        assert by_name[name]["if"] == "${{ !cancelled() }}"
    assert by_name["Compare"]["if"] == "${{ !cancelled() && steps.install.outcome == 'success' }}"
    assert by_name["Install"]["id"] == "install"
    assert {"gate.json", "gate.xml"} <= set(by_name["Keep the reports"]["with"]["path"].split())
    # Without pipefail a pipe ends as its last command does; GitHub sets it where bash is named.
    assert WORKFLOW["defaults"] == {"run": {"shell": "bash"}}


def test_nothing_is_installed_by_a_name_that_anybody_may_own(tmp_path: Path):
    assert WORKFLOW["env"]["LPE_EVAL"] == "" == WORKFLOW["env"]["CONSTRAINTS"]
    (install,) = [step["run"] for step in STEPS if step.get("name") == "Install"]
    (tmp_path / "pip").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "pip").chmod(0o755)

    def ended(**of_user: str) -> subprocess.CompletedProcess[str]:
        own = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LPE_EVAL": "", "CONSTRAINTS": "", "TORCH_INDEX": "", **of_user}
        return subprocess.run(["bash", "-eo", "pipefail", "-c", install], env=own, capture_output=True, text=True)

    assert ended().returncode == 2 and "LPE_EVAL is empty" in ended().stderr and ended().stdout == ""
    told = ended(LPE_EVAL="a.whl", CONSTRAINTS="versions.txt").stdout
    assert told == "install -c versions.txt torch\ninstall -c versions.txt a.whl\n"


class Ended(NamedTuple):
    """A job: exit code of the first step that failed, all output, and the summary."""

    code: int
    output: str
    summary: str


def environment(folder: Path) -> Path:
    """A virtual environment with everything that this one has but lpe-eval itself; gives its `bin`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    there = next(folder.glob("lib/python*/site-packages"))
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.search("lpe.eval", each.name) and each.name != "__pycache__" and not (there / each.name).exists():
            (there / each.name).symlink_to(each)
    (folder / "bin" / "pip").write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m pip "$@"\n')
    (folder / "bin" / "pip").chmod(0o755)
    return folder / "bin"


def job(repository: Path, bin_: Path, wheel: Path, bless: bool) -> Ended:
    """The steps of the workflow as GitHub runs them, in a fresh runner and without a network."""
    runner = repository.with_name("runner")
    shutil.rmtree(runner, ignore_errors=True)
    runner.mkdir()
    own = {name: str(value) for name, value in WORKFLOW["env"].items()}
    own |= {
        "LPE_EVAL": f"lpe-eval[hf] @ {wheel.as_uri()}", "BLESS": "yes" if bless else "",
        "RUNNER_TEMP": str(runner),
        "GITHUB_STEP_SUMMARY": str(runner / "summary.md"), "HOME": str(runner), "OMP_NUM_THREADS": "1",
        "PATH": f"{bin_}:/usr/bin:/bin", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # fmt: skip
    code, output = 0, ""
    for step in STEPS:
        if "run" in step and (code == 0 or "cancelled" in step.get("if", "")):
            argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
            ended = subprocess.run(argv, cwd=repository, env=own, capture_output=True, text=True)
            code = code or ended.returncode
            output += ended.stdout + ended.stderr
    return Ended(code, output, (runner / "summary.md").read_text())


@pytest.mark.slow
def test_its_steps_bless_pass_and_fail_in_a_strangers_repository(tmp_path: Path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-index", "--no-build-isolation", "--no-deps", "-q"]
    subprocess.run([*build, "-w", tmp_path / "wheel", ROOT], check=True, env={**os.environ, "PYTHONPATH": ""})
    (wheel,) = (tmp_path / "wheel").iterdir()
    bin_, repository = environment(tmp_path / "venv"), tmp_path / "repository"
    checkpoint(repository / "checkpoints" / "mine")
    (repository / "texts").mkdir()
    for number in range(12):
        words = " ".join(f"word{(number * 7 + each * each) % 91}" for each in range(60))
        (repository / "texts" / f"{number:02}.txt").write_text(words)
    asked = ["init", str(repository), "-m", "mine=checkpoints/mine", "-d", "texts", "--lengths", "16,32"]
    assert CliRunner().invoke(app, asked).exit_code == 0
    # What is run below is the file that ships; `init` writes the same.
    written = yaml.safe_load((repository / ".github/workflows/length-gate.yml").read_text())
    assert written["jobs"] == WORKFLOW["jobs"] and written["env"] == WORKFLOW["env"]

    lost = job(repository, bin_, wheel, bless=False)
    assert lost.code == 2 and "there is no baseline named 'mine'" in lost.summary, lost.output
    first = job(repository, bin_, wheel, bless=True)
    assert first.code == 0 and (repository / "results/baselines/mine/rows.csv").exists(), first.output
    assert not (repository / "gate.xml").exists()
    second = job(repository, bin_, wheel, bless=False)
    assert second.code == 0 and "2 same" in second.summary, second.output
    assert ElementTree.parse(repository / "gate.xml").getroot().attrib["failures"] == "0"
    assert "100 %" in second.output, "progress is told where there is no terminal"
    checkpoint(repository / "checkpoints" / "mine", seed=1)
    third = job(repository, bin_, wheel, bless=False)
    assert third.code == 3 and "worse: mine" in third.summary, third.output
    assert ElementTree.parse(repository / "gate.xml").getroot().attrib["failures"] != "0"
