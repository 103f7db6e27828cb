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
from lpe_eval.report.folders.items import BY_ITEM
from lpe_eval.report.frames import UNFIT, read_parquet
from lpe_eval.report.gate.joining import Judged
from lpe_eval.table import BlockSum


def judged_item_rows(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    worse_is: Mapping[str, int],
    source: str,
) -> list[Judged]:
    """The judged rows of a run, in its order.

    Args:
        folder: of the run.
        rows: of its table.
        provenance: of the run.
        worse_is: the metrics that are judged.
        source: what the run is called.

    Raises:
        OutputError: a file is missing, or holds what no run would write.
    """
    sums: dict[tuple[str, int, str], list[BlockSum]] = {}
    try:
        for each in read_parquet(folder / BY_ITEM, table.BY_ITEM).to_dict("records"):
            key = str(each["model"]), int(each["length"]), str(each["metric"])
            total, count = float(each["total"]), int(each["count"])
            sums.setdefault(key, []).append(BlockSum(str(each["item"]), str(each["digest"]), 0, total, count, 0, 0))
        models = provenance.get("models", {})
        return [
            _judged(row, sums.get((row["model"], row["length"], row["metric"]), []), models, worse_is[metric], source)
            for row in rows
            if (metric := row["metric"]) in worse_is
        ]
    except UNFIT as error:
        raise OutputError(f"the run {source} is damaged ({error}); measure anew") from error


def _judged(
    row: Mapping[str, Any],
    sums: Sequence[BlockSum],
    models: Mapping[str, Mapping[str, Any]],
    worse_is: int,
    source: str,
) -> Judged:
    if row["status"] == "ok":
        total, count = math.fsum(each.nll_nats for each in sums), sum(each.n_tokens for each in sums)
        if not count or not math.isclose(row["value"], total / count, rel_tol=1e-9, abs_tol=1e-9):
            found = f"{total / count:.6g}" if count else "nothing"
            place = f"{row['model']} at {row['length']}: {row['metric']}"
            raise ValueError(f"{place} is {row['value']} in the table, {found} by the sums of its items")
    settings = {
        "task": f"{row['task']}, version {row['task_version']}",
        "protocol": "",
        "tokenizer": str(models.get(row["model"], {}).get("tokenizer_fingerprint", ""))[:16],
        "dtype": str(row["dtype"]),
        "seed": str(row["seed"]),
    }
    shown = {**row, "protocol": "", "stride": None}
    digest = models.get(row["model"], {}).get("digest")
    checkpoint = None if digest is None else str(digest)
    return Judged(shown, sums, settings, None, checkpoint, source, direction=float(worse_is))
