"""What follows from the tables of a perplexity run: effective lengths, changes with length, and a law of context.

A run writes it at its end, as `text_tables.py` declares it; of an older folder it is made when it is shown. The same
tables give the same bytes.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lpe_eval import table, text_tables
from lpe_eval.errors import OutputError
from lpe_eval.report.folders.blocks import columns_by_cell
from lpe_eval.report.folders.ppl import Run
from lpe_eval.report.frames import UNFIT, csv_bytes, records
from lpe_eval.report.numbers.by_length import Sweep, changes, effective_lengths, is_anchored, sweeps
from lpe_eval.report.numbers.position_fit import Fit, fit_power_law
from lpe_eval.table import PositionSum

Row = dict[str, Any]


class Derived(NamedTuple):
    """What follows from the tables of a run.

    Attributes:
        files: by name; one that would hold nothing is left out.
        changes: the rows of one of them, for the figure.
        sweeps: the models whose lengths scored the same text, with no sum left in them.
    """

    files: dict[str, bytes]
    changes: list[Row]
    sweeps: list[Sweep]


def derived(run: Run, found: Iterable[Sweep]) -> Derived:
    """What follows from the tables of a run; each sweep is asked for once, and let go.

    Args:
        run: of which `by_document` may be empty.
        found: its sweeps.

    Raises:
        OutputError: a table holds what no run would write.
    """
    effective: list[Row] = []
    changed: list[Row] = []
    bare: list[Sweep] = []
    for sweep in found:
        effective += effective_rows([sweep])
        changed += change_rows([sweep])
        bare.append(sweep._replace(blocks=dict.fromkeys(sweep.blocks, ())))
    made = {"effective_length.csv": effective, "changes.csv": changed, "position_fit.csv": fit_rows(run)}
    files = {
        name: csv_bytes(text_tables.DERIVED[name], [_ordered(name, row) for row in rows])
        for name, rows in made.items()
        if rows
    }
    return Derived(files, changed, bare)


def derived_files(run: Run) -> dict[str, bytes]:
    """The files by name; one that would hold nothing is left out.

    Raises:
        OutputError: a table holds what no run would write.
    """
    return derived(run, sweeps_of(run)).files


def sweeps_of(run: Run) -> list[Sweep]:
    """The models of a run whose lengths scored the same text.

    Raises:
        OutputError: a table holds what no run would write.
    """
    try:
        blocks = columns_by_cell(run.by_document)
        return list(sweeps(records(run.rows), lambda cell: blocks.get(cell, ())))
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
    columns = [run.by_position[name].tolist() for name in ("model", "protocol", "length", *PositionSum._fields)]
    curves: dict[tuple[str, str], list[tuple[int, PositionSum]]] = {}
    for model, protocol, length, *sums in zip(*columns, strict=True):
        point = PositionSum(*sums)
        if point.n_tokens is not pd.NA and point.n_tokens and (model, protocol, length) in facts:
            curves.setdefault((model, protocol), []).append((length, point))
    made = []
    for (model, protocol), points in curves.items():
        longest = max(length for length, _ in points)
        kept = [point for length, point in points if length == longest or is_anchored(protocol)]
        fit, low, high = _fit(kept)
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
                "n_tokens": sum(point.n_tokens for point in kept),
                "status": "n/a" if fit.why_not else "ok",
                "note": fit.why_not,
            }
        )
    return made


def _fit(points: Sequence[PositionSum]) -> tuple[Fit, int, int]:
    # The first target of a text after BOS alone, or with none, has no context that a power could be taken of.
    ends = [(max(int(point.context_from), 1), max(int(point.context_to), 1)) for point in points]
    counts = np.array([float(point.n_tokens) for point in points])
    nats = np.array([float(point.nll_nats) for point in points])
    found = fit_power_law(np.array([math.sqrt(low * high) for low, high in ends]), nats / counts, counts)
    return found, min(low for low, _ in ends), max(high for _, high in ends)


def _common(row: Mapping[str, Any]) -> Row:
    names = ("run", "model", "encoding", "train_length", "protocol", "length", "stride")
    return {**{name: row[name] for name in names}, "schema": table.SCHEMA}


def _ordered(name: str, row: Mapping[str, Any]) -> list[Any]:
    return [row[column.name] for column in text_tables.DERIVED[name]]
