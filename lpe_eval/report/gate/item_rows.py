"""The rows of a kind of run that declares no tables of its own, as the gate reads them.

An item stands where a document does for text: its count is its tokens, its total their sum. Two items are the same if
they have the same digest.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpe_eval import table
from lpe_eval.errors import OutputError
from lpe_eval.report.folders.items import BY_ITEM, item_columns
from lpe_eval.report.frames import UNFIT, read_parquet, records
from lpe_eval.report.gate.joining import Judged
from lpe_eval.table import BlockSum


def judged_item_rows(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    worse_is: Mapping[str, int],
    source: str,
    further: Sequence[table.Column] = (),
) -> list[Judged]:
    """The judged rows of a run, in its order.

    Args:
        folder: of the run.
        rows: of its table.
        provenance: of the run.
        worse_is: the metrics that are judged.
        source: what the run is called.
        further: the columns that tell cells apart beside model and length.

    Raises:
        OutputError: a file is missing, or holds what no run would write.
    """
    try:
        sums = sums_of_items(folder, further)
        models = provenance.get("models", {})
        return [
            _judged(row, sums.get(_cell_of(row, further), []), models, worse_is[metric], source, further)
            for row in rows
            if (metric := row["metric"]) in worse_is
        ]
    except UNFIT as error:
        raise OutputError(f"the run {source} is damaged ({error}); measure anew") from error


def sums_of_items(folder: Path, further: Sequence[table.Column] = ()) -> dict[tuple, list[BlockSum]]:
    """The sums of all items, by model, length, metric and the values of further columns.

    Raises:
        OutputError: the file is missing or damaged.
    """
    found: dict[tuple, list[BlockSum]] = {}
    for each in records(read_parquet(folder / BY_ITEM, item_columns(further))):
        total = math.nan if each["total"] is None else float(each["total"])
        sums = BlockSum(str(each["item"]), str(each["digest"]), 0, total, int(each["count"]), 0, 0)
        found.setdefault(_cell_of(each, further), []).append(sums)
    return found


def part_of(row: Mapping[str, Any], further: Sequence[table.Column]) -> str:
    """What of a model at a length a row is of, in words; "" where the length says all."""
    named = [(column, row[column.name]) for column in further if row[column.name] is not None]
    return ", ".join(str(value) if column.kind == "string" else f"{column.name} {value}" for column, value in named)


def item_settings(row: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, str]:
    """In what ways a row may be measured otherwise than another one.

    Args:
        row: of a table of items.
        model: what the provenance says of its model.
    """
    return {
        "task": f"{row['task']}, version {row['task_version']}",
        "protocol": "",
        "tokenizer": str(model.get("tokenizer_fingerprint", ""))[:16],
        "dtype": str(row["dtype"]),
        "seed": str(row["seed"]),
    }


def _cell_of(row: Mapping[str, Any], further: Sequence[table.Column]) -> tuple:
    place = (str(row["model"]), int(row["length"]), str(row["metric"]))
    return (*place, *(row[column.name] for column in further))


def _judged(
    row: Mapping[str, Any],
    sums: Sequence[BlockSum],
    models: Mapping[str, Mapping[str, Any]],
    worse_is: int,
    source: str,
    further: Sequence[table.Column],
) -> Judged:
    if row["status"] == "ok":
        total, count = math.fsum(each.nll_nats for each in sums), sum(each.n_tokens for each in sums)
        if not count or not math.isclose(row["value"], total / count, rel_tol=1e-9, abs_tol=1e-9):
            found = f"{total / count:.6g}" if count else "nothing"
            place = f"{row['model']} at {row['length']}: {row['metric']}"
            raise ValueError(f"{place} is {row['value']} in the table, {found} by the sums of its items")
    known = models.get(row["model"], {})
    part = part_of(row, further)
    shown = {**row, "protocol": part, "stride": None}
    digest = known.get("digest")
    checkpoint = None if digest is None else str(digest)
    settings = item_settings(row, known)
    return Judged(shown, sums, settings, None, checkpoint, source, direction=float(worse_is), part=part)
