"""What measuring and training hand to the report, beside the records of `table.py`.

An item is one thing that was asked of a model: a document, a prompt, a string. Its total is a metric summed over it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lpe_eval.table import SCHEMA, CellKey, Facts


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
    """What a cell is: one model at one length."""

    model: str
    length: int


@dataclass(frozen=True)
class ItemCell:
    """Everything known of one finished cell.

    A cell without a value (status `n/a` or `failed`) has no items and a note.

    Attributes:
        key: which cell.
        facts: what every row of the model repeats.
        items: by metric.
        unit: of the values.
        attention: the path that computed it.
    """

    key: ItemKey
    facts: Facts
    items: Mapping[str, Sequence[Item]]
    unit: str = ""
    attention: str = ""
    status: str = "ok"
    note: str = ""


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
