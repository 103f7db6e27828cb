"""Runs made of plain sums, for the tests of the gate; read as `read_run` would read them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lpe_eval import table
from lpe_eval.report.folders.ppl import Run
from lpe_eval.report.frames import typed_frame
from lpe_eval.report.numbers.statistics import summarise
from lpe_eval.table import BlockSum, CellKey, Facts, Measurement

FACTS: dict[str, Any] = {
    "encoding": "alibi", "train_length": 512, "task": "python-stdlib", "task_version": 1, "corpus": "python-stdlib",
    "split": "test", "seed": 0, "dtype": "float32", "device": "cpu",
}  # fmt: skip
KEY = CellKey("alibi", "nonoverlap", 512, 512)


def block(
    document: int, number: int, mean: float, tokens: int = 1024, nonfinite: int = 0, edition: int = 0
) -> BlockSum:
    name = f"doc-{document}.py"
    return BlockSum(name, f"{name}, edition {edition}", number, mean * tokens, tokens, 4 * tokens, nonfinite)


def text(documents: int = 12, blocks: int = 3, mean: float = 1.1, seed: int = 0) -> list[BlockSum]:
    """Documents of unequal difficulty, the same for the same seed."""
    draw = np.random.default_rng(seed)
    return [block(d, b, mean * float(draw.uniform(0.7, 1.3))) for d in range(documents) for b in range(blocks)]


def worse_by(blocks: Sequence[BlockSum], share: float) -> list[BlockSum]:
    return [each._replace(nll_nats=each.nll_nats * (1 + share)) for each in blocks]


def run_of(
    cells: Mapping[CellKey, Sequence[BlockSum]],
    statuses: Mapping[CellKey, str] | None = None,
    digests: Mapping[str, str] | None = None,
    tokenizer: str = "bytes-fingerprint",
    ids: str | None = None,
    spec: Mapping[str, Any] | None = None,
    **facts: Any,
) -> Run:
    """A run with these cells; `facts` are those of its rows, `statuses` of cells without a value."""
    said = dict(statuses or {})
    rows: list[list[Any]] = []
    sums: list[list[Any]] = []
    for key, blocks in cells.items():
        status = said.get(key, "error" if any(each.n_nonfinite for each in blocks) else "ok")
        kept = tuple(blocks) if status in ("ok", "error") else ()
        note = "" if status == "ok" else f"the reason for {status}"
        measured = Measurement(key, Facts(**{**FACTS, **facts}), "dense", kept, (), None, status, note)
        rows += [[row[column.name] for column in table.ROWS] for row in summarise(measured, "run", 0, replicates=2)]
        sums += [["run", *key, *each] for each in kept]
    models = {key.model: (digests or {}).get(key.model, f"digest of {key.model}") for key in cells}
    known = {"tokenizer_fingerprint": tokenizer, **({} if ids is None else {"ids_fingerprint": ids})}
    described = {model: {"digest": digest, **known} for model, digest in models.items()}
    plain = {"kind": "ppl", "bos": "auto", "tail": "score", "pack": False, "lengths": [512, 8192]}
    return Run(
        rows=typed_frame(table.ROWS, rows),
        cost=typed_frame(table.COST, []),
        by_document=typed_frame(table.BY_DOCUMENT, sums),
        by_position=typed_frame(table.BY_POSITION, []),
        spec={**plain, **(spec or {})},
        provenance={"run": "run", "models": described},
    )


def loss(blocks: Sequence[BlockSum]) -> float:
    return math.fsum(each.nll_nats for each in blocks) / sum(each.n_tokens for each in blocks)
