"""What stands in the documents as code and as specs does what they say of it, run as it stands."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
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


def test_a_run_is_read_from_python_as_the_page_does(here: Path):
    Path("spec.yaml").write_text(marked("specs.md", "ppl"))
    said("lpe-eval run spec.yaml", "--out", "first", "-q")
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(marked("python.md", "read") + marked("python.md", "difference"), {})
    shown = told.getvalue()
    assert "sliding" in shown and "alibi" in shown and "[128, 512]" in shown
    (difference,) = re.findall(r"([+-]\d\.\d{3}) ± \d\.\d{3} nats a token, 100% of the text in common", shown)
    rows = read_run(here / "first").rows
    nats = rows[(rows.metric == "nll_nats") & (rows.protocol == "nonoverlap") & (rows.length == 512)].set_index("model")
    assert float(difference) == pytest.approx(nats.value["alibi"] - nats.value["rope"], abs=6e-4)
