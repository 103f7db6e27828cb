"""What the documents say of the project is so: links lead somewhere, paths exist, commands can be typed."""

import re
import shlex
from pathlib import Path

import click
import pytest
import typer.main

from lpe_eval.cli import app

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
DOCUMENTS = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tasks/README.md", "benchmarks/README.md")
    ),
    ROOT / ".github" / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "results").glob("*.md")),
    *sorted((ROOT / "results").glob("[bfs]*/**/README.md")),
]
GUIDES = [path for path in DOCUMENTS if path.name not in ("CHANGELOG.md",) and path.parent.name != "benchmarks"]
"""Documents whose paths and commands are of today; a changelog and a log of measurements also tell of yesterday."""

NO_PATH = ("results/runs/", "results/baselines/mine", "square_root.py")
"""Beginnings of what only a reader makes."""

COMMANDS: dict[str, click.Command] = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
each_guide = pytest.mark.parametrize("path", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))


def anchors(path: Path) -> set[str]:
    """The names of a document's headings in a link, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@each_document
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{target}: there is no {there}"
        assert not anchor or anchor in anchors(there), f"{target}: {there.name} has no such heading"


def is_named(name: str, beside: Path) -> bool:
    """Whether a file or a folder has this name: from the root, in the package, beside the document, or anywhere."""
    if any((folder / name).exists() for folder in (ROOT, ROOT / "lpe_eval", ROOT / "lpe_eval" / "model", beside)):
        return True
    return "/" not in name and any(
        file.name == name for part in ("lpe_eval", "tests", "benchmarks") for file in (ROOT / part).rglob("*.py")
    )


@each_guide
def test_every_path_that_is_named_exists(path: Path) -> None:
    folders = {each.name for folder in (ROOT, ROOT / "lpe_eval") for each in folder.iterdir() if each.is_dir()}
    for name in re.findall(r"`([\w.-]+(?:/[\w.-]+)*/?)`", prose(path)):
        first = name.split("/")[0]
        told = ("/" in name and first in folders) or name.endswith((".py", ".md", ".toml"))
        if told and not name.startswith(NO_PATH) and "NAME" not in name:
            assert is_named(name, path.parent), name


def typed(path: Path) -> list[str]:
    """Command lines of our program: those of fenced sh blocks, and those between backticks."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    lines = [part for block in blocks for line in block.splitlines() for part in line.split(" #")[0].split("&&")]
    lines += re.findall(r"`([^`\n]+)`", prose(path).replace("\\|", "|"))
    return [line.strip() for line in lines if line.strip().startswith("lpe-eval ")]


@each_guide
def test_every_command_can_be_typed(path: Path) -> None:
    for line in typed(path):
        _, name, *arguments = shlex.split(line)
        if name == "COMMAND":
            continue
        assert name in COMMANDS, line
        if not arguments or arguments == ["--help"]:
            continue
        try:
            # Reads the arguments as the command would, and runs nothing.
            COMMANDS[name].make_context(name, list(arguments))
        except click.UsageError as error:
            pytest.fail(f"{line}: {error.format_message()}")


def test_the_commands_of_the_documents_are_found() -> None:
    found = {path.name if path.parent == ROOT else path.parent.name: len(typed(path)) for path in GUIDES}
    assert found["README.md"] >= 18 and found["results"] >= 6 and found["baselines"] >= 6


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs"])
def test_no_line_is_wider_than_ours(name: str) -> None:
    for path in sorted((ROOT / name).glob("*.md")) or [ROOT / name]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            wide_table = line.startswith("|") and name != "README.md"
            assert len(line) <= 120 or wide_table, f"{path.name}, line {number}: {len(line)} columns"


def test_the_readme_is_a_first_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_flags_beside_those_of_other_tools_are_flags_of_ours() -> None:
    flags = {flag for parameter in COMMANDS["ppl"].params for flag in parameter.opts}
    tables = re.findall(r"(?:^\|.*\n)+", (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8"), re.MULTILINE)
    seen = set()
    for table in tables:
        head, _, *rows = ([cell.strip() for cell in line.split("|")] for line in table.splitlines())
        if "ours" in head:
            seen |= {flag for row in rows for flag in re.findall(r"--[\w-]+", row[head.index("ours")])}
    assert seen <= flags, seen - flags
    assert {"--protocol", "--lengths", "--stride", "--bos", "--tail", "--last-k", "--pack"} <= seen
