"""The best value of some columns of numbers, shown bold."""

from collections.abc import Mapping

from lpe_eval.screen import Cell, Table, Written


def best_of_columns(table: Table, ways: Mapping[int, int | None]) -> Table:
    """The table with the best value of each of these columns bold, by the stored numbers; none where one stands alone.

    Args:
        table: whose numbers know what they were written from.
        ways: by column, 1 where more is worse and -1 where less is; None leaves a column as it is.
    """
    rows = [list(row) for row in table.rows]
    for place, way in ways.items():
        values = {number: value for number, row in enumerate(rows) if (value := _value(row[place])) is not None}
        if way is None or len(values) < 2:
            continue
        best = min(values.values()) if way == 1 else max(values.values())
        for number, value in values.items():
            if value == best:
                rows[number][place] = Cell(_text(rows[number][place]), best=True)
    return table._replace(rows=rows)


def _value(cell: Cell | str) -> float | int | None:
    text = _text(cell)
    # What is not a number is not even the worst one.
    return text.value if isinstance(text, Written) and text.value == text.value else None


def _text(cell: Cell | str) -> str:
    return cell.text if isinstance(cell, Cell) else cell
