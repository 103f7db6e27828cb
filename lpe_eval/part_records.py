"""What parts of a long length, and the processes that share a run, tell of their work, beside `records.py`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lpe_eval.records import TokenPart
from lpe_eval.table import BlockSum, CellKey, Facts, PositionSum

PlacedTokens = tuple[int, int, TokenPart]
"""The place of a window in its cell, the number of its document, and its targets."""


class PartName(NamedTuple):
    """A part of the windows of one model at one length: the durable piece where a length is long.

    Attributes:
        number: from 0, in the order of the plan.
        total: how many parts the length has.
        cut: how the length was cut: the token budget of a batch and the work of a part.
    """

    model: str
    length: int
    number: int
    total: int
    cut: str


class NumberedBlocks(NamedTuple):
    """Sums over blocks of text, column by column: a value of each is one block.

    Attributes:
        documents: number, name and digest of each document.
        document: number of each block's document.
    """

    documents: tuple[tuple[int, str, str], ...]
    document: tuple[int, ...]
    block: tuple[int, ...]
    nll_nats: tuple[float, ...]
    n_tokens: tuple[int, ...]
    n_bytes: tuple[int, ...]
    n_nonfinite: tuple[int, ...]


def numbered(blocks: Iterable[tuple[int, BlockSum]]) -> NumberedBlocks:
    """Blocks, each with the number of its document, column by column."""
    documents: dict[int, tuple[int, str, str]] = {}
    rows = []
    for document, block in blocks:
        documents.setdefault(document, (document, block.document, block.digest))
        rows.append((document, *block[2:]))
    columns = zip(*rows, strict=True) if rows else [()] * (len(NumberedBlocks._fields) - 1)
    return NumberedBlocks(tuple(documents.values()), *columns)


class CellPart(NamedTuple):
    """What a part says of one cell: sums over the windows of the cell that stand in the part.

    Attributes:
        blocks: in the order of documents and of their text.
        n_windows: of them.
        n_shared: those whose losses serve another protocol, too.
        n_forward_tokens: tokens fed, shares of those that protocols have in common.
    """

    key: CellKey
    blocks: NumberedBlocks
    positions: tuple[PositionSum, ...]
    seconds: float
    n_forward_tokens: float
    n_windows: int
    n_shared: int


@dataclass(frozen=True)
class PartSums:
    """Everything known of one finished part, of all cells that share its windows.

    A part without a value has the status `n/a` or `failed`, a note and no cells.

    Attributes:
        leak: what is said of a model that may see the future; empty of others.
        note: why there is no value, or which attention paths fell back.
    """

    name: PartName
    facts: Facts
    attention: str
    status: str
    note: str
    leak: str
    peak_memory_mib: float
    batch_tokens: int
    cells: tuple[CellPart, ...]


class Piece(NamedTuple):
    """What one process measures in one go.

    Attributes:
        model: its name, by which pieces follow one another.
        length: of its windows; 0 where the kind of run has no such thing.
        cells: the keys of the cells that come of it.
        targets: how many targets each of them scores, where that is known beforehand.
        parts: how many parts it has.
        cut: how it was cut into parts.
        work: of each part.
    """

    model: str
    length: int
    cells: Sequence[Sequence[Any]]
    targets: Sequence[int | None]
    parts: int
    cut: str
    work: Sequence[int]

    def planned(self) -> list[tuple[Sequence[Any], int | None]]:
        """Each cell with how many targets it scores."""
        return list(zip(self.cells, self.targets, strict=True))
