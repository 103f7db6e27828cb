"""A table for the screen as Markdown or LaTeX, for a page or a paper, and what a paper may want to be different in it.

Names are other people's, so whatever the one or the other would read as more than text is escaped. The whole table is
one, however wide; what stands below it on the screen follows as lines.
"""

import math
import re
from collections.abc import Callable, Sequence

from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.screen import Cell, Column, Table, Written, number, same_everywhere

_INLINE = re.compile(r"([\\`*_\[\]|~$])")
_HTML = {"&": "&amp;", "<": "&lt;"}
_UNSEEN = re.compile("[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
"""Control characters, line and paragraph separators, directions, and halves of surrogate pairs."""
_MOST_PLACES = 12
"""Behind the point; an error below that is none."""
_TEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "<": r"\textless{}", ">": r"\textgreater{}", **{each: f"\\{each}" for each in "&%$#_{}"},
}  # fmt: skip


def table_as(table: Table, form: str, also: Sequence[str] = ()) -> str:
    """A table in one of `FORMS`, ending with a line end.

    Args:
        table: whole.
        form: which.
        also: names of further forms that whoever asked knows.

    Raises:
        UnknownName: there is no such form.
    """
    if form not in FORMS:
        raise UnknownName("--format", form, ("table", *FORMS, *also))
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


def turned(table: Table) -> Table:
    """Lines become columns: of perplexity, a line a length and a column a model.

    What describes the models has no place then; what it says of all of them stands below.

    Raises:
        SpecError: its lines have no names that could become heads.
    """
    first = table.kept + table.described
    if not table.kept:
        raise SpecError("this table has a line for every measurement and cannot be turned; leave --transpose out")
    heads = [" ".join(each.text for each in row[: table.kept]) for row in _cells(table)]
    grouped = any(each.group for each in table.columns)
    what = "length" if all(each.text.isdecimal() for each in table.columns[first:]) else ""
    columns = [*([Column("")] if grouped else []), Column(what), *(Column(head, number=True) for head in heads)]
    rows = [
        [*([each.group] if grouped else []), each.text, *(row[first + place] for row in table.rows)]
        for place, each in enumerate(table.columns[first:])
    ]
    below = [*same_everywhere(table), *table.below]
    return table._replace(columns=columns, rows=rows, kept=1 + grouped, described=0, below=below)


def with_error_digits(table: Table, digits: int) -> Table:
    """Values with their errors in brackets, in the last digits: 5.123(21) or 5.12(2) in the place of 5.123 ± 0.021.

    Args:
        table: whose numbers know what they were written from.
        digits: of each error; 1 or 2.
    """
    rows = [[each._replace(text=_bracketed(each.text, digits)) for each in row] for row in _cells(table)]
    told = "in brackets stands the error, in the last digits: 1.234(5) is 1.234 ± 0.005"
    return table._replace(rows=rows, below=[*table.below, told] if rows else table.below)


def in_last_digits(value: float | int, stderr: float | int, digits: int) -> str:
    """A value and its error, both rounded to so many digits of the error: 5.123(21), 120(20), 1.234(5)e9."""
    if abs(value) >= 1e6 or stderr >= 1e6:
        power = math.floor(math.log10(max(abs(value), stderr)))
        return f"{in_last_digits(value / 10.0**power, stderr / 10.0**power, digits)}e{power}"
    mantissa, _, exponent = f"{stderr:.{digits - 1}e}".partition("e")
    last, error = int(exponent) - digits + 1, int(mantissa.replace(".", ""))
    if last < -_MOST_PLACES:
        return number(value)
    if last > 0:
        return f"{round(value / 10**last) * 10**last}({error * 10**last})"
    # Adding nothing takes the sign from what is rounded to nothing.
    return f"{round(value, -last) + 0.0:.{-last}f}({error})"


def _bracketed(text: str, digits: int) -> str:
    if not isinstance(text, Written) or text.value is None or text.stderr is None:
        return text
    return Written(in_last_digits(text.value, text.stderr, digits), text.value, text.stderr)


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
