"""Rows that their own sums contradict: such a folder is no measurement, and nothing is judged by it."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lpe_eval.errors import OutputError
from lpe_eval.report.folders.blocks import blocks_of, cell_of
from lpe_eval.report.folders.ppl import Run
from lpe_eval.report.frames import UNFIT
from lpe_eval.report.gate.joining import Judged
from lpe_eval.report.numbers.regret import Sums, optimum_rows
from lpe_eval.report.numbers.statistics import loss_metrics
from lpe_eval.table import CHE_METRICS, OPTIMUM_METRICS, BlockSum, CellKey

_PRECISION = 1e-9
"""Values are written in full precision, and sums are exact but for their order."""


def refuse_damaged(found: Sequence[Judged], source: str) -> None:
    """Nothing, if every judged row is what the sums of its documents (or strings) come to.

    Args:
        found: the judged rows of one folder.
        source: what it is called.

    Raises:
        OutputError: a row cannot be; the sentence names the first.
    """
    for judged in found:
        fault = _of_problem(judged) if judged.row["metric"] in CHE_METRICS else _of_text(judged)
        if fault:
            row = judged.row
            place = row["task"] if row["metric"] in CHE_METRICS else row["protocol"]
            raise _damaged(source, f"{row['model']}, {place} at {row['length']}: {fault}")


def refuse_damaged_run(run: Run, found: Sequence[Judged], source: str) -> None:
    """As `refuse_damaged`, of a run of text: also the metrics that are not judged, and sums without a row.

    Args:
        run: the run.
        found: its judged rows.
        source: what it is called.

    Raises:
        OutputError: a row cannot be, or lacks.
    """
    refuse_damaged(found, source)
    try:
        sums = blocks_of(run.by_document)
        cells = {cell_of(row): row for row in run.rows.to_dict("records") if row["metric"] == "nll_nats"}
        for cell in sums:
            if cell not in cells:
                raise _damaged(source, f"{cell[0]}, {cell[1]} at {cell[2]}: there are sums of its documents and no row")
        for row in run.rows.to_dict("records"):
            blocks = sums.get(cell_of(row), [])
            if row["status"] != "ok" or not blocks or row["metric"] in OPTIMUM_METRICS:
                continue
            tokens, n_bytes = (sum(getattr(block, name) for block in blocks) for name in ("n_tokens", "n_bytes"))
            value = loss_metrics(math.fsum(block.nll_nats for block in blocks), tokens, n_bytes)[str(row["metric"])]
            if not _close(float(row["value"]), value):
                fault = f"{row['metric']} is {row['value']:.6g} in the table, {value:.6g} by the sums of its documents"
                raise _damaged(source, f"{row['model']}, {row['protocol']} at {row['length']}: {fault}")
        _refuse_other_regrets(run, {cell: Sums(row, sums.get(cell, [])) for cell, row in cells.items()}, source)
    except UNFIT as error:
        raise _damaged(source, str(error)) from error


def _refuse_other_regrets(run: Run, cells: Mapping[tuple, Sums], source: str) -> None:
    """Nothing, if regrets and shares of gains are those of the sums."""
    keyed = {CellKey(*cell): sums for cell, sums in cells.items()}
    made = optimum_rows(keyed, keyed, {})
    for row in run.rows.to_dict("records"):
        if row["metric"] not in OPTIMUM_METRICS:
            continue
        own = made.get(CellKey(*cell_of(row)), [])
        value = next((float(each["value"]) for each in own if each["metric"] == row["metric"]), math.nan)
        if not _close(float(row["value"]), value):
            fault = f"{row['metric']} is {row['value']:.6g} in the table, {value:.6g} by the sums of its documents"
            raise _damaged(source, f"{row['model']}, {row['protocol']} at {row['length']}: {fault}")


def _of_text(judged: Judged) -> str:
    """What cannot be of a row of losses, or ""."""
    row, blocks, value = judged.row, judged.blocks, _number(judged.row["value"])
    tokens, wrong = (sum(getattr(block, name) for block in blocks) for name in ("n_tokens", "n_nonfinite"))
    if row["status"] not in ("ok", "error"):
        return "" if math.isnan(value) and not tokens else f"the status is {row['status']}, and it has a value"
    if any(not 0 <= block.n_nonfinite <= block.n_tokens for block in blocks):
        return "a sum of its documents is over a number of tokens that cannot be"
    for name, count in (("n_tokens", tokens), ("n_nonfinite", wrong)):
        if (row[name] or 0) != count:
            return f"{name} is {row[name] or 0} in the table, {count} in the sums of its documents"
    finite = math.isfinite(value) and _finite(blocks) and not wrong
    if not tokens or finite != (row["status"] == "ok"):
        return f"the status is {row['status']}, and {'every loss is finite' if finite else 'a loss is not finite'}"
    total = math.fsum(block.nll_nats for block in blocks) / tokens if finite else math.nan
    if finite and not _close(value, total):
        return f"{row['metric']} is {value:.6g} in the table, {total:.6g} by the sums of its documents"
    return ""


def _of_problem(judged: Judged) -> str:
    """What cannot be of a row of answers, or ""."""
    row, value = judged.row, _number(judged.row["value"])
    right, counted = (np.array([getattr(block, name) for block in judged.blocks]) for name in ("nll_nats", "n_tokens"))
    if row["status"] != "ok":
        return "" if math.isnan(value) and not len(right) else f"the status is {row['status']}, and it has a value"
    if not math.isfinite(value):
        return "the status is ok, and there is no value"
    if (right < 0).any() or (right > counted).any():
        return "a string has more right answer tokens than it has answer tokens"
    if (row["n_tokens"] or 0) != counted.sum():
        return f"{row['n_tokens'] or 0} answer tokens in the table, {int(counted.sum())} in the sums of its strings"
    if not counted.sum():
        return "the status is ok, and no answer counts"
    if not _close(value, right.sum() / counted.sum()) and not _of_sub_batches(value, right, counted):
        fault = f"{row['metric']} is {value:.6g} in the table, {right.sum() / counted.sum():.6g} by the sums"
        return f"{fault} of its strings"
    return ""


def _of_sub_batches(value: float, right: np.ndarray, counted: np.ndarray) -> bool:
    """Whether the value is a mean over sub-batches, as released code reports it (`--deepmind-compat`)."""
    for size in range(1, len(right)):
        starts = range(0, len(right), size)
        sums = (np.add.reduceat(side, starts) for side in (right, counted))
        if _close(value, float(np.mean(np.divide(*sums)))):
            return True
    return False


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _close(one: float, other: float) -> bool:
    alike = math.isclose(one, other, rel_tol=_PRECISION, abs_tol=_PRECISION)
    return alike or (math.isnan(one) and math.isnan(other))


def _finite(blocks: Sequence[BlockSum]) -> bool:
    return all(math.isfinite(block.nll_nats) for block in blocks)


def _damaged(source: str, fault: str) -> OutputError:
    return OutputError(f"the run {source} is damaged: {fault}; measure anew")
