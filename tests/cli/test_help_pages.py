"""Help that teaches: flags under headings, examples that can be typed, and nothing lost on the way to the screen."""

import re
import shlex
from typing import Any

import click
import pytest
import typer.main
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.cli.help_pages import examples_of

GROUP: Any = typer.main.get_command(app)
CONTEXT = GROUP.make_context("lpe-eval", ["list"])
NAMES: list[str] = GROUP.list_commands(CONTEXT)
EXAMPLES = [(name, typed) for name in NAMES for _, typed in examples_of(name)]

each_command = pytest.mark.parametrize("name", NAMES)


def page(name: str, monkeypatch: pytest.MonkeyPatch, columns: int) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0
    return shown.output


def plain(text: str) -> str:
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


@each_command
def test_a_command_has_two_to_four_examples_that_stay_whole_on_a_narrow_terminal(name: str, monkeypatch):
    shown = examples_of(name)
    assert 2 <= len(shown) <= 4
    lines = [line.strip() for line in page(name, monkeypatch, 80).splitlines()]
    for told, typed in shown:
        assert typed in lines and f"# {told}" in lines


@pytest.mark.parametrize(("name", "typed"), EXAMPLES, ids=[typed for _, typed in EXAMPLES])
def test_an_example_can_be_typed(name: str, typed: str):
    program, command, *arguments = shlex.split(typed)
    # Of another command only where it goes on with what this one made.
    assert program == "lpe-eval" and command == name
    try:
        GROUP.get_command(CONTEXT, command).make_context(command, arguments)
    except click.UsageError as error:
        pytest.fail(error.format_message())


@each_command
def test_every_flag_stands_under_a_heading(name: str, monkeypatch):
    found = page(name, monkeypatch, 100)
    headings = re.findall(r"╭─ (.+?) ─", found)
    assert "Options" not in headings and "Measurement" not in headings
    assert headings[-1] == "Output" and "--help" in found.rpartition("╭─ Output")[2]


def test_ppl_has_six_headings(monkeypatch):
    found = re.findall(r"╭─ (.+?) ─", page("ppl", monkeypatch, 100))
    assert sorted(found) == ["Model", "Output", "Single tokens", "Speed", "Text", "Windows"]


@each_command
def test_nothing_that_looks_like_markup_is_lost(name: str, monkeypatch):
    """Before, `rope[window=512]*3,none` was shown as `rope*3,none`, and `org/name[@revision]` as `org/name`."""
    shown = plain(page(name, monkeypatch, 700))
    command = GROUP.get_command(CONTEXT, name)
    for text in [command.help.split("\n\n")[0], *(each.help for each in command.params if getattr(each, "help", None))]:
        assert plain(text.replace("\\[", "[")) in shown
    assert "\\" not in shown


def test_a_page_once_more_is_the_same_page(monkeypatch):
    assert page("train", monkeypatch, 100) == page("train", monkeypatch, 100)
    assert "rope[window=512]*3,none" in plain(page("train", monkeypatch, 200))


def test_the_first_page_says_where_to_begin(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert "Begin with lpe-eval ppl" in CliRunner().invoke(app, ["--help"]).output
