"""Files that GitHub and indexes read: pinned, least allowed, and saying what the project says elsewhere."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import lpe_eval
from lpe_eval.cli import app
from lpe_eval.report.citations import own_entry

ROOT = Path(__file__).parents[2]
WORKFLOWS = [*sorted((ROOT / ".github/workflows").glob("*.yml")), ROOT / "results/baselines/gate-your-checkpoint.yml"]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(path).values() for step in job["steps"]]


def test_there_are_the_workflows_that_are_looked_at():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml", "gate-your-checkpoint.yml"]


@each_workflow
def test_every_action_is_pinned_by_its_commit_with_the_version_beside_it(path: Path):
    used = re.findall(r"uses: (\S+)(.*)", path.read_text(encoding="utf-8"))
    assert len(used) == sum("uses" in step for step in steps(path)) > 0
    for action, comment in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), (action, comment)


def test_one_action_has_one_commit_everywhere():
    lines = {line for path in WORKFLOWS for line in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))}
    names = [line.partition("@")[0] for line in lines]
    assert sorted(names) == sorted(set(names))


@each_workflow
def test_a_workflow_may_do_no_more_than_it_needs(path: Path):
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert found["permissions"] in ({}, {"contents": "read"})
    # YAML 1.1 takes `on` for true.
    assert not {"pull_request_target", "workflow_run"} & set(found[True])
    for step in steps(path):
        assert "${{" not in step.get("run", ""), "an expression is pasted in before the shell reads it"
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
    assert all(job["timeout-minutes"] <= 60 for job in jobs(path).values())


def test_ci_tries_three_systems_and_every_python_that_is_classified():
    found = jobs(WORKFLOWS[0])
    assert found["check"]["strategy"]["matrix"]["python"] == PYTHONS
    assert found["elsewhere"]["strategy"]["matrix"]["python"] == [PYTHONS[0], PYTHONS[-1]]
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert classified == PYTHONS and PROJECT["requires-python"] == f">={PYTHONS[0]}"
    newest = next(step for step in found["newest"]["steps"] if "setup-python" in step.get("uses", ""))
    assert newest["with"]["python-version"] == PYTHONS[-1]


def test_a_release_is_built_once_without_rights_and_published_without_a_password():
    found = jobs(WORKFLOWS[1])
    assert found["build"]["permissions"] == {"contents": "read"}
    assert found["attest"]["permissions"] == {"id-token": "write", "attestations": "write"}
    assert found["publish"]["permissions"] == {"id-token": "write"} and found["publish"]["environment"] == "pypi"
    assert found["publish"]["needs"] == ["build", "attest"]
    (publish,) = [step for step in found["publish"]["steps"] if "gh-action-pypi-publish" in step["uses"]]
    assert publish["with"] == {"attestations": True}
    assert "secrets." not in WORKFLOWS[1].read_text(encoding="utf-8")
    # What is published is what was built and tried, and nothing is built where there are rights.
    assert all("run" not in step for name in ("attest", "publish") for step in found[name]["steps"])


def test_the_check_of_a_release_finds_this_version_in_this_changelog():
    script = next(step["run"] for step in steps(WORKFLOWS[1]) if "changelog" in step.get("name", ""))
    pattern = re.search(r'grep -q "(.+)" CHANGELOG.md', script)
    assert pattern is not None
    wanted = pattern[1].replace("$version", lpe_eval.__version__)
    assert re.search(wanted, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_citation_says_what_the_project_says():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert CITATION["version"] == lpe_eval.__version__
    assert f"## [{lpe_eval.__version__}] - {CITATION['date-released']}" in changelog
    assert CITATION["license"] == PROJECT["license"] and CITATION["keywords"] == PROJECT["keywords"]
    assert [each["name"] for each in CITATION["authors"]] == [each["name"] for each in PROJECT["authors"]]
    assert CITATION["title"].lower() == f"lpe-eval: {PROJECT['description']}".lower()
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software"
    told = own_entry(lpe_eval.__version__, None, CITATION["date-released"]).text
    assert CITATION["title"] in told and f"Version {CITATION['version']}" in told


def test_templates_ask_for_what_the_program_prints():
    import typer.main

    commands = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    templates = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[0-9]*.yml"))
    assert len(templates) == 3
    for path in templates:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert form["name"] and form["description"] and form["body"]
        for name in re.findall(r"lpe-eval (\w+)", path.read_text(encoding="utf-8")):
            assert name in commands, (path.name, name)
        for document in re.findall(r"docs/[\w-]+\.md", path.read_text(encoding="utf-8")):
            assert (ROOT / document).is_file()


def test_no_address_is_made_up():
    for path in [*WORKFLOWS, ROOT / "CITATION.cff", *sorted((ROOT / ".github").rglob("*.md"))]:
        assert not re.search(r"github\.com/[\w-]+/lpe", path.read_text(encoding="utf-8"))
