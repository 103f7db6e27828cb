"""The rows of a run of recall as the gate reads them: the gain at each length, and the effective length of each test.

Choices:
    * A gain may be nothing, or below, so a difference is no part of it. It is a part of what the baseline gains at its
      shortest length, and of one nat where that is less: a model that recalls little has little to lose.
    * Of a needle the row of all depths is judged; those of single depths are parts of it and have few prompts each.
    * Two effective lengths are those of two models on the same items, by the same rule, over the same lengths; see
      `effective.py`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpe_eval.errors import OutputError
from lpe_eval.report.folders.recall import RECALL_KEYS
from lpe_eval.report.folders.recall_scores import Recalled, recalled
from lpe_eval.report.frames import UNFIT
from lpe_eval.report.gate.item_rows import item_settings, judged_item_rows
from lpe_eval.report.gate.joining import Judged
from lpe_eval.report.gate.rules import GAIN, RECALLED_LENGTH
from lpe_eval.table import BlockSum

_LEAST_SCALE = 1.0
"""Nats."""


def judged_recall_rows(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    spec: Mapping[str, Any],
    source: str,
) -> list[Judged]:
    """The judged rows of a run, in its order.

    Args:
        folder: of the run.
        rows: of its table, missing values None.
        provenance: of the run.
        spec: as stored.
        source: what the run is called.

    Raises:
        OutputError: a file is missing, or holds what no run would write.
    """
    whole = [row for row in rows if row["depth"] is None]
    found = judged_item_rows(folder, whole, provenance, {GAIN: -1}, source, RECALL_KEYS)
    try:
        models = provenance.get("models", {})
        lengths = [_length(each, models, source) for each in recalled(folder, rows, spec)]
        return [*_scaled(found, provenance), *lengths]
    except UNFIT as error:
        raise OutputError(f"the run {source} is damaged ({error}); measure anew") from error


def _scaled(found: Sequence[Judged], provenance: Mapping[str, Any]) -> list[Judged]:
    """The rows of gains, each with what its differences are a part of."""
    nearest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for judged in found:
        row = judged.row
        if row["status"] == "ok":
            nearest[row["model"], row["task"]] = min(
                row, nearest.get((row["model"], row["task"]), row), key=lambda each: each["length"]
            )
    scaled = []
    for judged in found:
        near = nearest.get((judged.row["model"], judged.row["task"]))
        scale = max(_LEAST_SCALE, near["value"] if near else 0.0)
        scaled.append(judged._replace(scale=scale, corpus=provenance.get("corpus", {})))
    return scaled


def _length(each: Recalled, models: Mapping[str, Mapping[str, Any]], source: str) -> Judged:
    model = models.get(each.first["model"], {})
    lengths = each.scores.lengths
    blocks = [
        BlockSum(name, each.digests[at][place], place, each.scores.totals[at, place], int(count), 0, 0)
        for at, name in enumerate(each.names)
        for place, count in enumerate(each.scores.counts[at])
        if count
    ]
    row = {
        **each.first, "metric": RECALLED_LENGTH, "protocol": each.first["task"], "stride": None,
        "length": lengths[-1], "value": float(each.effective.value), "status": each.status, "note": each.note,
        "lengths": lengths, "rule": each.rule,
    }  # fmt: skip
    settings = item_settings(row, model) | {"protocol": f"{each.rule}, of {', '.join(map(str, lengths))}"}
    digest = None if model.get("digest") is None else str(model["digest"])
    return Judged(row, blocks, settings, None, digest, source, direction=-1.0, part=each.first["task"])
