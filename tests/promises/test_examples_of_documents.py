"""What stands in the documents as code and as specs does what they say of it, run as it stands."""

import ast
import contextlib
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.report.folders.ppl import read_run
from lpe_eval.spec.kinds_of_spec import spec_of
from lpe_eval.spec.tasks import parse_spec

DOCS = Path(__file__).parents[2] / "docs"


def marked(document: str, name: str) -> str:
    """The fenced block below a mark of its name."""
    text = (DOCS / document).read_text(encoding="utf-8")
    (found,) = re.findall(rf"^<!-- {re.escape(name)} -->\n```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return found


def typed(document: str, about: str) -> list[str]:
    """The commands of a document in which a word stands."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (DOCS / document).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if about in line]


def said(line: str, *more: str) -> str:
    result = CliRunner().invoke(app, [*shlex.split(line)[1:], *more])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return " ".join(result.output.split())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_model_of_ones_own_is_measured_as_the_page_types_it(here: Path):
    Path("mine.py").write_text(marked("own-models.md", "mine.py"))
    inspect, measure = typed("own-models.md", "py:mine.py:make")
    assert "128" in said(inspect)
    said(measure, "--max-tokens", "600", "--lengths", "16,32", "--out", "out", "-q")
    rows = read_run(here / "out").rows
    assert set(rows.model) == {"mine"} and set(rows.status) == {"ok"} and set(rows.train_length) == {128}
    assert "mine:make?width=8" in said(f"lpe-eval inspect {shlex.quote('py:mine.py:make?width=8')}")


def test_the_model_with_its_own_alphabet_is_measured_too(here: Path):
    Path("pair.py").write_text(marked("own-models.md", "pair.py"))
    Path("books").mkdir()
    Path("books", "a.txt").write_text("a quick brown fox. " * 40)
    (measure,) = typed("own-models.md", "pair.py")
    said(measure, "--max-tokens", "300", "--out", "out", "-q")
    assert set(read_run(here / "out").rows.status) == {"ok"}


@pytest.mark.parametrize("kind", ["ppl", "train", "study"])
def test_the_specs_of_the_page_are_specs(kind: str):
    raw = yaml.safe_load(marked("specs.md", kind))
    assert raw["kind"] == kind and parse_spec(raw, spec_of(kind), "specs.md")


def test_forms_of_an_encoding_mean_the_same(here: Path):
    from lpe_eval.spec.encoding_spec import EncodingSpec

    rows = re.findall(r"^\| `(.+?)` \| (.+) \|$", (DOCS / "specs.md").read_text(encoding="utf-8"), re.MULTILINE)
    pairs = [(text, re.findall("`([^`]+)`", forms)) for text, forms in rows if "`{" in forms or "`[" in forms]
    assert len(pairs) == 4
    for text, forms in pairs:
        for form in forms:
            assert EncodingSpec.model_validate(yaml.safe_load(form)) == EncodingSpec.parse(text), (text, form)


def executed(*blocks: str) -> str:
    """What blocks of Python print, run one after the other in one program."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec("\n".join(blocks), {"__name__": "page"})
    return told.getvalue()


def test_a_run_is_measured_and_read_from_python_as_the_page_does(here: Path):
    shown = executed(*(marked("python.md", name) for name in ("measure", "read", "difference")))
    assert "sliding" in shown and "alibi" in shown and "[128, 512]" in shown
    (difference,) = re.findall(r"([+-]\d\.\d{3}) ± \d\.\d{3} nats a token, 100% of the text in common", shown)
    rows = read_run(here / "first").rows
    nats = rows[(rows.metric == "nll_nats") & (rows.protocol == "nonoverlap") & (rows.length == 512)].set_index("model")
    assert float(difference) == pytest.approx(nats.value["alibi"] - nats.value["rope"], abs=6e-4)


WORDS = " ".join(f"word{number * number % 91}" for number in range(1200))


def test_a_module_in_memory_is_measured_as_the_page_does(here: Path):
    Path("valid.txt").write_text(WORDS)
    page: dict[str, Any] = {}
    exec(marked("python.md", "module"), page)
    rows = page["run"].rows
    assert set(rows.model) == {"mean", "alibi"} and set(rows.status) == {"ok"}
    assert set(rows[rows.model == "mean"].train_length) == {128}


def test_a_training_that_measures_itself_ends_with_the_same_weights(here: Path):
    Path("train.txt").write_text(WORDS)
    Path("valid.txt").write_text(WORDS[700:])
    loop = marked("python.md", "loop")
    training = loop[loop.index("torch.manual_seed") : loop.index("print(")]
    assert len(training.splitlines()) <= 20
    quiet = loop.replace("step % 50 == 0", "False").replace(loop[loop.index("print(") :], "")
    assert "if False:" in quiet
    weights = []
    for code in (loop, quiet):
        page: dict[str, Any] = {}
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            exec(code, page)
        weights.append([each.detach().clone() for each in page["model"].parameters()])
        if code is loop:
            curve = pd.concat(page["curve"])
            assert told.getvalue().split()[:4] == ["length", "64", "256", "step"]
            nats = curve[curve.metric == "nll_nats"].pivot(index="step", columns="length", values="value")
            assert list(nats.index) == [50, 100, 150, 200] and list(nats.columns) == [64, 256]
            assert (nats.loc[200] < nats.loc[50]).all()
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))


def test_a_checkpoint_is_opened_as_the_page_does(here: Path):
    shown = executed(marked("python.md", "open"))
    assert "Model('alibi'" in shown and "[" in shown


def test_the_notebook_runs_from_its_first_cell_to_its_last(here: Path):
    book = json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))
    assert book["nbformat"] == 4 and all(cell["id"] for cell in book["cells"])
    program: dict[str, Any] = {"__name__": "__main__"}
    for cell in book["cells"]:
        if cell["cell_type"] != "code":
            continue
        body, value = ast.parse("".join(cell["source"])).body, None
        shown = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "cell", "exec"), program)
        if isinstance(shown, ast.Expr):
            value = eval(compile(ast.Expression(shown.value), "cell", "eval"), program)
        # What a notebook shows of it is what was stored when the page was made.
        stored = {kind for output in cell["outputs"] for kind in output.get("data", {})}
        assert ("text/html" in stored) == (getattr(value, "_repr_html_", None) is not None)
        assert not [each for each in cell["outputs"] if each["output_type"] == "error"]
        if value is not None:
            assert repr(value) and (getattr(value, "_repr_html_", repr)() if "text/html" in stored else True)
