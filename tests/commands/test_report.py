"""`lpe-eval report`: the file that it writes, and what it says where it cannot."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from tests.support.hostile_runs import hostile_run
from tests.support.page_reader import PageReader

ROOT = Path(__file__).parents[2]
RELEASED, PROBLEMS = ROOT / "results/baselines/released", ROOT / "results/baselines/released-che"
MOST = 2_000_000


def said(*arguments: object, code: int = 0) -> str:
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["report", *map(str, arguments)])
    assert result.exit_code == code, result.output + repr(result.exception)
    return " ".join((result.stdout if code == 0 else result.stderr).split())


def test_without_the_library_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    told = said(RELEASED, "--out", tmp_path / "a.html", code=2)
    assert told == "error: a report with figures needs an extra: pip install 'lpe-eval[report]'"
    assert not [*tmp_path.iterdir()]


def test_what_is_no_page_or_no_run_is_told(tmp_path: Path):
    assert "ends in .html, not 'rows.csv'" in said(RELEASED, "--out", tmp_path / "rows.csv", code=2)
    pytest.importorskip("vl_convert", reason="the extra `report` is not installed")
    assert "there is no folder" in said(tmp_path / "absent", "--out", tmp_path / "a.html", code=2)
    (tmp_path / "spec.yaml").write_bytes((RELEASED / "spec.yaml").read_bytes())
    assert "holds no values" in said(tmp_path, "--out", tmp_path / "a.html", code=2)
    (tmp_path / "file").write_text("")
    assert "cannot write" in said(RELEASED, "--out", tmp_path / "file" / "a.html", code=1)
    told = said(RELEASED, "--baseline", "released-che", "--out", tmp_path / "a.html", code=2)
    assert "no row to compare" in told and not (tmp_path / "a.html").exists()


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("rows.csv", ",512,512,", ",0,0,", "a table holds numbers that this program did not write"),
        ("provenance.json", '"seconds": ', '"seconds": "soon", "was": ', "that this program did not write"),
    ],
)
def test_a_damaged_run_is_one_sentence(tmp_path: Path, file: str, old: str, new: str, sentence: str):
    pytest.importorskip("vl_convert", reason="the extra `report` is not installed")
    run = hostile_run(RELEASED, tmp_path / "run", ("alibi", "rope", "nope", "t5"))
    text = (run / file).read_text(encoding="utf-8")
    assert old in text
    (run / file).write_text(text.replace(old, new), encoding="utf-8")
    assert sentence in said(run, "--out", tmp_path / "a.html", code=1)
    assert not (tmp_path / "a.html").exists()


@pytest.mark.slow
def test_a_page_of_two_kinds_is_below_two_megabytes_and_holds_the_library_once(tmp_path: Path):
    pytest.importorskip("vl_convert", reason="the extra `report` is not installed")
    out = tmp_path / "new" / "page.HTML"
    assert said(RELEASED, PROBLEMS, "--baseline", "released", "--out", out).endswith(str(out))
    content = out.read_bytes()
    assert len(content) < MOST and b"vegaEmbed" in content
    found = PageReader(content.decode())
    assert len([at for at, _ in found.scripts if "type" not in at]) == 2 and len(found.data) == 2
    assert any("passes" in str(at.get("class")) for _, at in found.tags)
    again = tmp_path / "again.html"
    said(RELEASED, PROBLEMS, "--baseline", "released", "--out", again)
    assert again.read_bytes() == content
