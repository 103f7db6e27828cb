"""Versions and packaging: what each case did before, and what it does now. Windows and MPS have tables of their own.

| case | what | before | now |
|---|---|---|---|
| packaging 1 | provenance with torch `2.15.0+cu132` | `2.15.0`, and a test failed | torch's own version |
| packaging 3 | another Python's library as text | "give --max-tokens", equal already | both versions, the remedy |
| packaging 5 | `flex` with torch 2.6 to 2.8 | did not compile | compiles (tests/attentions/test_flex.py) |
| packaging 6 | pyarrow | imported, not declared; numpy 1.26 allowed | declared, numpy from 2 on |
| packaging 7, reports 27 | typer 0.15.0 to 0.15.3 | allowed, and failed | not allowed |
| packaging 11 | pydantic 2.9, `model_parallel_size` | a warning | none |
| packaging 12 | `--version`, completion | no such flag | there |
| packaging 13 | README files of other folders in the sdist | packed | only what is named |
| packaging 14 | `list tasks` | imported torch, 4.5 s | 0.5 s |
| packaging 14 | help | line ends of the docstring | paragraphs |
| packaging 14 | `list encodings` at 40 columns | words broken | a paragraph for each |
| reports 28 | transformers 4.48 and sliding windows | ignored | refused |
"""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hatchling.builders.sdist import SdistBuilder
from typer.testing import CliRunner

import lpe_eval
from lpe_eval.cli import app
from lpe_eval.measure.provenance import environment
from lpe_eval.model.foreign import transformers_library
from lpe_eval.report.gate.shared_text import other_text
from lpe_eval.screen import column_widths, listing, paragraphs
from tests.support.native_checkpoints import checkpoint

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def told(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return " ".join(result.output.split())


def lowest(name: str) -> str:
    optional = [each for group in PROJECT["optional-dependencies"].values() for each in group]
    (found,) = {each for each in [*PROJECT["dependencies"], *optional] if re.match(rf"{name}\b", each)}
    return found.partition(">=")[2]


def test_the_provenance_says_which_build_of_torch():
    assert environment(torch.device("cpu"))["libraries"]["torch"] == torch.__version__
    # The default build for Linux is called 2.15.0 by its metadata and 2.15.0+cu132 by itself.
    assert torch.__version__.partition("+")[0] == metadata.version("torch").partition("+")[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "tiny")
    return tmp_path


def measured(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, edited: int, *more: object, code: int = 0):
    """A run on the library of a Python of that version, some of whose files differ from those of another one."""
    library = folder / f"library-{version}"
    library.mkdir()
    for number in range(80):
        words = " ".join(f"{version if number % 4 < edited else 'same'}_{number}_{each % 7}" for each in range(12))
        (library / f"m{number}.py").write_text(words, encoding="utf-8")
    monkeypatch.setattr("sysconfig.get_path", lambda *_, **__: str(library))
    monkeypatch.setattr("platform.python_version", lambda: version)
    flags = ("-m", "tiny", "--lengths", 16, "--protocol", "nonoverlap", "--max-tokens", 100_000, "-q", "--out", version)
    return told("ppl", *flags, *more, code=code)


def test_another_library_of_python_is_named_with_the_remedy(here: Path, monkeypatch: pytest.MonkeyPatch):
    measured(here, monkeypatch, "3.11.7", 2)
    measured(here, monkeypatch, "3.13.0", 2)
    remedy = (
        "the text is the library of Python 3.13.0, in the baseline that of Python 3.11.7; measure with Python 3.11.7"
    )
    found = told("compare", "3.13.0", "--baseline", "./3.11.7", code=2)
    assert f"{remedy}, or make a baseline with Python 3.13.0" in found and "--max-tokens" not in found
    measured(here, monkeypatch, "3.12.1", 4)
    refused = measured(here, monkeypatch, "3.12.2", 4, "--baseline", "./3.12.1", code=2)
    assert (
        "nothing was measured" in refused
        and "library of Python 3.12.2, in the baseline that of Python 3.12.1" in refused
    )


def test_what_is_left_out_is_explained_where_enough_is_shared(here: Path, monkeypatch: pytest.MonkeyPatch):
    def told_of(corpus_new: dict[str, str], corpus_old: dict[str, str]) -> str:
        return other_text(corpus_new, corpus_old)

    stdlib = {"name": "python-stdlib", "implementation": "CPython", "python": "3.11.7"}
    assert told_of(stdlib, stdlib) == ""
    assert "the library of PyPy 3.11.7, in the baseline that of Python 3.11.7" in told_of(
        {**stdlib, "implementation": "PyPy"}, stdlib
    )
    hub = {"name": "hub:org/name", "revision": "abc", "subset": "en"}
    assert "the revision of the text is def, in the baseline abc" in told_of({**hub, "revision": "def"}, hub)
    assert "the subset of the text is de, in the baseline en" in told_of({**hub, "subset": "de"}, hub)
    assert told_of({"name": "a.txt"}, hub) == told_of({}, {}) == told_of(hub, {}) == ""


def test_every_imported_package_is_declared():
    imported: set[str] = set()
    for file in (ROOT / "lpe_eval").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                imported |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    outside = imported - set(sys.stdlib_module_names) - {"lpe_eval", "triton"}
    names = {"yaml": "pyyaml"}
    declared = {re.split(r"[\[>]", each)[0] for group in PROJECT["optional-dependencies"].values() for each in group}
    declared |= {each.partition(">=")[0] for each in PROJECT["dependencies"]}
    assert {names.get(each, each) for each in outside} - declared == set()


def test_bounds_leave_out_what_does_not_work():
    def number(version: str) -> tuple[int, ...]:
        return tuple(map(int, version.split(".")))

    assert number(lowest("typer")) >= (0, 15, 4)
    assert number(lowest("numpy")) >= (2, 0) and number(lowest("pandas")) >= (2, 2, 2)
    assert number(lowest("pyarrow")) >= (16, 0)
    assert number(lowest("torch")) >= (2, 6)


def test_the_lowest_versions_that_are_tested_are_those_declared():
    pinned = dict(
        line.split("==") for line in (ROOT / "tests/lowest.txt").read_text(encoding="utf-8").split("\n") if "==" in line
    )
    declared = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["hf"]]
    for each in declared:
        name, _, bound = each.partition(">=")
        assert pinned[name] == bound or pinned[name].startswith(f"{bound}."), each


def test_a_job_tries_the_lowest_versions_and_one_the_newest():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    steps = {name: "\n".join(each.get("run", "") for each in job["steps"]) for name, job in jobs.items()}
    assert "-c tests/lowest.txt" in steps["lowest"] and "pytest" in steps["lowest"]
    assert "--upgrade" in steps["newest"] and "-c " not in steps["newest"] and "pytest" in steps["newest"]
    assert jobs["elsewhere"]["strategy"]["matrix"]["system"] == ["windows-latest", "macos-latest"]


def test_transformers_that_leave_windows_out_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch):
    import transformers

    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    (here / "gpt").mkdir()
    (here / "gpt/config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr(transformers, "__version__", "4.48.3")
    found = told("inspect", "hf:gpt", code=2)
    assert "transformers 4.48.3 leaves out the sliding window of some models; take 4.51 or newer" in found
    bound = lowest("transformers").split(".")
    assert tuple(map(int, bound)) == transformers_library._OLDEST


def test_old_pydantic_has_nothing_to_warn_of():
    # Before 2.10 a field whose name begins with `model_` was warned of, unless a class said that it may.
    found = subprocess.run(
        ["grep", "-rlE", r"^    model_[a-z_]+ *:", str(ROOT / "lpe_eval"), "--include=*.py"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for file in found.stdout.split():
        assert "protected_namespaces=()" in Path(file).read_text(encoding="utf-8"), file


def test_the_version_is_told():
    assert told("--version") == f"lpe-eval {lpe_eval.__version__}" == f"lpe-eval {metadata.version('lpe-eval')}"


@pytest.mark.parametrize(
    ("shell", "typed", "wanted"), [("bash", "lpe-eval in", "inspect"), ("zsh", "lpe-eval ppl --len", "--lengths")]
)
def test_a_shell_completes_commands_and_flags(shell: str, typed: str, wanted: str):
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_TYPER_COMPLETE_ARGS": typed}
    code = "from lpe_eval.cli import app; app(prog_name='lpe-eval')"
    environment = {**os.environ, **asked, "_LPE_EVAL_COMPLETE": f"complete_{shell}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert wanted in done.stdout
    assert {"--install-completion", "--show-completion"} <= set(told("--help").split())


def test_the_sources_hold_what_is_named_and_nothing_else():
    files = [each.distribution_path for each in SdistBuilder(str(ROOT)).recurse_included_files()]
    top = {each.partition("/")[0] for each in files}
    # hatchling adds pyproject.toml by itself.
    assert top - {".gitignore", "pyproject.toml"} == {
        "lpe_eval", "tasks", "tests", "docs", "benchmarks", "results", "README.md", "CONTRIBUTING.md", "CHANGELOG.md",
        "CITATION.cff", "LICENSE", "constraints.txt", "mkdocs.yml",
    }  # fmt: skip
    inside = {"/".join(each.split("/")[:2]) for each in files if each.startswith("results/")}
    assert inside == {"results/README.md", "results/baselines", "results/figures"}
    assert not [each for each in files if "__pycache__" in each or each.endswith(".pyc")]


def test_systems_and_versions_are_classified():
    classified = "\n".join(PROJECT["classifiers"])
    for each in ("Linux", "MacOS", "Windows", "3.11", "3.12", "3.13", "3.14"):
        assert each in classified


WHAT = [
    "encodings", "checkpoints", "encoders", "tasks", "problems", "protocols", "corpora", "tokenizers", "formats",
    "attentions", "baselines", "kinds", "fields", "columns",
]  # fmt: skip


def test_lists_need_no_torch():
    code = (
        "import sys; from typer.testing import CliRunner; from lpe_eval.cli import app\n"
        f"for what in {WHAT}: assert CliRunner().invoke(app, ['list', what]).exit_code == 0, what\n"
        "for rest in [], ['tasks', 'pg19'], ['fields', 'ppl'], ['fields', 'che']:\n"
        "    assert CliRunner().invoke(app, ['list', *rest]).exit_code == 0, rest\n"
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_list_says_what_the_members_say():
    from lpe_eval.commands.list import catalogue
    from lpe_eval.registry import ATTENTIONS, ENCODINGS

    form = {"published": "as published", "ours": "our choice"}
    for name, does, paper, bidirectional in catalogue("encodings").rows:
        member: Any = ENCODINGS.load(str(name))
        doc = (sys.modules[member.__module__].__doc__ or "").partition("\n")[0].rstrip(".")
        has = "none" if member.causal_only else form[member.bidirectional]
        assert (does, paper, bidirectional) == (doc, member.paper, has)
    for name, words in catalogue("attentions").rows:
        doc = sys.modules[ATTENTIONS.load(str(name)).__module__].__doc__ or ""
        assert words == doc.partition("\n")[0]


def test_help_flows_to_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    shown = CliRunner().invoke(app, ["ppl", "--help"]).output
    (line,) = [each for each in shown.splitlines() if "Every length scores the same text." in each]
    assert "sliding lets windows overlap and scores only new targets" in line


@pytest.mark.parametrize("columns", [30, 40, 60, 80, 120])
@pytest.mark.parametrize("what", ["encodings", "corpora", "attentions"])
def test_no_word_is_broken(what: str, columns: int, monkeypatch: pytest.MonkeyPatch):
    from lpe_eval.commands.list import catalogue

    monkeypatch.setenv("COLUMNS", str(columns))
    shown = CliRunner().invoke(app, ["list", what]).output
    assert max(map(len, shown.splitlines())) <= columns
    words = {word for row in catalogue(what).rows for cell in row for word in str(cell).split()}
    assert {word for word in words if len(word) <= columns - 4} <= set(shown.split())


def test_widths_fit_and_keep_every_word():
    table = listing("", ["name", "what"], [["alpha", "some words of eleven"], ["b", "x"]])
    assert column_widths(table, 80) == [5, 20]
    assert column_widths(table, 5 + 6 + 3 + 2) == [5, 6]
    assert column_widths(table, 5 + 6 + 3 + 1) is None
    assert paragraphs(table) == ["alpha", "  what: some words of eleven", "b", "  what: x"]
    # A path that is longer than any column may be is broken, as before.
    long = listing("", ["folder"], [["x" * 100]])
    assert column_widths(long, 60) == [58]
