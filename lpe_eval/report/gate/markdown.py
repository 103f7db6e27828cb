"""A comparison as GitHub-flavoured Markdown, for the summary of a CI job or a comment.

Names are other people's: whatever Markdown or HTML would read as more than text is escaped, and control characters and
line breaks become spaces. Source: the GitHub Flavored Markdown spec, version 0.29, 2.4 (backslash escapes) and 4.10
(tables: a pipe inside a cell needs a backslash).
"""

import re
from collections.abc import Sequence

_INLINE = re.compile(r"([\\`*_\[\]|~$])")
_FIRST = re.compile(r"^(\s*)([-+#=>]|\d+(?=[.)]))")
"""What begins a list, a heading, an underline or a quotation where it stands first."""
_HTML = {"&": "&amp;", "<": "&lt;"}
_UNSEEN = re.compile("[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
"""Control characters, line and paragraph separators, directions, and halves of surrogate pairs."""


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
    return _FIRST.sub(_held, _inline(text))


def _inline(text: str) -> str:
    plain = re.sub("[&<]", lambda found: _HTML[found[0]], _UNSEEN.sub(" ", text))
    return _INLINE.sub(r"\\\1", plain)


def _held(found: re.Match[str]) -> str:
    space, mark = found.groups()
    # The number of a list is not what is escaped, but the mark after it.
    return f"{space}{mark}\\" if mark.isdigit() else f"{space}\\{mark}"


def _line(cells: Sequence[str], plain: bool = False) -> str:
    # A cell begins no list, so only what works inside a line is escaped there.
    return f"| {' | '.join(cell if plain else _inline(cell) for cell in cells)} |"
