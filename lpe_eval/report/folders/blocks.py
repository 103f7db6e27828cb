"""The sums of `by_document.parquet`, by the cell that they are of."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lpe_eval.records import BlockColumns
from lpe_eval.table import BlockSum

_CELL = ["model", "protocol", "length", "stride"]
_COUNTS = ("n_tokens", "n_bytes", "n_nonfinite")


def blocks_of(by_document: pd.DataFrame) -> dict[tuple, list[BlockSum]]:
    """The sums of `by_document.parquet`, by the cell that they are of."""
    return {cell: list(found) for cell, found in columns_by_cell(by_document).items()}


def columns_by_cell(by_document: pd.DataFrame) -> dict[tuple, BlockColumns]:
    """The same, column by column.

    Of what may be millions of rows an object each would need several times the memory and the time.
    """
    found: dict[tuple, BlockColumns] = {}
    names, digests = (pd.factorize(by_document[name], use_na_sentinel=False) for name in ("document", "digest"))
    documents = names[0] * len(digests[1]) + digests[0]
    numbers = {name: by_document[name].to_numpy(np.int64) for name in ("block", *_COUNTS)}
    nats = by_document["nll_nats"].to_numpy(np.float64)
    of = by_document.groupby(_CELL, sort=False, dropna=False).ngroup().to_numpy()
    order = np.argsort(of, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(of[order])) + 1) if len(order) else ():
        model, protocol, length, stride = (by_document[name].iloc[rows[0]] for name in _CELL)
        used, text = np.unique(documents[rows], return_inverse=True)
        texts = (divmod(each, len(digests[1])) for each in used.tolist())
        found[str(model), str(protocol), int(length), None if pd.isna(stride) else int(stride)] = BlockColumns(
            tuple((str(names[1][name]), str(digests[1][digest])) for name, digest in texts),
            text, numbers["block"][rows], nats[rows], *(numbers[name][rows] for name in _COUNTS),
        )  # fmt: skip
    return found


def cell_of(row: Mapping[Any, Any]) -> tuple[str, str, int, int | None]:
    """The model, protocol, length and stride of a row."""
    stride = None if row["stride"] is None or row["stride"] is pd.NA else int(row["stride"])
    return str(row["model"]), str(row["protocol"]), int(row["length"]), stride
