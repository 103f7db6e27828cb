"""Every column of every result, declared once, and the measurement that the rows are made from.

A row of `rows.csv` is one number; length is a column. Two columns with the same name mean the
same thing in every file. Nothing here knows torch or pandas.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

SCHEMA = 1
"""Grows by one whenever a column changes its meaning."""


class Column(NamedTuple):
    """One column: its name, its pandas type, its unit and what it means.

    Attributes:
        key: part of what identifies a row, so two rows with equal keys are the same measurement.
    """

    name: str
    kind: str
    unit: str
    meaning: str
    key: bool = False


RUN = Column("run", "string", "", "id of the run: a hash of its resolved spec")
MODEL = Column("model", "string", "", "display name of the model", key=True)
ENCODING = Column("encoding", "string", "", "positional encoding, wrappers written as calls")
TRAIN_LENGTH = Column("train_length", "Int64", "tokens", "window length the model was trained on")
TASK = Column("task", "string", "", "name of the task file, or `custom`", key=True)
TASK_VERSION = Column("task_version", "Int64", "", "version of the task file", key=True)
CORPUS = Column("corpus", "string", "", "where the text comes from", key=True)
SPLIT = Column("split", "string", "", "train, valid or test", key=True)
PROTOCOL = Column(
    "protocol", "string", "", "how the text is cut into windows and which targets count; of a problem: how a model is "
    "trained and tested on it", key=True
)  # fmt: skip
LENGTH = Column(
    "length", "Int64", "tokens", "tokens fed to the model in one window; of a problem: tokens of its input", key=True
)
STRIDE = Column("stride", "Int64", "tokens", "how far a window starts after the one before it", key=True)
METRIC = Column("metric", "string", "", "what the value is", key=True)
VALUE = Column("value", "float64", "see unit", "the number")
STDERR = Column("stderr", "float64", "see unit", "standard error of the value")
CI_LOW = Column("ci_low", "float64", "see unit", "lower end of the 95 % interval")
CI_HIGH = Column("ci_high", "float64", "see unit", "upper end of the 95 % interval")
CI_METHOD = Column("ci_method", "string", "", "how stderr and the interval were made")
UNIT = Column("unit", "string", "", "unit of the value")
N_TOKENS = Column("n_tokens", "Int64", "tokens", "scored targets")
N_NONFINITE = Column(
    "n_nonfinite", "Int64", "tokens", "scored targets whose loss is not finite; counted, never dropped"
)
N_DOCUMENTS = Column("n_documents", "Int64", "documents", "documents with at least one scored target")
SEED = Column("seed", "Int64", "", "seed of the run: document choice, sampled positions, initial weights", key=True)
DTYPE = Column("dtype", "string", "", "compute dtype of the model", key=True)
DEVICE = Column("device", "string", "", "device that computed it")
ATTENTION = Column("attention", "string", "", "attention path that computed it")
STATUS = Column(
    "status", "string", "", "ok; n/a: the model has no value here; error: some targets are not finite; failed"
)
NOTE = Column("note", "string", "", "the reason for a status that is not ok")
SCHEMA_COLUMN = Column("schema", "Int64", "", "version of this table")

ROWS: tuple[Column, ...] = (
    RUN, MODEL, ENCODING, TRAIN_LENGTH, TASK, TASK_VERSION, CORPUS, SPLIT, PROTOCOL, LENGTH, STRIDE,
    METRIC, VALUE, STDERR, CI_LOW, CI_HIGH, CI_METHOD, UNIT, N_TOKENS, N_NONFINITE, N_DOCUMENTS,
    SEED, DTYPE, DEVICE, ATTENTION, STATUS, NOTE, SCHEMA_COLUMN,
)  # fmt: skip
"""`rows.csv`: what was measured; the same inputs give the same bytes."""

SECONDS = Column("seconds", "float64", "s", "wall time spent in the model for this cell; of a training, up to the step")
N_FORWARD = Column("n_forward_tokens", "Int64", "tokens", "tokens pushed through the model for this cell")
N_WINDOWS = Column("n_windows", "Int64", "windows", "windows of this cell")
N_SHARED = Column("n_shared_windows", "Int64", "windows", "windows whose losses also served another protocol")
THROUGHPUT = Column("tokens_per_second", "float64", "tokens/s", "n_forward_tokens / seconds")
PEAK_MEMORY = Column(
    "peak_memory_mib",
    "float64",
    "MiB",
    "highest memory of the process, or of the CUDA device, while the cell was measured",
)
BATCH_TOKENS = Column("batch_tokens", "Int64", "tokens", "token budget of a batch after any memory back-off")

COST: tuple[Column, ...] = (
    RUN, MODEL, PROTOCOL, LENGTH, SECONDS, N_FORWARD, N_WINDOWS, N_SHARED, THROUGHPUT, PEAK_MEMORY, BATCH_TOKENS,
)  # fmt: skip
"""`cost.csv`: what a cell cost; kept apart because it differs from run to run."""

DOCUMENT = Column("document", "string", "", "name of the document")
DIGEST = Column("digest", "string", "", "sha256 of the document's text, so that two runs can be paired")
BLOCK = Column("block", "Int64", "", "number of the 1024-target block inside the document")
NLL_SUM = Column("nll_nats", "float64", "nats", "summed negative log-likelihood")
N_BYTES = Column("n_bytes", "Int64", "bytes", "UTF-8 bytes of the scored span")

BY_DOCUMENT: tuple[Column, ...] = (
    RUN, MODEL, PROTOCOL, LENGTH, STRIDE, DOCUMENT, DIGEST, BLOCK, NLL_SUM, N_TOKENS, N_BYTES, N_NONFINITE,
)  # fmt: skip
"""`by_document.parquet`: sums for each block of each document, the units of resampling and pairing."""

CONTEXT_FROM = Column(
    "context_from", "Int64", "tokens", "first context size of the bucket (tokens visible to the target)"
)
CONTEXT_TO = Column("context_to", "Int64", "tokens", "last context size of the bucket")

BY_POSITION: tuple[Column, ...] = (
    RUN, MODEL, PROTOCOL, LENGTH, STRIDE, CONTEXT_FROM, CONTEXT_TO, NLL_SUM, N_TOKENS,
)  # fmt: skip
"""`by_position.parquet`: sums by how much context a target had."""

MODE = Column("mode", "string", "", "forward: scoring without gradients; train: a loss and its gradient", key=True)
BATCH_WINDOWS = Column("batch_windows", "Int64", "windows", "windows in one pass", key=True)
ROUNDS = Column("rounds", "Int64", "", "rounds that the medians are over")
MEDIAN_SECONDS = Column("median_seconds", "float64", "s", "wall time of one pass, median over the rounds")
FASTEST_SECONDS = Column("fastest_seconds", "float64", "s", "wall time of the fastest round")
SLOWEST_SECONDS = Column("slowest_seconds", "float64", "s", "wall time of the slowest round")
MEDIAN_THROUGHPUT = Column("median_tokens_per_second", "float64", "tokens/s", "batch_windows * length / median_seconds")
TIME_RATIO = Column(
    "times_plain", "float64", "", "seconds over those of plain causal attention in the same round, median over rounds"
)
PASS_MEMORY = Column("pass_memory_mib", "float64", "MiB", "highest memory of one pass beyond that of holding the model")
MEMORY_RATIO = Column("memory_times_plain", "float64", "", "pass_memory_mib over that of plain causal attention")
WIDTH = Column("width", "Int64", "", "width of the model", key=True)
LAYERS = Column("layers", "Int64", "", "layers of the model", key=True)
HEADS = Column("heads", "Int64", "", "attention heads of each layer", key=True)

SPEED_ENCODING = ENCODING._replace(key=True)

SPEED: tuple[Column, ...] = (
    RUN, SPEED_ENCODING, MODE, LENGTH, BATCH_WINDOWS, ROUNDS, MEDIAN_SECONDS, FASTEST_SECONDS, SLOWEST_SECONDS,
    MEDIAN_THROUGHPUT, TIME_RATIO, PASS_MEMORY, MEMORY_RATIO, WIDTH, LAYERS, HEADS, DTYPE, DEVICE, ATTENTION,
    STATUS, NOTE, SCHEMA_COLUMN,
)  # fmt: skip
"""`speed.csv`: what each encoding costs at each length; `plain` is the unit."""

LEVEL = Column("level", "string", "", "level of the problem in the Chomsky hierarchy: regular, dcf or cs")
RUN_INDEX = Column("run_index", "Int64", "", "which of the runs that were trained together, from 0", key=True)
LEARNING_RATE = Column(
    "learning_rate", "float64", "", "learning rate the run was trained with; in a log, at the step", key=True
)
STEPS = Column("steps", "Int64", "steps", "optimiser steps the run was trained for; fewer where it stopped early")
N_SAMPLES = Column("n_samples", "Int64", "strings", "strings in the test set of this length")
CHANCE = Column("chance", "float64", "see unit", "the metric's value for a uniform guess")
CEILING = Column("ceiling", "float64", "see unit", "the metric's highest value without any skill, at this length")
TRAIN_MAX_LENGTH = Column("train_max_length", "Int64", "tokens", "longest input seen in training")
IN_RANGE = Column("in_range", "Int64", "", "1 where the length is at most train_max_length, else 0")

CHE: tuple[Column, ...] = (
    RUN, TASK, TASK_VERSION, LEVEL, MODEL, ENCODING._replace(key=True), RUN_INDEX, SEED, LEARNING_RATE, STEPS, PROTOCOL,
    LENGTH, METRIC, VALUE, STDERR, N_SAMPLES, N_TOKENS, CHANCE, CEILING, TRAIN_MAX_LENGTH, IN_RANGE, STATUS, NOTE,
    DEVICE, DTYPE, ATTENTION, SCHEMA_COLUMN,
)  # fmt: skip
"""`che.csv`: scores of the algorithmic problems; every value is a share, from 0 to 1."""

STRING = Column("string", "Int64", "", "place of the string in its test set, from 0", key=True)
TEST_SET = Column("test_set", "string", "", "hash of all strings of the test set with their answers")
N_CORRECT = Column("n_correct", "Int64", "tokens", "right answer tokens among those that count")

BY_STRING: tuple[Column, ...] = (
    RUN, MODEL, TASK, RUN_INDEX, LENGTH, TEST_SET, STRING, N_CORRECT, N_TOKENS,
)  # fmt: skip
"""`by_string.parquet`: how each string was answered by the run that was chosen; what pairs two folders."""

ITEM = Column("item", "string", "", "one thing that was asked of a model: a document, a prompt, a string", key=True)
TOTAL = Column("total", "float64", "see unit", "the metric summed over the item")
COUNT = Column("count", "Int64", "", "how many summands the total has")
N_ITEMS = Column("n_items", "Int64", "items", "items behind the value, which is the sum of totals over that of counts")

ITEM_ROWS: tuple[Column, ...] = (
    RUN, MODEL, ENCODING, TRAIN_LENGTH, TASK, TASK_VERSION, LENGTH, METRIC, VALUE, STDERR, UNIT, N_ITEMS, SEED, DTYPE,
    DEVICE, ATTENTION, STATUS, NOTE, SCHEMA_COLUMN,
)  # fmt: skip
"""The table of a kind of run that declares none of its own: one number for a model, a length and a metric."""

BY_ITEM: tuple[Column, ...] = (RUN, MODEL, TASK, LENGTH, METRIC, ITEM, DIGEST, TOTAL, COUNT)
"""`by_item.parquet`: the sums behind `ITEM_ROWS`, the units of resampling and pairing."""

DISTANCE = Column(
    "distance",
    "Int64",
    "tokens",
    "tokens back, from a query to a key (0 is its own) or from a question to its answer",
    key=True,
)
DEPTH = Column("depth", "Int64", "%", "where a needle is hidden; 0 is the beginning of the text", key=True)
RULE = Column("rule", "string", "", "what a score must reach, at a length and at all shorter ones")
LONGEST = Column("longest", "Int64", "tokens", "longest length, or distance, that was measured")

CHE_METRICS: dict[str, str] = {
    "accuracy": "counted answer tokens that are right, of all counted ones",
    "exact_match": "answers whose counted tokens are all right",
}
"""Each metric of a problem and its meaning."""

LEVELS: dict[str, str] = {"regular": "regular", "dcf": "context-free", "cs": "context-sensitive"}
"""The levels of the Chomsky hierarchy in order, and what figures call them."""

BLOCK_TARGETS = 1024
"""Targets in one block of a document."""

METRICS: dict[str, tuple[str, str]] = {
    "nll_nats": ("nats/token", "mean negative log-likelihood of a token"),
    "perplexity": ("", "exp of the mean negative log-likelihood"),
    "bits_per_byte": ("bits/byte", "total bits over the bytes of the scored span"),
}
"""Each metric of a perplexity run: its unit and its meaning."""

OPTIMUM = "optimum"
"""The name of the best possible guess of a text whose law is known, and what stands in the place of its encoding."""

REGRET, GAIN_SHARE = "regret_nats", "gain_share"

OPTIMUM_METRICS: dict[str, tuple[str, str]] = {
    REGRET: ("nats/token", "mean loss above that of the best possible guess of the same targets in the same windows"),
    GAIN_SHARE: (
        "",
        "of what the best possible guess gains from a shorter length to this one, the part that it gained",
    ),
}
"""Metrics of models beside which the best possible guess was measured: their unit and their meaning."""


class BlockSum(NamedTuple):
    """Sums over the scored targets of one block of one document."""

    document: str
    digest: str
    block: int
    nll_nats: float
    n_tokens: int
    n_bytes: int
    n_nonfinite: int


class PositionSum(NamedTuple):
    """Sums over the scored targets whose context lies in a range of sizes."""

    context_from: int
    context_to: int
    nll_nats: float
    n_tokens: int


class CellKey(NamedTuple):
    """What a cell is: one model under one protocol at one length."""

    model: str
    protocol: str
    length: int
    stride: int | None


@dataclass(frozen=True)
class Facts:
    """What every row of a model repeats."""

    encoding: str
    train_length: int | None
    task: str
    task_version: int
    corpus: str
    split: str
    seed: int
    dtype: str
    device: str


@dataclass(frozen=True)
class Cost:
    """What a cell cost."""

    seconds: float
    n_forward_tokens: int
    n_windows: int
    n_shared_windows: int
    peak_memory_mib: float
    batch_tokens: int


@dataclass(frozen=True)
class Measurement:
    """Everything known of one finished cell; `report` turns it into rows.

    A cell without a value (status `n/a` or `failed`) has empty sums and a note.
    """

    key: CellKey
    facts: Facts
    attention: str
    blocks: Sequence[BlockSum]
    positions: Sequence[PositionSum]
    cost: Cost | None
    status: str = "ok"
    note: str = ""
