"""The sums of `by_document.parquet`, by the cell that they are of."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lpe_eval.table import BlockSum

_CELL = ("model", "protocol", "length", "stride")


def blocks_of(by_document: pd.DataFrame) -> dict[tuple, list[BlockSum]]:
    """The sums of `by_document.parquet`, by the cell that they are of.

    Column by column: a mapping for each row would need several times the memory and the time, of what may be millions.
    """
    found: dict[tuple, list[BlockSum]] = {}
    cells, sums = ([by_document[name].tolist() for name in names] for names in (_CELL, BlockSum._fields))
    for (model, protocol, length, stride), values in zip(
        zip(*cells, strict=True), zip(*sums, strict=True), strict=True
    ):
        key = str(model), str(protocol), int(length), None if stride is None or stride is pd.NA else int(stride)
        document, digest, block, nats, *counts = values
        found.setdefault(key, []).append(
            BlockSum(str(document), str(digest), int(block), float(nats), *(int(each) for each in counts))
        )
    return found


def cell_of(row: Mapping[Any, Any]) -> tuple[str, str, int, int | None]:
    """The model, protocol, length and stride of a row."""
    stride = None if row["stride"] is None or row["stride"] is pd.NA else int(row["stride"])
    return str(row["model"]), str(row["protocol"]), int(row["length"]), stride
