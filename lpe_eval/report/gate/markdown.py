"""A comparison as GitHub-flavoured Markdown, for the summary of a CI job or a comment.

Names are other people's: whatever Markdown or HTML would read as more than text is escaped, and control characters and
line breaks become spaces. Source: the GitHub Flavored Markdown spec, version 0.29, 2.4 (backslash escapes) and 4.10
(tables: a pipe inside a cell needs a backslash).
"""

import re
from collections.abc import Sequence

from lpe_eval.report.markup import markdown_text

_FIRST = re.compile(r"^(\s*)([-+#=>]|\d+(?=[.)]))")
"""What begins a list, a heading, an underline or a quotation where it stands first."""


def as_markdown(
    title: str, outcome: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> bytes:
    """The page: a heading, one sentence, the table, and the notes as a list.

    Args:
        title: what the table is of.
        outcome: how the comparison ended.
        columns: heads of the table.
        rows: cells, as many in each as there are columns.
        notes: sentences.
    """
    lines = [f"### {escaped(title)}", "", escaped(outcome), ""]
    lines += [_line(columns), _line(["---"] * len(columns), plain=True), *(_line(row) for row in rows)]
    lines += ["", *(f"- {escaped(note)}" for note in notes)]
    return ("\n".join(lines) + "\n").encode("utf-8")


def escaped(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    return _FIRST.sub(_held, markdown_text(text))


def _held(found: re.Match[str]) -> str:
    space, mark = found.groups()
    # The number of a list is not what is escaped, but the mark after it.
    return f"{space}{mark}\\" if mark.isdigit() else f"{space}\\{mark}"


def _line(cells: Sequence[str], plain: bool = False) -> str:
    # A cell begins no list, so only what works inside a line is escaped there.
    return f"| {' | '.join(cell if plain else markdown_text(cell) for cell in cells)} |"
