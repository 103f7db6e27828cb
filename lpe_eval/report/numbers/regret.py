"""What a model loses against the best possible guess, and which part of what more context can give it took.

Both are made from the sums of cells. Regret is the mean loss of a cell above that of the best guess of the very same
targets. The share of the gain, between a shorter length and a longer one, is

    (loss at the shorter - loss at the longer) / (the same of the best guess),

0 for a model that makes nothing of the further context, 1 for one that makes of it what can be made, below 0 for one
that is worse off with it. It says nothing of what a model lacks at the shorter length already, which is regret there.

Choices:
    * The shorter length is the one that the model was trained on, where it is measured, else the shortest of the run.
    * The uncertainty of both resamples documents (or blocks, as everywhere) with all their sums together, those of the
      model and of the best guess at both lengths, so that what makes a document hard for all of them cancels.
    * Where the best guess gains nothing, there is no share.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lpe_eval import table
from lpe_eval.report.numbers.resampling import Uncertainty, resampled
from lpe_eval.report.numbers.statistics import paired_difference
from lpe_eval.table import GAIN_SHARE, OPTIMUM, OPTIMUM_METRICS, REGRET, BlockSum, CellKey

_NAN = float("nan")
_NONE = Uncertainty(_NAN, _NAN, _NAN, "none")


class Sums(NamedTuple):
    """A finished cell.

    Attributes:
        row: one of its rows.
        blocks: its sums; empty where it has no value.
    """

    row: Mapping[str, Any]
    blocks: Sequence[BlockSum]


def optimum_rows(
    cells: Mapping[CellKey, Sums], planned: Iterable[CellKey], known: dict[tuple, list[dict[str, Any]]]
) -> dict[CellKey, list[dict[str, Any]]]:
    """The further rows of each cell of a run, with every column of `table.ROWS`; none where nobody knows the optimum.

    Args:
        cells: of the run, so far.
        planned: the cells that the whole run has.
        known: what an earlier call found, which is not reckoned again; grows.
    """
    best = {key: cell for key, cell in cells.items() if cell.row[table.ENCODING.name] == OPTIMUM}
    if not best:
        return {}
    keys = list(dict.fromkeys([*planned, *cells]))
    found: dict[CellKey, list[dict[str, Any]]] = {}
    for key, cell in cells.items():
        own = best_of(key, cell, best)
        if key in best or own is None:
            continue
        shorter = _shorter(key, cell, keys)
        before = cells.get(shorter) if shorter is not None else None
        basis = None if before is None or shorter is None else best_of(shorter, before, best)
        what = (key, None if basis is None or before is None else before.row["status"])
        if what not in known:
            known[what] = [_row(cell, REGRET, _regret(cell, own))]
            if shorter is not None and before is not None and basis is not None:
                share = _gain_share(key, (before, cell), (basis, own))
                known[what].append(_row(cell, GAIN_SHARE, share, f"of the gain from {shorter.length} tokens"))
        found[key] = known[what]
    return found


def best_of(key: CellKey, cell: Sums, best: Mapping[CellKey, Sums]) -> Sums | None:
    """The cell of the best guess that scored what a cell scored; None where there is none."""
    there = [each for other, each in best.items() if other[1:] == key[1:] and each.blocks]
    return next((each for each in there if not cell.blocks or _places(each) == _places(cell)), None)


def regret(cell: Sums, best: Sums) -> float:
    """Nats per token of a cell above those of the best guess."""
    return _mean(cell) - _mean(best)


def gain_share(cells: tuple[Sums, Sums], best: tuple[Sums, Sums]) -> float:
    """The part that a model took of the gain of the best guess, from the first cell to the second; NaN without one."""
    gain = _mean(best[0]) - _mean(best[1])
    return (_mean(cells[0]) - _mean(cells[1])) / gain if gain > 0 else _NAN


def _regret(cell: Sums, best: Sums) -> tuple[float, Uncertainty, str]:
    if cell.row["status"] != "ok":
        return _NAN, _NONE, ""
    found = paired_difference(cell.blocks, best.blocks, int(cell.row["seed"]))
    return regret(cell, best), Uncertainty(found.stderr, found.ci_low, found.ci_high, found.ci_method), ""


def _gain_share(key: CellKey, cells: tuple[Sums, Sums], best: tuple[Sums, Sums]) -> tuple[float, Uncertainty, str]:
    if any(cell.row["status"] != "ok" for cell in cells):
        return _NAN, _NONE, "there is no loss at that length"
    value = gain_share(cells, best)
    if math.isnan(value):
        return value, _NONE, "the best possible guess gains nothing"

    def share(sums: Float[np.ndarray, "r c"]) -> Float[np.ndarray, " r"]:
        with np.errstate(divide="ignore", invalid="ignore"):
            before, after, best_before, best_after = (sums[:, ::2] / sums[:, 1::2]).T
            return np.where(best_before > best_after, (before - after) / (best_before - best_after), np.nan)

    sums = _joined([*cells, *best])
    return value, resampled(sums, [GAIN_SHARE, *key, cells[1].row["seed"]], share), ""


def _joined(cells: Sequence[Sums]) -> dict[tuple[str, str, int], tuple[float, ...]]:
    """Nats and targets of each block in each cell; zero where a cell scored nothing of it."""
    keys = dict.fromkeys((block.digest, block.document, block.block) for cell in cells for block in cell.blocks)
    found = {key: [0.0] * (2 * len(cells)) for key in keys}
    for place, cell in enumerate(cells):
        for block in cell.blocks:
            sums = found[block.digest, block.document, block.block]
            sums[2 * place] += block.nll_nats
            sums[2 * place + 1] += block.n_tokens
    return {key: tuple(sums) for key, sums in found.items()}


def _row(cell: Sums, metric: str, found: tuple[float, Uncertainty, str], note: str = "") -> dict[str, Any]:
    value, spread, why_not = found
    lost = cell.row["status"] != "ok"
    own = {
        table.METRIC: metric,
        table.VALUE: value,
        table.STDERR: spread.stderr,
        table.CI_LOW: spread.low,
        table.CI_HIGH: spread.high,
        table.CI_METHOD: spread.method,
        table.UNIT: OPTIMUM_METRICS[metric][0],
        table.STATUS: cell.row["status"] if lost or not why_not else "n/a",
        table.NOTE: cell.row["note"] if lost else "; ".join(filter(None, (note, why_not, cell.row["note"]))),
    }
    return {**cell.row, **{column.name: each for column, each in own.items()}}


def _shorter(key: CellKey, cell: Sums, keys: Iterable[CellKey]) -> CellKey | None:
    """The planned cell from which the gain of another one is reckoned; None for that cell and for shorter ones."""
    lengths = {each.length: each for each in keys if each[:2] == key[:2]}
    trained = cell.row["train_length"]
    first = lengths.get(trained) if isinstance(trained, int) else None
    first = first or lengths[min(lengths)]
    return first if first.length < key.length else None


def _mean(cell: Sums) -> float:
    return math.fsum(block.nll_nats for block in cell.blocks) / sum(block.n_tokens for block in cell.blocks)


def _places(cell: Sums) -> dict[tuple[str, str, int], int]:
    return {(block.digest, block.document, block.block): block.n_tokens for block in cell.blocks}
