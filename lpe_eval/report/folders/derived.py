"""What follows from the tables of a perplexity run: effective lengths, changes with length, and a law of context.

A run writes it at its end, as `text_tables.py` declares it; of an older folder it is made when it is shown. The same
tables give the same bytes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lpe_eval import table, text_tables
from lpe_eval.errors import OutputError
from lpe_eval.report.folders.blocks import blocks_of
from lpe_eval.report.folders.ppl import Run
from lpe_eval.report.frames import UNFIT, csv_bytes, records
from lpe_eval.report.numbers.by_length import Sweep, changes, effective_lengths, is_anchored, sweeps
from lpe_eval.report.numbers.position_fit import Fit, fit_power_law

Row = dict[str, Any]


def derived_files(run: Run) -> dict[str, bytes]:
    """The files by name; one that would hold nothing is left out.

    Raises:
        OutputError: a table holds what no run would write.
    """
    found = sweeps_of(run)
    made = {
        "effective_length.csv": list(effective_rows(found)),
        "changes.csv": list(change_rows(found)),
        "position_fit.csv": fit_rows(run),
    }
    return {
        name: csv_bytes(text_tables.DERIVED[name], [_ordered(name, row) for row in rows])
        for name, rows in made.items()
        if rows
    }


def sweeps_of(run: Run) -> list[Sweep]:
    """The models of a run whose lengths scored the same text.

    Raises:
        OutputError: a table holds what no run would write.
    """
    try:
        return sweeps(records(run.rows), blocks_of(run.by_document))
    except UNFIT as error:
        raise OutputError(f"the tables of the run are damaged ({error}); measure anew") from error


def effective_rows(found: Sequence[Sweep]) -> Iterator[Row]:
    """A row for each model that was measured under `anchored` at several lengths."""
    for sweep, each in effective_lengths(found):
        yield {
            **_common(sweep.longest),
            "shortest": min(sweep.rows),
            "longest": max(sweep.rows),
            "effective_length": each.length,
            "effective_low": each.low,
            "effective_high": each.high,
            "beyond": each.beyond,
            "gain": each.gain,
            "gain_stderr": each.gain_stderr,
            "ci_method": each.method,
            "n_tokens": each.tokens,
            "status": "ok" if each.length is not None else "n/a",
            "note": each.note,
        }


def change_rows(found: Sequence[Sweep]) -> Iterator[Row]:
    """A row for each length of each model and protocol."""
    for sweep in found:
        for each in changes(sweep):
            yield {
                **_common(sweep.rows[each.length]),
                "from_length": each.from_length,
                "change": each.change,
                "stderr": each.stderr,
                "ci_low": each.low,
                "ci_high": each.high,
                "ci_method": each.method,
                "n_tokens": each.tokens,
            }


def fit_rows(run: Run) -> list[Row]:
    """A row for each model and protocol that has losses by context, at its longest length.

    `anchored` scores the same targets with little and with much context, so there all lengths are taken together.
    """
    facts = {(row["model"], row["protocol"], row["length"]): row for row in records(run.rows)}
    curves: dict[tuple[str, str], list[Row]] = {}
    for row in records(run.by_position):
        if row["n_tokens"] and (row["model"], row["protocol"], row["length"]) in facts:
            curves.setdefault((row["model"], row["protocol"]), []).append(row)
    made = []
    for (model, protocol), points in curves.items():
        longest = max(point["length"] for point in points)
        if not is_anchored(protocol):
            points = [point for point in points if point["length"] == longest]
        fit, low, high = _fit(points)
        made.append(
            {
                **_common(facts[model, protocol, longest]),
                "fitted_from": low,
                "fitted_to": high,
                "alpha": fit.alpha.value,
                "alpha_stderr": fit.alpha.stderr,
                "beta": fit.beta.value,
                "beta_stderr": fit.beta.stderr,
                "gamma": fit.gamma.value,
                "gamma_stderr": fit.gamma.stderr,
                "explained": fit.explained,
                "n_tokens": sum(point["n_tokens"] for point in points),
                "status": "n/a" if fit.why_not else "ok",
                "note": fit.why_not,
            }
        )
    return made


def _fit(points: Sequence[Mapping[str, Any]]) -> tuple[Fit, int, int]:
    # The first target of a text after BOS alone, or with none, has no context that a power could be taken of.
    ends = [(max(int(point["context_from"]), 1), max(int(point["context_to"]), 1)) for point in points]
    counts = np.array([float(point["n_tokens"]) for point in points])
    nats = np.array([math.nan if point["nll_nats"] is None else float(point["nll_nats"]) for point in points])
    found = fit_power_law(np.array([math.sqrt(low * high) for low, high in ends]), nats / counts, counts)
    return found, min(low for low, _ in ends), max(high for _, high in ends)


def _common(row: Mapping[str, Any]) -> Row:
    names = ("run", "model", "encoding", "train_length", "protocol", "length", "stride")
    return {**{name: row[name] for name in names}, "schema": table.SCHEMA}


def _ordered(name: str, row: Mapping[str, Any]) -> list[Any]:
    return [row[column.name] for column in text_tables.DERIVED[name]]
