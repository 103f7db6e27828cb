"""A table for the screen as Markdown or LaTeX, for a page or a paper.

Names are other people's, so whatever the one or the other would read as more than text is escaped. The whole table is
one, however wide; what stands below it on the screen follows as lines.
"""

import re
from collections.abc import Callable, Sequence

from lpe_eval.errors import UnknownName
from lpe_eval.screen import Cell, Table

_INLINE = re.compile(r"([\\`*_\[\]|~$])")
_HTML = {"&": "&amp;", "<": "&lt;"}
_UNSEEN = re.compile("[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
"""Control characters, line and paragraph separators, directions, and halves of surrogate pairs."""
_TEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "<": r"\textless{}", ">": r"\textgreater{}", **{each: f"\\{each}" for each in "&%$#_{}"},
}  # fmt: skip


def table_as(table: Table, form: str) -> str:
    """A table in one of `FORMS`, ending with a line end.

    Raises:
        UnknownName: there is no such form.
    """
    if form not in FORMS:
        raise UnknownName("--as", form, FORMS)
    return FORMS[form](table)


def markdown_text(text: str) -> str:
    """A text inside a line of Markdown that is shown as it is.

    Source: the GitHub Flavored Markdown spec, version 0.29, 2.4 (backslash escapes) and 4.10 (tables).
    """
    plain = re.sub("[&<]", lambda found: _HTML[found[0]], _UNSEEN.sub(" ", text))
    return _INLINE.sub(r"\\\1", plain)


def latex_text(text: str) -> str:
    """A text that LaTeX sets as it is."""
    written = "".join(_TEX.get(letter, letter) for letter in _UNSEEN.sub(" ", text))
    # What stands before a number is a minus, and no hyphen.
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", written)


def _markdown(table: Table) -> str:
    heads = [markdown_text(f"{each.text}, {each.group}" if each.group else each.text) for each in table.columns]
    rules = ["---:" if each.number else "---" for each in table.columns]
    rows = [[f"**{markdown_text(each.text)}**" if each.best else markdown_text(each.text) for each in row]
            for row in _cells(table)]  # fmt: skip
    title = [f"### {markdown_text(table.title)}", ""] if table.title else []
    lines = [*title, *(f"| {' | '.join(line)} |" for line in (heads, rules, *rows)), ""]
    return "\n".join([*lines, *(f"- {markdown_text(line)}" for line in table.below if line.strip()), ""])


def _latex(table: Table) -> str:
    columns = "".join("r" if each.number else "l" for each in table.columns)
    rows = [[f"\\textbf{{{latex_text(each.text)}}}" if each.best else latex_text(each.text) for each in row]
            for row in _cells(table)]  # fmt: skip
    heads = [latex_text(each.text) for each in table.columns]
    lines = [f"% {_UNSEEN.sub(' ', table.title)}"] if table.title else []
    lines += [f"\\begin{{tabular}}{{{columns}}}", r"\toprule", *_groups(table), _line(heads), r"\midrule"]
    lines += [*map(_line, rows), r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {_UNSEEN.sub(' ', line)}" for line in table.below if line.strip()), ""])


def _groups(table: Table) -> list[str]:
    """The line of group names above the heads, each over its columns; none where there are no groups."""
    if not any(each.group for each in table.columns):
        return []
    spans: list[tuple[str, int]] = []
    for each in table.columns:
        if spans and spans[-1][0] == each.group and each.group:
            spans[-1] = (each.group, spans[-1][1] + 1)
        else:
            spans.append((each.group, 1))
    cells = [f"\\multicolumn{{{many}}}{{c}}{{{latex_text(name)}}}" if name else "" for name, many in spans]
    return [_line(cells)]


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _cells(table: Table) -> list[list[Cell]]:
    return [[each if isinstance(each, Cell) else Cell(each) for each in row] for row in table.rows]


FORMS: dict[str, Callable[[Table], str]] = {"markdown": _markdown, "latex": _latex}
