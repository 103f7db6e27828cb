"""`lpe-eval show --format`: what people paste, and the stored rows with every digit."""

import csv
import io
import json
import math
import re
import shutil
import subprocess
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from lpe_eval import screen, table
from lpe_eval.cli import app
from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.report.frames import csv_bytes
from lpe_eval.report.markup import in_last_digits, table_as, turned, with_error_digits
from lpe_eval.report.stored_rows import Stored, as_csv, as_json, chosen, plain, stored_table
from lpe_eval.report.tables.best import best_of_columns
from lpe_eval.report.tables.items import item_tables
from lpe_eval.screen import Cell, Column, Table, with_error
from tests.support.hostile_names import HOSTILE

ROOT = Path(__file__).parents[2]
RELEASED, PROBLEMS = ROOT / "results/baselines/released", ROOT / "results/baselines/released-che"
NAMES = ["a_b & 50% #1", "x|y **z** <script>alert(1)</script>", "\\input{secret}~^$", HOSTILE.replace("\udcff", "")]


def said(*arguments: object, code: int = 0) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["show", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output if code else result.stdout


@pytest.mark.parametrize(
    ("value", "stderr", "one", "two"),
    [
        (1.2342, 0.0053, "1.234(5)", "1.2342(53)"),
        (5.1234, 0.0214, "5.12(2)", "5.123(21)"),
        (-0.0123, 0.0098, "-0.01(1)", "-0.0123(98)"),
        (1.234, 0.0996, "1.2(1)", "1.23(10)"),
        (123.4, 2.14, "123(2)", "123.4(21)"),
        (123.4, 21.4, "120(20)", "123(21)"),
        (123456.0, 1234.0, "123000(1000)", "123500(1200)"),
        (1234567890.0, 5000000.0, "1.235(5)e9", "1.2346(50)e9"),
        (0.5, 2e7, "0(2)e7", "0.0(20)e7"),
        (-0.001, 0.1, "0.0(1)", "0.00(10)"),
    ],
)
def test_an_error_stands_in_the_last_digits(value: float, stderr: float, one: str, two: str):
    assert in_last_digits(value, stderr, 1) == one
    assert in_last_digits(value, stderr, 2) == two


def test_digits_and_error_read_back_are_the_numbers_to_that_many_digits():
    """Read as metrologists do: the error counts units of the value's last digit."""
    for step in range(200):
        value, stderr = math.sin(step) * 10.0 ** (step % 5), (1.1 + step % 7) * 10.0 ** (step % 6 - 4)
        for digits in (1, 2):
            found = re.fullmatch(r"(-?\d+(?:\.(\d+))?)\((\d+)\)", in_last_digits(value, stderr, digits))
            assert found is not None
            unit = Decimal(1).scaleb(-len(found[2] or ""))
            assert abs(Decimal(found[3]) * unit - Decimal(stderr)) <= Decimal(stderr) / 2
            assert float(abs(Decimal(found[1]) - Decimal(value))) <= 0.51 * float(stderr)
            if found[2]:
                wanted = Decimal(value).quantize(unit, ROUND_HALF_EVEN)
                assert Decimal(found[1]) == wanted and len(found[3]) == digits


def test_csv_with_all_columns_is_the_file_itself():
    for place, name in ((RELEASED, "rows.csv"), (PROBLEMS, "che.csv")):
        assert said(place, "--format", "csv").encode() == (place / name).read_bytes()


def test_json_has_every_row_and_every_digit():
    rows = json.loads(said(RELEASED, "--format", "json"))
    stored = list(csv.DictReader(io.StringIO((RELEASED / "rows.csv").read_text(encoding="utf-8"))))
    assert len(rows) == len(stored) > 100
    for row, wanted in zip(rows, stored, strict=True):
        for column in table.ROWS:
            value, text = row[column.name], wanted[column.name]
            if column.kind == "string":
                assert value == text
            elif value is None:
                assert text == ""
            else:
                assert float(value) == float(text)


def test_columns_are_chosen_in_the_order_that_is_asked_for():
    lines = said(RELEASED, "--format", "csv", "--columns", "length, model,value").splitlines()
    assert lines[0] == "length,model,value"
    stored = list(csv.DictReader(io.StringIO((RELEASED / "rows.csv").read_text(encoding="utf-8"))))
    assert lines[1:] == [f"{row['length']},{row['model']},{row['value']}" for row in stored]
    assert "did you mean value" in said(RELEASED, "--format", "csv", "--columns", "valu", code=2)
    head = said(RELEASED, "--format", "markdown", "--columns", "model,metric,value").splitlines()[0]
    assert head == "| model | metric | value |"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--format", "csv", "--over-seeds"), "csv has the stored rows"),
        (("--format", "json", "--error-digits", "1"), "json has the stored rows"),
        (("--columns", "model", "--transpose"), "choose one"),
        (("--columns", "model", "--cite"), "choose one"),
        (("--error-digits", "3"), "--error-digits is 1 or 2, not 3"),
        (("--format", "jsn"), "did you mean json"),
    ],
)
def test_what_does_not_go_together_is_told(arguments: tuple[str, ...], sentence: str):
    assert sentence in " ".join(said(RELEASED, *arguments, code=2).split())


def test_missing_and_infinite_numbers_are_told_apart():
    assert [plain(value) for value in (math.nan, math.inf, -math.inf, None, 1.5, "x")] == [
        None, "inf", "-inf", None, 1.5, "x",
    ]  # fmt: skip
    columns = (table.MODEL, table.VALUE)
    stored = Stored("t", columns, [{"model": 'a,\n"b"', "value": math.inf}, {"model": "c", "value": None}])
    assert list(csv.reader(io.StringIO(as_csv(stored)))) == [["model", "value"], ['a,\n"b"', "inf"], ["c", ""]]
    assert json.loads(as_json(stored)) == [{"model": 'a,\n"b"', "value": "inf"}, {"model": "c", "value": None}]
    assert as_csv(chosen(stored, ["value"])).splitlines() == ["value", "inf", '""']
    with pytest.raises(UnknownName, match="column of t"):
        chosen(stored, ["length"])


def row(model: str, value: float | None, length: int = 512, **more: Any) -> dict[str, Any]:
    return {
        "model": model, "encoding": model, "train_length": 512, "length": length, "metric": "m", "value": value,
        "stderr": 0.0123, "unit": "nats", "status": "ok", "note": "", **more,
    }  # fmt: skip


def test_the_best_of_those_that_were_measured_at_one_place_is_bold():
    rows = [row("a", 2.0), row("b", 1.0), row("c", 0.5, status="error"), row("d", 0.1, encoding=table.OPTIMUM),
            row("a", 3.0, 1024), row("x", None, status="n/a")]  # fmt: skip
    stored = Stored("t", (table.MODEL, table.LENGTH, table.VALUE), rows)
    low, high = (stored_table(stored, lambda metric, way=way: way) for way in (1, -1))
    assert [(line[0], line[2]) for line in low.rows if isinstance(line[2], Cell) and line[2].best] == [
        ("b", Cell("1.000 ± 0.012", True)),
    ]
    assert [line[0] for line in high.rows if isinstance(line[2], Cell) and line[2].best] == ["a"]
    apart = stored_table(Stored("t", (table.VALUE, table.STDERR), rows[:1]), lambda metric: None)
    assert apart.rows == [[Cell("2.000"), "0.01230"]]
    (told,) = item_tables(rows[:2], lambda metric: -1)
    assert [isinstance(line[-1], Cell) and line[-1].best for line in told.rows] == [True, False]
    assert best_of_columns(told, {0: 1}).rows == told.rows


def wide() -> Table:
    heads = [Column("model"), Column("encoding"), *(Column(str(n), "last", True) for n in (512, 2048))]
    lines = [[name, "alibi", Cell(with_error(1.2342, 0.0053), number == 0), "n/a"] for number, name in enumerate(NAMES)]
    return Table("a_title & more", heads, lines, kept=1, described=1, below=["± is one standard error"])


def test_a_table_is_turned_with_its_bold_and_its_numbers():
    found = turned(wide())
    assert [each.text for each in found.columns] == ["", "length", *NAMES]
    assert [line[:2] for line in found.rows] == [["last", "512"], ["last", "2048"]]
    assert [isinstance(cell, Cell) and cell.best for cell in found.rows[0][2:]] == [True, False, False, False]
    assert found.below == ["encoding alibi in every row", "± is one standard error"]
    digits = with_error_digits(found, 1)
    assert [cell.text for cell in digits.rows[0][2:] if isinstance(cell, Cell)] == ["1.234(5)"] * 4
    with pytest.raises(SpecError, match="leave --transpose out"):
        turned(screen.listing("", ("a",), [("b",)]))
    lines = said(RELEASED, "--format", "markdown", "--transpose").splitlines()
    assert lines[0].startswith("|  | length | alibi |") and lines[2].split("|")[2].strip() == "512"


def rendered(markdown: str) -> list[list[str]]:
    """The cells of the tables of a page, by a renderer of another project: text alone, or it fails."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows:
            assert {each.type for each in token.children or []} <= {
                "text",
                "text_special",
                "strong_open",
                "strong_close",
            }
            rows[-1].append("".join(each.content for each in token.children or []))
    return rows


def test_markdown_is_rendered_as_a_table_whose_cells_are_the_names():
    found = rendered(table_as(wide(), "markdown"))
    shown = [re.sub("[\x00-\x1f\x7f-\x9f\u202e]+", " ", name).strip() for name in NAMES]
    assert [line[0].strip() for line in found[1:]] == shown
    assert [line[2] for line in found[1:]] == ["1.2342 ± 0.0053"] * 4


LATEX = shutil.which("pdflatex")


@pytest.mark.slow
@pytest.mark.skipif(LATEX is None, reason="there is no pdflatex; Debian has it in texlive-latex-base with booktabs.sty")
def test_latex_compiles_with_names_of_any_kind(tmp_path: Path):
    tables = [
        table_as(wide(), "latex"),
        table_as(turned(with_error_digits(wide(), 2)), "latex"),
        *(said(place, "--format", "latex", "--error-digits", "1") for place in (RELEASED, PROBLEMS)),
        said(RELEASED, "--format", "latex", "--columns", "model,protocol,length,metric,value,note"),
    ]
    page = "\n\\newpage\n".join(tables).replace("\u202e", " ")
    start = "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage[utf8]{inputenc}\\usepackage{booktabs}"
    (tmp_path / "page.tex").write_text(f"{start}\n\\begin{{document}}\n{page}\n\\end{{document}}\n", encoding="utf-8")
    command = [str(LATEX), "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "page.pdf").stat().st_size > 10_000


def test_a_training_and_a_study_have_stored_rows_too(tmp_path: Path):
    for name, spec in (("train", "kind: train\nname: x\n"), ("study", "kind: study\nname: x\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.yaml").write_text(spec)
    head = "step,train_nll_nats,gradient_norm,learning_rate,valid_nll_nats,seconds"
    log = f"{head}\n10,2.5,0.1,0.001,,1.0\n20,2.25,0.1,0.001,2.125,2.0\n"
    (tmp_path / "train" / "training.csv").write_text(log)
    (tmp_path / "study" / "provenance.json").write_text(json.dumps({"trainings": {"a": "done", "b": "failed"}}))
    assert said(tmp_path / "train", "--format", "csv") == log
    assert json.loads(said(tmp_path / "study", "--format", "json")) == [
        {"name": "a", "state": "done"}, {"name": "b", "state": "failed"},
    ]  # fmt: skip
    assert "| 20 | 2.250 | 2.125 | 2.000 |" in said(tmp_path / "train", "--format", "markdown")
    assert "holds no values" in said(tmp_path / "study", "--over-seeds", code=2)


def test_every_column_that_can_be_chosen_is_told():
    told = {line[0] for line in _listed()}
    columns = {column.name for columns in (table.ROWS, table.CHE, table.SPEED, table.ITEM_ROWS) for column in columns}
    assert columns | {"step", "valid_nll_nats"} <= told
    assert csv_bytes(table.ROWS, []).decode().strip().split(",") == [column.name for column in table.ROWS]


def _listed() -> list[list[str]]:
    from lpe_eval.commands.list import catalogue

    return [[str(cell) for cell in line] for line in catalogue("columns").rows]
