"""Tables of a speed measurement for the screen: one for each mode."""

from collections.abc import Mapping, Sequence
from typing import Any

from lpe_eval.screen import Column, Table, number

_COLUMNS = (
    *(Column("encoding"), Column("path")),
    *(Column(name, number=True) for name in ("length", "tokens/s", "times plain", "MiB", "MiB / plain")),
)


def speed_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """A table for each mode; reasons for missing values stand below the last one.

    Args:
        rows: of `speed.csv`, missing values None.
    """
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    tables = [Table(mode, _COLUMNS, [_line(row) for row in rows if row["mode"] == mode]) for mode in modes]
    return [*tables[:-1], tables[-1]._replace(below=_reasons(rows))] if tables else []


def _line(row: Mapping[str, Any]) -> list[str]:
    return [
        row["encoding"],
        row["attention"],
        str(row["length"]),
        number(row["median_tokens_per_second"]) if row["status"] == "ok" else row["status"],
        number(row["times_plain"], 3),
        number(row["pass_memory_mib"], 3),
        number(row["memory_times_plain"], 3),
    ]


def _reasons(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why some cases have no value, each reason once with the places that it explains."""
    places: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] != "ok":
            where = f"{row['encoding']} {row['mode']} {row['length']}"
            places.setdefault(f"{row['status']}: {row['note']}", []).append(where)
    return [f"{reason} ({', '.join(found)})" for reason, found in places.items()]
