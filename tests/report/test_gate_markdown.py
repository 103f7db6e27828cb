"""The table of a comparison, on the screen and as Markdown."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.commands.compare import COLUMNS, Comparison, shown, write_reports
from lpe_eval.errors import OutputError
from lpe_eval.report.gate.joining import judged_rows
from lpe_eval.report.gate.judge import judge
from lpe_eval.report.gate.markdown import escaped
from lpe_eval.report.gate.rules import Rules
from tests.support.gate_runs import KEY, run_of, text, worse_by

ODD = "a|b `c` <img src=x onerror=alert(1)> *d* [e](f)\nnext & \x1b]0;title\x07"


def comparison(model: str = "alibi") -> Comparison:
    key, other = KEY._replace(model=model), KEY._replace(model=model, length=8192)
    old, new = run_of({key: text(24), other: text(24)}), run_of({key: worse_by(text(24), 0.01)})
    return Comparison(
        "run", ("released",), Rules(), judge(judged_rows(new, "run"), judged_rows(old, "released"), Rules())
    )


def page(of: Comparison, folder: Path) -> str:
    write_reports(of, None, None, folder / "deep" / "summary.md")
    return (folder / "deep" / "summary.md").read_text()


def cells(line: str) -> list[str]:
    """The cells of a line of a table, as GitHub's specification reads them: a pipe after a backslash is no border."""
    return [each.strip() for each in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_table_shows_both_values_and_the_change():
    worse, missing = shown(comparison().verdicts)
    row, lacks = (dict(zip(COLUMNS, each, strict=True)) for each in (worse, missing))
    before, now = map(float, str(row["baseline -> run"]).split(" -> "))
    assert now / before == pytest.approx(1.01, abs=1e-4)
    assert row["change, %"].startswith("+1.00") and row["verdict"] == "worse" and row["over"] == "24 docs"
    assert (lacks["baseline -> run"], lacks["verdict"]) == ("-", "missing")


def test_the_page_has_the_outcome_a_table_and_the_notes(tmp_path):
    lines = page(comparison(), tmp_path).splitlines()
    assert lines[0] == "### change of the loss on the text that both scored"
    assert lines[2].startswith("run against released: worse: alibi, nonoverlap, at length 512 (+1.00 %); missing: ")
    assert lines[2].endswith("(exit code 3)")
    assert cells(lines[4]) == list(COLUMNS) and set(cells(lines[5])) == {"---"}
    assert [len(cells(line)) for line in lines[4:8]] == [len(COLUMNS)] * 4
    assert lines[9].startswith("- 2 rows: 1 worse, 1 missing")


def test_names_cannot_leave_their_cell_or_become_anything_but_text(tmp_path):
    told = page(comparison(ODD), tmp_path)
    rows = [line for line in told.splitlines() if line.startswith("| a")]
    assert [len(cells(row)) for row in rows] == [len(COLUMNS)] * 2
    assert "<img" not in told and "&lt;img src=x" in told
    assert not re.search(r"(?<!\\)[`*\[]", told.partition("\n")[2])
    assert not any(ord(each) < 32 and each != "\n" for each in told)


@pytest.mark.parametrize(
    ("plain", "wanted"),
    [
        ("a|b", r"a\|b"), ("`x`", r"\`x\`"), ("<b>", "&lt;b>"), ("a & b", "a &amp; b"),
        ("> quoted", r"\> quoted"), ("a -> b", "a -> b"),
        ("__init__.py", r"\_\_init\_\_.py"), ("x-1 + 2", "x-1 + 2"), ("\udcff", " "),
        ("two\r\nlines", "two lines"), ("# head", r"\# head"), ("- item", r"\- item"), ("1. item", r"1\. item"),
        ("3 rows: 1 same", "3 rows: 1 same"), ("a\\|b", r"a\\\|b"), ("\u202eabc", " abc"),
        ("~~x~~", r"\~\~x\~\~"), ("$x$", r"\$x\$"), ("mine@2, +0.50 %", "mine@2, +0.50 %"),
    ],
)  # fmt: skip
def test_what_markdown_would_read_is_escaped_and_nothing_else(plain, wanted):
    assert escaped(plain) == wanted


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_reports(comparison(), None, None, tmp_path / "file" / "summary.md")


def test_the_flags_of_the_command_reach_the_rules_and_the_page(tmp_path):
    def run(*flags: object, code: int) -> str:
        result = CliRunner().invoke(app, ["compare", *map(str, flags)], env={"COLUMNS": "200"})
        assert result.exit_code == code, result.output
        return " ".join(result.output.split())

    both = ("released", "--baseline", "released")
    folder = Path(__file__).parents[1]
    folder = next(each for each in (folder, *folder.parents) if (each / "results" / "baselines").exists())
    released = folder / "results" / "baselines" / "released"
    told = run(released, "--baseline", released, "--markdown", tmp_path / "summary.md", code=0)
    assert "baseline -> run" in told
    assert "passes (exit code 0)" in (tmp_path / "summary.md").read_text()
    assert "a report needs a comparison" in run(released, "--markdown", "x.md", "--bless", "x", code=2)
    for wrong in ("0", "-1", "nan", "11"):
        assert "--detectable is a part of the loss" in run(*both, "--detectable", wrong, code=2)
