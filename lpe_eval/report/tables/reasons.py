"""Why some values are missing, told once for all the places that a reason explains."""

from collections.abc import Mapping, Sequence
from typing import Any

from lpe_eval.screen import written


def reasons(rows: Sequence[Mapping[str, Any]], places: tuple[str, ...]) -> list[str]:
    """A sentence for each status, model and reason.

    Args:
        rows: with `model`, `status` and `note`.
        places: the columns that say where; values of the last are listed, the others stand before it.
    """
    found: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for row in rows:
        if row["status"] != "ok":
            where = found.setdefault((str(row["status"]), str(row["model"]), written(row["note"])), {})
            where.setdefault(" ".join(str(row[place]) for place in places[:-1]), []).append(str(row[places[-1]]))
    lines = []
    for (status, model, reason), where in found.items():
        at = "; ".join(f"{first} {', '.join(dict.fromkeys(last))}".strip() for first, last in where.items())
        lines.append(f"{status}: {model} at {at}: {reason or 'no reason given'}")
    return lines
