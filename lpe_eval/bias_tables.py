"""Columns of what `lpe-eval bias` leaves. They continue `table.py`, by the same rules."""

from lpe_eval.table import (
    CORPUS,
    DISTANCE,
    ENCODING,
    MODEL,
    SCHEMA_COLUMN,
    SEED,
    SPLIT,
    TRAIN_LENGTH,
    Column,
)

QUERY = Column("query", "Int64", "tokens", "position of the query that is looked from, counted from 0", key=True)
N_TEXTS = Column("n_texts", "Int64", "texts", "texts that the means are over")
LAYER = Column("layer", "Int64", "", "layer of the model, from 0", key=True)
HEAD = Column("head", "Int64", "", "attention head of the layer, from 0", key=True)
DISTANCE_FROM = Column("distance_from", "Int64", "tokens", "first distance of the range", key=True)
DISTANCE_TO = Column("distance_to", "Int64", "tokens", "last distance of the range")
CONTENT = Column("content", "float64", "nats", "logit of query and key in one place, without a bias; mean over texts")
STATIC = Column("static", "float64", "nats", "the encoding's bias, which no token moves; missing where it has none")
ADDED = Column("added", "float64", "nats", "what position adds to a logit: the logit less content, mean over texts")
ADDED_STDERR = Column("added_stderr", "float64", "nats", "standard error of `added` over texts; missing for one text")
OF_MEAN_KEY = Column("of_mean_key", "float64", "nats", "what turning adds to the mean of all keys at that distance")
DECAY = Column("decay", "float64", "", "mean of cos(distance * frequency) over the pairs of channels of a rotary head")
FAR_LESS_NEAR = Column("far_less_near", "float64", "nats", "mean of `added` over far keys less that over near ones")
FAR_LESS_NEAR_STDERR = Column("far_less_near_stderr", "float64", "nats", "its standard error over texts")
HEAD_KIND = Column("head_kind", "string", "", "local: falls a nat or more from near to far; anti-local: rises so; flat")

BIAS: tuple[Column, ...] = (
    MODEL, ENCODING, TRAIN_LENGTH, CORPUS, SPLIT, SEED, QUERY, N_TEXTS, LAYER, HEAD, DISTANCE_FROM, DISTANCE_TO,
    STATIC, ADDED, ADDED_STDERR, OF_MEAN_KEY, FAR_LESS_NEAR, FAR_LESS_NEAR_STDERR, HEAD_KIND, SCHEMA_COLUMN,
)  # fmt: skip
"""`bias.csv`: what each head adds in octaves of distance."""

BY_DISTANCE: tuple[Column, ...] = (
    MODEL, QUERY, LAYER, HEAD, DISTANCE, CONTENT, STATIC, ADDED, ADDED_STDERR, OF_MEAN_KEY, DECAY,
)  # fmt: skip
"""`by_distance.parquet`: the same at every distance."""
