"""Judged rows made directly, without the tables that a run would write: many can be compared in a moment."""

from collections.abc import Sequence

from lpe_eval.report.gate.joining import ASPECTS, Judged
from lpe_eval.table import BlockSum


def of_text(
    blocks: Sequence[BlockSum], model: str = "alibi", source: str = "baseline", checkpoint: str | None = None,
    status: str = "ok",
) -> Judged:  # fmt: skip
    """A row of losses."""
    row = {
        "model": model, "task": "python-stdlib", "protocol": "nonoverlap", "length": 512, "stride": 512,
        "metric": "nll_nats", "status": status, "note": "",
    }  # fmt: skip
    return Judged(row, blocks, dict.fromkeys(ASPECTS, ""), None, checkpoint, source)


def of_answers(right: Sequence[float], checkpoint: str | None = None) -> Judged:
    """A row of a problem whose strings have one answer token each."""
    row = {
        "model": "rope", "task": "parity_check", "protocol": "quick", "length": 100, "stride": None,
        "metric": "accuracy", "status": "ok", "note": "",
    }  # fmt: skip
    blocks = [BlockSum(f"{at:03}", f"{at:03}", 0, float(each), 1, 0, 0) for at, each in enumerate(right)]
    return Judged(row, blocks, dict.fromkeys(ASPECTS, ""), None, checkpoint, "baseline")
