"""What mkdocs cannot read from docs/ by itself: pages that lie elsewhere, tables made of the program, the reference.

A page of the repository keeps its text. Its links are led to where the same file stands on the site; what has no page
there, such as a test, stays as text, since the site knows no address of the repository. Every page must be reachable,
and a link that leads nowhere is an error of `mkdocs build --strict`.
"""

import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    ".github/SECURITY.md": "security.md",
    "tasks/README.md": "tasks/index.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "results/README.md": "results/index.md",
    "results/baselines/README.md": "results/baselines/index.md",
    "results/figures/README.md": "results/figures/index.md",
    **{f"results/studies/{name}/README.md": f"results/studies/{name}/index.md"
       for name in ("claims", "released", "che-quick", "rope-longer", "urn", "fire-represents")},
}  # fmt: skip
"""Documents outside docs/, and their pages."""
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
_PICTURES = (".png", ".svg")
_NO_PAGE = ("__init__.py", "__main__.py")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that lie elsewhere, their pictures, and a page for each module."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for picture in sorted((ROOT / "results").rglob("*")):
        if picture.suffix in _PICTURES and "runs" not in picture.parts:
            place = picture.relative_to(ROOT).as_posix()
            files.append(File.generated(config, place, abs_src_path=str(picture)))
    for place, text in reference_pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_config(config: Any) -> Any:
    """Puts the pages of the reference into the navigation, and lets what is made of the program import it."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    config["nav"] = [
        {"Reference": _navigation()} if each == {"Reference": "reference/"} else each for each in config["nav"]
    ]
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Leads the links of a page to pages of the site, and fills in what is made of the program."""
    place = page.file.src_uri
    markdown = markdown.replace("<!-- fields -->", fields()).replace("<!-- commands -->", commands())
    if place.startswith("reference/"):
        return markdown
    origin = next((source for source, own in PAGES.items() if own == place), f"docs/{place}")
    # What stands in fences is no link, whatever it looks like.
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else _LINK.sub(_led(origin, place), part) for part in parts)


def _led(origin: str, place: str) -> Any:
    def led(found: re.Match[str]) -> str:
        picture, text, target = found.groups()
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            return found[0]
        file, hash_, anchor = target.partition("#")
        there = posixpath.normpath(posixpath.join(posixpath.dirname(origin), file))
        page = _page_of(there)
        if page is None:
            return f"{text}" if not picture else ""
        return f"{picture}[{text}]({posixpath.relpath(page, posixpath.dirname(place) or '.')}{hash_}{anchor})"

    return led


def _page_of(source: str) -> str | None:
    """Where a file of the repository stands on the site; None where it does not."""
    if source in PAGES:
        return PAGES[source]
    if source.startswith("docs/") and source.endswith(".md"):
        return source.removeprefix("docs/")
    if source.startswith("results/") and source.endswith(_PICTURES):
        return source
    if source.startswith("lpe_eval/") and source.endswith(".py") and "__init__" not in source:
        return f"reference/{source.removesuffix('.py')}.md"
    return None


def modules() -> list[str]:
    """Every module of the package that says something, by its dotted name."""
    paths = [path for path in sorted((ROOT / "lpe_eval").rglob("*.py")) if path.name not in _NO_PAGE]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]


def reference_pages() -> dict[str, str]:
    """A page for each module, which mkdocstrings fills from its docstrings."""
    return {f"reference/{name.replace('.', '/')}.md": f"# `{name}`\n\n::: {name}\n" for name in modules()}


def _navigation() -> list[Any]:
    """The modules as a tree of folders."""
    tree: dict[str, Any] = {}
    for name in modules():
        *folders, last = name.split(".")
        held = tree
        for folder in folders:
            held = held.setdefault(folder, {})
        held[last] = f"reference/{name.replace('.', '/')}.md"

    def listed(held: dict[str, Any]) -> list[Any]:
        return [{name: listed(each) if isinstance(each, dict) else each} for name, each in held.items()]

    return listed(tree["lpe_eval"])


def fields() -> str:
    """The fields of every spec, and of every spec inside one, each once."""
    from lpe_eval.registry import KINDS
    from lpe_eval.spec.fields import fields_of, sentence_of, specs_inside
    from lpe_eval.spec.kinds_of_spec import FILES, spec_of

    own = {f"kind: {name}": spec_of(name) for name in KINDS.names()}
    own |= {f"a {name} file": spec_of(name) for name in FILES}
    inside = {each.__name__: each for spec in own.values() for each in specs_inside(spec) if each not in own.values()}
    lines = []
    for title, spec in {**own, **inside}.items():
        lines += [
            f"### {title}",
            "",
            sentence_of(spec),
            "",
            "| field | type | default | meaning |",
            "|---|---|---|---|",
        ]
        for each in fields_of(spec):
            cells = (f"`{each.name}`", each.type, each.default or "*required*", each.meaning)
            lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
        lines.append("")
    return "\n".join(lines)


def commands() -> str:
    """Every command with its flags, under the headings of its help page, and its examples."""
    return "\n".join(_commands())


def _commands() -> Iterator[str]:
    import typer.main

    from lpe_eval.cli import app
    from lpe_eval.cli.help_pages import examples_of

    group: Any = typer.main.get_command(app)
    ctx = group.make_context("lpe-eval", ["list"])
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        yield from (f"## {name}", "", _plain(command.help), "")
        shown = examples_of(name)
        if shown:
            yield from ("```sh", *(f"{typed}   # {told}" for told, typed in shown), "```", "")
        headings = dict.fromkeys(getattr(each, "rich_help_panel", None) or "Arguments" for each in command.params)
        for heading in headings:
            yield from (f"**{heading}**", "", "| flag | what |", "|---|---|")
            for each in command.params:
                if (getattr(each, "rich_help_panel", None) or "Arguments") == heading:
                    flags = ", ".join(f"`{flag}`" for flag in each.opts)
                    yield f"| {flags} | {_cell(_plain(getattr(each, 'help', '') or ''))} |"
            yield ""


def _plain(text: str) -> str:
    return text.replace("\\[", "[")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
