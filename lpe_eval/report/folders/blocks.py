"""The sums of `by_document.parquet`, by the cell that they are of."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lpe_eval.table import BlockSum


def blocks_of(by_document: pd.DataFrame) -> dict[tuple, list[BlockSum]]:
    """The sums of `by_document.parquet`, by the cell that they are of."""
    found: dict[tuple, list[BlockSum]] = {}
    for record in by_document.to_dict("records"):
        found.setdefault(cell_of(record), []).append(
            BlockSum(
                str(record["document"]),
                str(record["digest"]),
                int(record["block"]),
                float(record["nll_nats"]),
                int(record["n_tokens"]),
                int(record["n_bytes"]),
                int(record["n_nonfinite"]),
            )
        )
    return found


def cell_of(row: Mapping[Any, Any]) -> tuple[str, str, int, int | None]:
    """The model, protocol, length and stride of a row."""
    stride = None if row["stride"] is None or row["stride"] is pd.NA else int(row["stride"])
    return str(row["model"]), str(row["protocol"]), int(row["length"]), stride
