"""Tables on a page: those of the screen with the stored numbers behind them, stored rows with every digit, heat maps.

A cell whose number was rounded says the stored one when it is pointed at, and is sorted by it (`data-value`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lpe_eval.report.page.parts import HeatCell, HeatMap
from lpe_eval.report.page.safe import escaped
from lpe_eval.report.stored_rows import Stored
from lpe_eval.screen import Cell, Column, Table, Written, written

_DEEP = 0.55
"""From this share of a colour on, letters are light."""

_MARKS = {
    "worse": "✗", "missing": "✗", "not comparable": "⊘", "inconclusive": "?", "better": "✓", "same": "✓", "new": "+",
}  # fmt: skip
"""What stands before a verdict, for those who see no colour."""


def table_html(table: Table, verdicts: bool = False) -> str:
    """A table of the screen, with its title and the sentences below it; lines can be sorted where there are several.

    Args:
        table: what is shown.
        verdicts: whether the last column holds verdicts of a gate.
    """
    notes = "".join(f"<li>{escaped(line)}</li>" for line in table.below if line.strip())
    below = f'<ul class="notes">{notes}</ul>' if notes else ""
    if not table.columns:
        return below
    rows = "".join(_row(table, row, verdicts) for row in table.rows)
    return _scrolled(table.title, _heads(table.columns, len(table.rows) > 1), rows) + below


def facts_html(table: Table) -> str:
    """A table of names and values as a list of both."""
    pairs = "".join(
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>"
        for name, value in ([_text(cell) for cell in row] for row in table.rows)
    )
    return f'<dl class="facts">{pairs}</dl>'


def stored_html(stored: Stored) -> str:
    """Rows with every digit; a column that says the same in all of them is told once, above."""
    texts = [[_stored(row[column.name]) for column in stored.columns] for row in stored.rows]
    same = [
        place for place in range(len(stored.columns)) if len(texts) > 1 and len({line[place] for line in texts}) == 1
    ]
    told = [f"{stored.columns[place].name}: {texts[0][place]}" for place in same if texts[0][place]]
    shown = [place for place in range(len(stored.columns)) if place not in same]
    heads = [Column(stored.columns[place].name, number=stored.columns[place].kind != "string") for place in shown]
    rows = "".join(
        f"<tr>{''.join(_plain(line[place], heads[at].number) for at, place in enumerate(shown))}</tr>" for line in texts
    )
    every = f'<p class="notes">in every row: {escaped("; ".join(told))}</p>' if told else ""
    return every + _scrolled(stored.name, _heads(heads, len(texts) > 1, _meanings(stored)), rows)


def heat_html(heat: HeatMap) -> str:
    """A table whose cells have colours."""
    heads = "".join(f'<th scope="col">{escaped(head)}</th>' for head in heat.heads)
    level = '<th scope="col"></th>' if heat.groups else ""
    rows = []
    for number, (name, cells) in enumerate(heat.lines):
        first = ""
        if heat.groups and (number == 0 or heat.groups[number] != heat.groups[number - 1]):
            many = next(
                (at - number for at in range(number, len(heat.groups)) if heat.groups[at] != heat.groups[number]),
                len(heat.groups) - number,
            )
            first = f'<th scope="rowgroup" rowspan="{many}" class="level">{escaped(heat.groups[number])}</th>'
        rows.append(f'<tr><th scope="row">{escaped(name)}</th>{"".join(map(_heat, cells))}{first}</tr>')
    notes = "".join(f"<p>{escaped(sentence)}</p>" for sentence in heat.told)
    return (
        f'<figure class="heat"><figcaption>{escaped(heat.title)}</figcaption>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(heat.title)}"><table>'
        f'<thead><tr><th scope="col">{escaped(heat.corner)}</th>{heads}{level}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table></div><div class="told">{notes}</div></figure>'
    )


def _heat(cell: HeatCell) -> str:
    kinds = [
        "num",
        *(["weak"] if cell.weak else []),
        *(["deep"] if cell.share is not None and cell.share > _DEEP else []),
    ]
    title = f' title="{escaped(cell.told)}"' if cell.told else ""
    colour = "" if cell.share is None or cell.weak else f' style="--share:{100 * cell.share:.0f}%"'
    return f'<td class="{" ".join(kinds)}"{title}{colour}>{escaped(cell.text)}</td>'


def _scrolled(title: str, heads: str, rows: str) -> str:
    caption = f"<caption>{escaped(title)}</caption>" if title else ""
    label = escaped(title or "table")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table class="sortable">{caption}'
        f"<thead>{heads}</thead><tbody>{rows}</tbody></table></div>"
    )


def _heads(columns: Sequence[Column], sorted_: bool, meanings: Mapping[str, str] | None = None) -> str:
    lines = []
    if any(column.group for column in columns):
        groups: list[tuple[str, int]] = []
        for column in columns:
            if groups and groups[-1][0] == column.group:
                groups[-1] = (column.group, groups[-1][1] + 1)
            else:
                groups.append((column.group, 1))
        cells = "".join(
            f'<th scope="colgroup" colspan="{many}" class="group">{escaped(name)}</th>'
            if name
            else f'<td colspan="{many}"></td>'
            for name, many in groups
        )
        lines.append(f"<tr>{cells}</tr>")
    cells = "".join(_head(column, sorted_, (meanings or {}).get(column.text, "")) for column in columns)
    return "".join([*lines, f"<tr>{cells}</tr>"])


def _head(column: Column, sorted_: bool, meaning: str) -> str:
    name = escaped(column.text)
    inside = f'<button type="button">{name}</button>' if sorted_ and name else name
    kind = ' class="num"' if column.number else ""
    title = f' title="{escaped(meaning)}"' if meaning else ""
    return f'<th scope="col"{kind}{title}>{inside}</th>'


def _row(table: Table, row: Sequence[Cell | str], verdicts: bool) -> str:
    cells = []
    for place, (cell, column) in enumerate(zip(row, table.columns, strict=True)):
        text, verdict = _text(cell), verdicts and place == len(row) - 1
        inside = escaped(text)
        if isinstance(cell, Cell) and cell.best:
            inside = f"<strong>{inside}</strong>"
        if verdict:
            inside = f'<span class="verdict {escaped(text).replace(" ", "-")}">{_MARKS.get(text, "")} {inside}</span>'
        kind = ' class="num"' if column.number else ""
        if place < table.kept:
            cells.append(f'<th scope="row"{kind}>{inside}</th>')
        else:
            cells.append(f"<td{kind}{_behind(text)}>{inside}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _behind(text: str) -> str:
    """The stored number behind a rounded one."""
    if not isinstance(text, Written) or text.value is None or math.isnan(text.value):
        return ""
    error = "" if text.stderr is None or math.isnan(text.stderr) else f" ± {text.stderr!r}"
    return f' data-value="{_number(text.value)}" title="{text.value!r}{error}"'


def _stored(value: Any) -> str:
    return repr(value) if isinstance(value, float) else "" if value is None else written(value)


def _plain(text: str, is_number: bool) -> str:
    kind = ' class="num"' if is_number else ""
    behind = f' data-value="{_number(float(text))}"' if is_number and text in ("inf", "-inf") else ""
    return f"<td{kind}{behind}>{escaped(text)}</td>"


def _number(value: float | int) -> str:
    """As JavaScript reads it."""
    return repr(value) if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def _meanings(stored: Stored) -> dict[str, str]:
    return {column.name: f"{column.meaning}{f' ({column.unit})' if column.unit else ''}" for column in stored.columns}


def _text(cell: Cell | str) -> str:
    return cell.text if isinstance(cell, Cell) else cell
