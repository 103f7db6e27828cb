"""Tables and figures as HTML for a notebook. Names are other people's, so each is text and never markup."""

import base64
from collections.abc import Iterable, Mapping
from html import escape
from itertools import groupby

from lpe_eval.screen import Cell, Column, Table, visible

_NUMBER = ' style="text-align: right"'


def text(plain: str) -> str:
    """A text that a browser shows as it is, controls and overrides of the direction of writing included."""
    return escape(visible(plain))


def table(shown: Table) -> str:
    """A table with its title above and its sentences below."""
    title = f"<caption>{text(shown.title)}</caption>" if shown.title else ""
    heads = "".join(f"<th{_place(each)}>{text(each.text)}</th>" for each in shown.columns)
    rows = "".join(f"<tr>{_line(shown.columns, row)}</tr>" for row in shown.rows)
    body = f"<table>{title}<thead>{_groups(shown.columns)}<tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return (body if shown.columns else "") + sentences(shown.below)


def sentences(lines: Iterable[str]) -> str:
    """Small lines below a table; nothing where there are none."""
    return "".join(f"<div><small>{text(line)}</small></div>" for line in lines if line.strip())


def pictures(files: Mapping[str, bytes]) -> str:
    """The figures among some files, each of them once, inside the page."""
    return "".join(
        f'<img alt="{text(name)}" style="max-width: 100%" src="data:image/png;base64,'
        f'{base64.b64encode(content).decode("ascii")}">'
        for name, content in files.items()
        if name.endswith(".png")
    )


def _groups(columns: Iterable[Column]) -> str:
    """A line of groups above the heads; nothing where there are none."""
    found = [(name, len(list(those))) for name, those in groupby(columns, key=lambda each: each.group)]
    if not any(name for name, _ in found):
        return ""
    heads = "".join(f"<th colspan={many}>{text(name)}</th>" for name, many in found)
    return f"<tr>{heads}</tr>"


def _line(columns: Iterable[Column], row: Iterable[Cell | str]) -> str:
    cells = (
        (column, each if isinstance(each, Cell) else Cell(each)) for column, each in zip(columns, row, strict=True)
    )
    return "".join(
        f"<td{_place(column)}>{f'<b>{text(each.text)}</b>' if each.best else text(each.text)}</td>"
        for column, each in cells
    )


def _place(column: Column) -> str:
    return _NUMBER if column.number else ""
