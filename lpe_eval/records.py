"""What measuring and training hand to the report, beside the records of `table.py`.

An item is one thing that was asked of a model: a document, a prompt, a string. Its total is a metric summed over it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, overload

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from lpe_eval.table import SCHEMA, BlockSum, CellKey, Facts


@dataclass(frozen=True, eq=False)
class BlockColumns(Sequence[BlockSum]):
    """Sums over blocks of text, column by column, in a fifth of the memory of as many `BlockSum`.

    Attributes:
        texts: name and digest of each document, each pair once.
        text: place of each block's document among them.
    """

    texts: tuple[tuple[str, str], ...]
    text: Int[np.ndarray, " n"]
    block: Int[np.ndarray, " n"]
    nll_nats: Float[np.ndarray, " n"]
    n_tokens: Int[np.ndarray, " n"]
    n_bytes: Int[np.ndarray, " n"]
    n_nonfinite: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.block)

    @overload
    def __getitem__(self, place: int) -> BlockSum: ...
    @overload
    def __getitem__(self, place: slice) -> list[BlockSum]: ...
    def __getitem__(self, place: int | slice) -> BlockSum | list[BlockSum]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        document, digest = self.texts[self.text[place]]
        n_tokens, n_bytes, n_nonfinite = (int(each[place]) for each in (self.n_tokens, self.n_bytes, self.n_nonfinite))
        block, nats = int(self.block[place]), float(self.nll_nats[place])
        return BlockSum(document, digest, block, nats, n_tokens, n_bytes, n_nonfinite)

    def __iter__(self) -> Iterator[BlockSum]:
        columns = self.block, self.nll_nats, self.n_tokens, self.n_bytes, self.n_nonfinite
        for text, *sums in zip(self.text.tolist(), *(column.tolist() for column in columns), strict=True):
            yield BlockSum(*self.texts[text], *sums)


def columns_of(blocks: Iterable[BlockSum]) -> BlockColumns:
    """Sums over blocks of text, column by column.

    Raises:
        TypeError: what counts something is no whole number.
    """
    if isinstance(blocks, BlockColumns):
        return blocks
    names, digests, *rest = zip(*blocks, strict=True) if (blocks := list(blocks)) else [()] * len(BlockSum._fields)
    places: dict[tuple[str, str], int] = {}
    text = [places.setdefault(pair, len(places)) for pair in zip(names, digests, strict=True)]
    number, nats, *counts = rest
    whole = [_whole_numbers(column) for column in (number, *counts)]
    return BlockColumns(tuple(places), _whole_numbers(text), whole[0], np.array(nats, dtype=np.float64), *whole[1:])


def _whole_numbers(column: Sequence[int]) -> Int[np.ndarray, " n"]:
    found = np.array(column, dtype=None if column else np.int64)
    if found.dtype.kind != "i":
        raise TypeError("what counts something is a whole number")
    return found.astype(np.int64, copy=False)


class Item(NamedTuple):
    """What one item contributes to one metric.

    Attributes:
        item: its name.
        digest: hash of its content, so that two runs can be paired.
        total: the metric summed over it.
        n: of how many summands.
    """

    item: str
    digest: str
    total: float
    n: int


class ItemKey(NamedTuple):
    """What a cell is: one model at one length, and what else a kind of run tells cells apart by.

    Attributes:
        further: the values of the kind's own key columns, in their order; empty where it has none.
    """

    model: str
    length: int
    further: tuple[str | int | None, ...] = ()

    @property
    def place(self) -> "Cell":
        """The cell among those of its model."""
        return (self.length, *self.further) if self.further else self.length


Cell = int | tuple[str | int | None, ...]
"""A cell of a model: its length, or a tuple of the length and what is further."""


def key_of(model: str, cell: Cell) -> ItemKey:
    """The key of a cell of a model."""
    if isinstance(cell, int):
        return ItemKey(model, cell)
    length, *further = cell
    assert isinstance(length, int), "a cell begins with its length"
    return ItemKey(model, length, tuple(further))


@dataclass(frozen=True)
class ItemCell:
    """Everything known of one finished cell.

    A cell without a value (status `n/a` or `failed`) has no items and a note.

    Attributes:
        key: which cell.
        facts: what every row of the model repeats.
        items: by metric.
        unit: of the values; by metric where they have several.
        attention: the path that computed it.
        chance: by metric, the value of a guess, for a kind whose table has that column.
    """

    key: ItemKey
    facts: Facts
    items: Mapping[str, Sequence[Item]]
    unit: str | Mapping[str, str] = ""
    attention: str = ""
    status: str = "ok"
    note: str = ""
    chance: Mapping[str, float] = field(default_factory=dict)


class TokenPart(NamedTuple):
    """Scored targets of one window, in the order of its text; the fields are columns of `text_tables.TOKENS`.

    Attributes:
        byte_from: bytes of the document before each target.
        loss: nats, as they were computed: in float32.
    """

    document: str
    digest: str
    position: Int[np.ndarray, " n"]
    token: Int[np.ndarray, " n"]
    context: Int[np.ndarray, " n"]
    byte_from: Int[np.ndarray, " n"]
    n_bytes: Int[np.ndarray, " n"]
    loss: Float[np.ndarray, " n"]


KeepTokens = Callable[[CellKey, Iterable[TokenPart]], None]
"""Is handed the targets of each cell with a value, before the cell itself."""


class LogRow(NamedTuple):
    """A few training steps: means over them, and the validation loss after the last."""

    step: int
    train_nll_nats: float
    gradient_norm: float
    learning_rate: float
    valid_nll_nats: float | None
    seconds: float


class Point(NamedTuple):
    """Values at one place of an axis, for a curve.

    Attributes:
        axis: `length`, or `step` of a training.
        at: where on it.
        values: by the names of their curves.
    """

    axis: str
    at: int
    values: Mapping[str, float]


class CheRow(NamedTuple):
    """One row of `che.csv`: the fields are the columns of `CHE`, in their order.

    What is unknown is None; a cell without a value (status `n/a` or `failed`) has the value None and a note.
    """

    run: str
    task: str
    task_version: int
    level: str
    model: str
    encoding: str
    run_index: int
    seed: int
    learning_rate: float | None
    steps: int | None
    protocol: str
    length: int
    metric: str
    value: float | None
    stderr: float | None
    n_samples: int | None
    n_tokens: int | None
    chance: float | None
    ceiling: float | None
    train_max_length: int | None
    in_range: int | None
    status: str = "ok"
    note: str = ""
    device: str = ""
    dtype: str = "float32"
    attention: str = ""
    schema: int = SCHEMA


class StringCounts(NamedTuple):
    """How each string of one test set was answered, in its order."""

    length: int
    test_set: str
    n_correct: list[int]
    n_tokens: list[int]


Span = tuple[int, int]
"""The first and the last distance of a range."""


class OverTexts(NamedTuple):
    """A mean over some distances, of each text: n texts, h heads, s ranges of distances."""

    spans: Sequence[Span]
    added: NDArray[np.float64]
    """[n, h, s]."""
    static: NDArray[np.float64] | None
    """[h, s], the mean over texts; None where there is no static bias."""
    of_mean_key: NDArray[np.float64] | None
    """[h, s] likewise."""


class LayerBias(NamedTuple):
    """What position adds to the logits of one query in one layer, over several texts: h heads, k keys.

    Attributes:
        layer: its number, from 0.
        distance: [k], tokens between the query and each key, rising.
        content: [h, k], the mean over texts; see `LastQuery` of `model/language_model.py` for all of these.
        content_size: root of the mean square of content over texts, heads and keys.
        added: [h, k], likewise.
        added_stderr: [h, k], standard error of that mean; NaN where there is one text.
        static: [h, k]; None where there is none.
        of_mean_key: [h, k]; None where there is none.
        decay: [k]; None where there is none.
        fixed: whether what is added is the static bias whatever the text.
        octaves: means over distances 0, 1, 2-3, 4-7 and so on.
        fine: the same over narrower ranges, for figures.
        change: [n, h], of each text the mean over the far half of the keys less that over distances 1 to 7.
    """

    layer: int
    distance: NDArray[np.int64]
    content: NDArray[np.float64]
    content_size: float
    added: NDArray[np.float64]
    added_stderr: NDArray[np.float64]
    static: NDArray[np.float64] | None
    of_mean_key: NDArray[np.float64] | None
    decay: NDArray[np.float64] | None
    fixed: bool
    octaves: OverTexts
    fine: OverTexts
    change: NDArray[np.float64]
