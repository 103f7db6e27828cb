"""The documentation: made of the program, complete, with nothing from elsewhere, and built strictly."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
import yaml

from lpe_eval.cli import app
from lpe_eval.registry import ENCODINGS, KINDS
from lpe_eval.spec.fields import fields_of, specs_inside
from lpe_eval.spec.kinds_of_spec import FILES, spec_of
from tests.support.script import loaded

ROOT = Path(__file__).parents[2]
SPECS = {each for name in [*KINDS.names(), *FILES] for each in (spec_of(name), *specs_inside(spec_of(name)))}


class Loader(yaml.SafeLoader):
    """Reads past what names a function of Python."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
SITE: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    return loaded(ROOT / "docs" / "pages.py")


def named(nav: Any) -> list[str]:
    match nav:
        case str():
            return [nav]
        case list():
            return [name for each in nav for name in named(each)]
        case _:
            return [name for each in nav.values() for name in named(each)]


def test_every_document_has_a_page_in_the_navigation(pages: ModuleType):
    wanted = {path.name for path in (ROOT / "docs").glob("*.md")} | set(pages.PAGES.values()) | {"reference/"}
    assert sorted(named(SITE["nav"])) == sorted(wanted)
    for source in pages.PAGES:
        assert (ROOT / source).is_file(), source
    studies = {path.parent.name for path in (ROOT / "results/studies").glob("*/README.md")}
    assert studies == {Path(source).parent.name for source in pages.PAGES if "studies" in source}


def test_links_that_lead_nowhere_are_errors_and_no_font_is_fetched():
    assert set(SITE["validation"]["links"].values()) == set(SITE["validation"]["nav"].values()) == {"warn"}
    assert SITE["theme"]["font"] is False
    assert not {"repo_url", "site_url", "extra_javascript", "extra_css"} & set(SITE)


def test_every_field_and_every_flag_is_told(pages: ModuleType):
    told = pages.fields()
    for spec in SPECS:
        for field in fields_of(spec):
            assert f"| `{field.name}` |" in told
    assert (
        "| `max_tokens` | whole number, at least 1 | *required* | how much text is measured at every length. |" in told
    )
    commands = pages.commands()
    group: Any = typer.main.get_command(app)
    ctx = group.make_context("lpe-eval", ["list"])
    for name in group.list_commands(ctx):
        assert f"## {name}\n" in commands
        for parameter in group.get_command(ctx, name).params:
            for flag in parameter.opts:
                assert f"`{flag}`" in commands
    assert "`rope[window=512]*3,none`" in commands or "rope[window=512]*3,none" in commands
    assert "\\[" not in commands


def test_every_module_has_a_page(pages: ModuleType):
    found = pages.reference_pages()
    assert "reference/lpe_eval/model/encoding.md" in found
    assert {f"reference/lpe_eval/model/encodings/{name}.md" for name in ENCODINGS.names()} <= set(found)
    assert all(f"::: {place[10:-3].replace('/', '.')}\n" in text for place, text in found.items())


@pytest.mark.parametrize(
    ("origin", "place", "link", "led"),
    [
        ("README.md", "index.md", "[a](docs/gate.md#verdicts)", "[a](gate.md#verdicts)"),
        ("docs/gate.md", "gate.md", "[a](../README.md)", "[a](index.md)"),
        ("docs/gate.md", "gate.md", "[a](#here)", "[a](#here)"),
        ("docs/gate.md", "gate.md", "[a](https://example.org/b)", "[a](https://example.org/b)"),
        ("results/README.md", "results/index.md", "![a](figures/perplexity.png)", "![a](figures/perplexity.png)"),
        ("results/studies/released/README.md", "results/studies/released/index.md", "[a](../../README.md)",
         "[a](../../index.md)"),
        ("docs/gate.md", "gate.md", "[a](../lpe_eval/table.py)", "[a](reference/lpe_eval/table.md)"),
        # What has no page on the site stays as text.
        ("docs/gate.md", "gate.md", "see [`a`](../tests/test_screen.py) there", "see `a` there"),
    ],
)  # fmt: skip
def test_a_link_is_led_to_its_page(pages: ModuleType, origin: str, place: str, link: str, led: str):
    assert pages._LINK.sub(pages._led(origin, place), link) == led


@pytest.mark.slow
def test_it_is_built_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    light = [each for each in project["dependencies"] if re.match("typer|rich|pyyaml|pydantic", each)]
    wanted = [*project["optional-dependencies"]["docs"], *light]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    places = (tmp_path / "venv" / "bin" / "python", tmp_path / "venv" / "Scripts" / "python.exe")
    python = next(each for each in places if each.exists())
    got = subprocess.run([python, "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"the packages of the extra docs cannot be had: {got.stderr.strip().splitlines()[-1]}")
    site = tmp_path / "site"
    build = [python, "-m", "mkdocs", "build", "--strict", "--site-dir", site]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr.replace("NO_MKDOCS_2_WARNING", "").replace("MkDocs 2", "")
    text = (site / "specs/index.html").read_text(encoding="utf-8")
    assert all(f"<code>{field.name}</code>" in text for spec in SPECS for field in fields_of(spec))
    encoding = (site / "reference/lpe_eval/model/encoding/index.html").read_text(encoding="utf-8")
    assert "bias_by_offset" in encoding
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=\"?(https?:[^\" >]+)", page.read_text(encoding="utf-8"))
        styles = re.findall(r"<link[^>]+rel=\"?(?:stylesheet|preconnect)[^>]+", page.read_text(encoding="utf-8"))
        assert not loaded and not [each for each in styles if "http" in each], page
