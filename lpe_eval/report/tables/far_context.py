"""Tables of how models use far context: effective lengths, and power laws through the loss by context."""

from collections.abc import Mapping, Sequence
from typing import Any

from lpe_eval.report.tables.reasons import reasons
from lpe_eval.screen import Column, Table, with_error, written

EFFECTIVE_LENGTH = "effective length"
_RULE = (
    "effective length: where more context stops gaining beyond chance (protocol anchored); in brackets its 95 % "
    "interval, where that is more than one length"
)

_FEW = (
    "a wide interval is one of few targets: a smaller --stride scores more of the text, a larger --max-tokens more text"
)
_WIDE = 4
"""Times the lower end of an interval from which on it is called wide."""


def effective_cells(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """By model, its effective length as it is written: 2048, 2048 (1024-4096), 512 or less, 8192 or more, n/a.

    Args:
        rows: with the columns of `text_tables.EFFECTIVE_LENGTHS`, missing values None.
    """
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(str(row["model"]), []).append(_cell(row))
    return {model: "; ".join(dict.fromkeys(cells)) for model, cells in found.items()}


def effective_sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stands below the table: the rule, and why some models have no effective length."""
    told = [*reasons([{**row, "model": f"effective length of {row['model']}"} for row in rows], ("protocol",)), _RULE]
    if any(row["effective_length"] and row["effective_high"] >= _WIDE * row["effective_low"] for row in rows):
        told.append(_FEW)
    return told


def fit_table(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """One table of the laws that were found, and a sentence for those that were not; empty without either.

    Args:
        rows: with the columns of `text_tables.POSITION_FIT`, missing values None.
    """
    if not rows:
        return []
    heads = ("model", "protocol", "context", "alpha", "beta", "gamma")
    fitted = [
        [
            str(row["model"]),
            str(row["protocol"]),
            f"{row['fitted_from']} to {row['fitted_to']}",
            *(with_error(row[name], row[f"{name}_stderr"]) for name in heads[3:]),
        ]
        for row in rows
        if row["status"] == "ok"
    ]
    why: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] != "ok":
            why.setdefault(written(row["note"]), []).append(f"{row['model']} ({row['protocol']})")
    below = [f"no fit of {', '.join(those)}: {reason}" for reason, those in why.items()]
    if not fitted:
        return [Table("", [], [], below=below)]
    below.append("loss = (alpha / context)^beta + gamma in nats; ± is one standard error of the fit to this text")
    columns = [Column(name, number=place > 2) for place, name in enumerate(heads)]
    return [Table("loss by context", columns, fitted, kept=2, described=1, below=below)]


def _cell(row: Mapping[str, Any]) -> str:
    length = row["effective_length"]
    if length is None:
        return str(row["status"])
    low, high = row["effective_low"], row["effective_high"]
    more = " or less" if length == row["shortest"] == high else " or more" if row["beyond"] == "none" else ""
    return f"{length}{more}" + (f" ({low}-{high})" if low != high else "")
