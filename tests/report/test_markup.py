"""Tables as Markdown and LaTeX: whole, and nothing in a name obeyed."""

import re

import pytest

from lpe_eval.errors import UnknownName
from lpe_eval.report.markup import latex_text, markdown_text, table_as
from lpe_eval.screen import Cell, Column, Table
from tests.support.hostile_names import HOSTILE

TABLE = Table(
    "a_title & more",
    [
        Column("model"),
        Column("512", "nonoverlap", True),
        Column("1024", "nonoverlap", True),
        Column("512", "last-8", True),
    ],
    [["dape(kerple_log)", Cell("2.94 ± 0.11", best=True), "-0.50", "n/a"], ["100% #1 {x}|y", "3.10 ± 0.12", "inf", ""]],
    below=["± is one standard error", ""],
)


def test_markdown_is_one_table_with_bold_and_escapes():
    assert table_as(TABLE, "markdown") == (
        "### a\\_title &amp; more\n"
        "\n"
        "| model | 512, nonoverlap | 1024, nonoverlap | 512, last-8 |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| dape(kerple\\_log) | **2.94 ± 0.11** | -0.50 | n/a |\n"
        "| 100% #1 {x}\\|y | 3.10 ± 0.12 | inf |  |\n"
        "\n"
        "- ± is one standard error\n"
    )


def test_latex_is_one_tabular_with_groups_over_their_columns():
    assert table_as(TABLE, "latex") == (
        "% a_title & more\n"
        "\\begin{tabular}{lrrr}\n"
        "\\toprule\n"
        " & \\multicolumn{2}{c}{nonoverlap} & \\multicolumn{1}{c}{last-8} \\\\\n"
        "model & 512 & 1024 & 512 \\\\\n"
        "\\midrule\n"
        "dape(kerple\\_log) & \\textbf{2.94 $\\pm$ 0.11} & $-$0.50 & n/a \\\\\n"
        "100\\% \\#1 \\{x\\}|y & 3.10 $\\pm$ 0.12 & inf &  \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
        "% ± is one standard error\n"
    )


def test_what_is_asked_for_by_another_name_is_told():
    with pytest.raises(UnknownName, match="did you mean latex"):
        table_as(TABLE, "latx")


@pytest.mark.parametrize(
    "text", [HOSTILE, "\\input{/etc/passwd}", "a\nb", "$x$ & y \\\\ %", "a~b^c", "<script>", "`x`"]
)
def test_nothing_in_a_name_is_obeyed(text: str):
    in_latex = latex_text(text)
    assert not re.search(r"(?<!\\)[&%#_]", in_latex) and "\\input" not in in_latex and "\n" not in in_latex
    assert "\\\\" not in in_latex
    in_markdown = markdown_text(text)
    assert "<" not in in_markdown and not re.search(r"(?<!\\)[|`*]", in_markdown) and "\n" not in in_markdown
    assert all(letter.isprintable() for letter in in_latex + in_markdown)
