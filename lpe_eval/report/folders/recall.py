"""The tables of a folder of recall: what is in them beyond those of any kind that measures items.

recall.csv              one number a row; an answer stands at a distance, a needle at a depth
effective_length.csv    the longest length, or distance, up to which each model recalls
"""

from lpe_eval.table import (
    CHANCE,
    CI_HIGH,
    CI_LOW,
    CI_METHOD,
    DEPTH,
    DISTANCE,
    ITEM_ROWS,
    LONGEST,
    METRIC,
    MODEL,
    N_ITEMS,
    NOTE,
    RULE,
    RUN,
    SCHEMA_COLUMN,
    STATUS,
    TASK,
    TASK_VERSION,
    UNIT,
    VALUE,
    Column,
)

EFFECTIVE_LENGTH = "effective_length.csv"

RECALL_KEYS: tuple[Column, ...] = (TASK, DISTANCE, DEPTH)
"""What tells cells apart beside model and length. Distance and depth are missing where answers have several."""

_PLACE, _UNIT = ITEM_ROWS.index(METRIC), ITEM_ROWS.index(UNIT)
RECALL: tuple[Column, ...] = (
    *ITEM_ROWS[:_PLACE],
    DISTANCE,
    DEPTH,
    *ITEM_ROWS[_PLACE:_UNIT],
    CHANCE,
    *ITEM_ROWS[_UNIT:],
)
"""`recall.csv`."""


EFFECTIVE: tuple[Column, ...] = (
    RUN, MODEL, TASK, TASK_VERSION, METRIC, VALUE, CI_LOW, CI_HIGH, CI_METHOD, UNIT, N_ITEMS, RULE, LONGEST, STATUS,
    NOTE, SCHEMA_COLUMN,
)  # fmt: skip
"""`effective_length.csv`."""

RECALL_UNITS: dict[str, str] = {
    "copy_nats": "nats/token", "control_nats": "nats/token", "gain_nats": "nats/token", "value_nats": "nats",
    "choice_nats": "nats",
}  # fmt: skip
"""Of each metric that has one; the others are shares and ranks."""
