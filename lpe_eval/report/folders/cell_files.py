"""What a file of a perplexity cell holds: its rows, what it cost, and its sums.

Sums stand column by column and each document's name once, which is a fifth of what a list for each block takes. Files
of earlier versions, with such lists, are read.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lpe_eval import table
from lpe_eval.records import BlockColumns, columns_of
from lpe_eval.report.frames import require_kinds
from lpe_eval.table import BlockSum, CellKey, Measurement, PositionSum

NUMBERS = ("block", "nll_nats", "n_tokens", "n_bytes", "n_nonfinite")
"""The columns of a block beside its document."""

Texts = tuple[tuple[str, str], ...]


class CellSums(NamedTuple):
    """The sums of one cell.

    Attributes:
        positions: the fields of `PositionSum`; whole numbers to 2 ** 53 are exact.
    """

    blocks: BlockColumns
    positions: Float[np.ndarray, "n 4"]


class StoredCell(NamedTuple):
    """A cell that is on disk.

    Attributes:
        sums: None where they are read when they are needed, as by a process that merges.
        tokens: bytes of the file with losses of single tokens; None where none are kept.
    """

    status: str
    rows: list[list]
    cost: list | None
    sums: CellSums | None
    tokens: int | None


def content_of(run: str, measurement: Measurement, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the file of a cell holds, beside its key.

    Args:
        run: id of the run.
        measurement: the cell.
        rows: of it, with every column of `table.ROWS`.
    """
    names = [column.name for column in table.ROWS]
    return {
        "status": rows[0][table.STATUS.name],
        "rows": [[row[name] for name in names] for row in rows],
        "cost": _cost(run, measurement),
        **_encoded(measurement.blocks, measurement.positions),
    }


def cell_in(content: Mapping[str, Any], known: dict[Texts, Texts]) -> tuple[CellKey, StoredCell]:
    """A cell from what its file holds.

    Args:
        content: of the file.
        known: documents of other cells, which are not held twice; grows.

    Raises:
        ValueError: it is damaged; so it is where one of `frames.UNFIT` is raised.
    """
    key, rows, width = _key(content["key"]), content["rows"], len(table.ROWS)
    if not rows or any(len(row) != width for row in rows):
        raise ValueError(f"a row must have {width} columns")
    # A cell that is kept must be one whose table can be read back.
    require_kinds(table.ROWS, rows)
    require_kinds(table.COST, [] if content["cost"] is None else [content["cost"]])
    tokens = content.get("tokens")
    if tokens is not None and type(tokens) is not int:
        raise ValueError("the bytes of a file are a whole number")
    return key, StoredCell(str(content["status"]), rows, content["cost"], sums_in(content, known), tokens)


def _encoded(blocks: Sequence[BlockSum], positions: Sequence[PositionSum]) -> dict[str, Any]:
    """What a cell file says of its sums."""
    found = columns_of(blocks)
    numbers = {name: getattr(found, name).tolist() for name in ("text", *NUMBERS)}
    return {
        "blocks": {"texts": [list(each) for each in found.texts], **numbers},
        "positions": [list(position) for position in positions],
    }


def sums_in(content: Mapping[str, Any], known: dict[Texts, Texts]) -> CellSums:
    """The sums of a cell from its file.

    Args:
        content: of the file.
        known: documents of other cells, which are not held twice; grows.

    Raises:
        ValueError: a value is not of its column's type, or of those in `frames.UNFIT`.
    """
    blocks, positions = content["blocks"], content["positions"]
    kinds = {column.name: column.kind for column in (*table.BY_DOCUMENT, *table.BY_POSITION)}
    named = blocks if isinstance(blocks, list) else blocks["texts"]
    if any([type(part) for part in each[:2]] != [str, str] for each in named):
        raise ValueError("a document has a name and a digest")
    if isinstance(blocks, list):
        # The form of earlier versions.
        found = columns_of(BlockSum(*block) for block in blocks)
    else:
        texts = tuple((name, digest) for name, digest in blocks["texts"])
        text = _column(blocks["text"], "Int64")
        columns = [_column(blocks[name], kinds[name]) for name in NUMBERS]
        if len(set(map(len, (text, *columns)))) > 1 or (len(text) and not 0 <= text.min() <= text.max() < len(texts)):
            raise ValueError("columns of blocks have one length, and name documents that are there")
        found = BlockColumns(known.setdefault(texts, texts), text, *columns)
    each = [_column([row[at] for row in positions], kinds[name]) for at, name in enumerate(PositionSum._fields)]
    return CellSums(found, np.stack(each, axis=1, dtype=np.float64))


def _column(values: Sequence[Any], kind: str) -> Float[np.ndarray, " n"] | Int[np.ndarray, " n"]:
    wanted = np.int64 if kind == "Int64" else np.float64
    found = np.array(values, dtype=None if values else wanted)
    if found.dtype.kind not in ("i" if kind == "Int64" else "if") or found.ndim != 1:
        raise ValueError("a sum is a number, and a count a whole one")
    return found.astype(wanted, copy=False)


def _cost(run: str, measurement: Measurement) -> list | None:
    cost, key = measurement.cost, measurement.key
    if cost is None:
        return None
    speed = cost.n_forward_tokens / cost.seconds if cost.seconds > 0 else None
    return [
        *(run, key.model, key.protocol, key.length, float(cost.seconds), cost.n_forward_tokens, cost.n_windows),
        *(cost.n_shared_windows, speed, float(cost.peak_memory_mib), cost.batch_tokens),
    ]


def _key(parts: Sequence[Any]) -> CellKey:
    kinds = [list(map(type, parts)) == [str, str, int, each] for each in (int, type(None))]
    if not any(kinds):
        raise ValueError("a key is a model, a protocol, a length and perhaps a stride")
    return CellKey(*parts)
