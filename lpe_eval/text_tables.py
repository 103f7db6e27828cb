"""Columns of what a perplexity run leaves beside its rows: what is derived from them, and losses of single tokens;
and the log of a training.

They continue `table.py`, by the same rules.
"""

from lpe_eval import table
from lpe_eval.table import Column

LENGTHS_FROM = Column("shortest", "Int64", "tokens", "shortest length that was measured")
EFFECTIVE = Column(
    "effective_length", "Int64", "tokens", "shortest measured length from which on more context gains nothing beyond "
    "chance; no length up to it is worse than a shorter one"
)  # fmt: skip
EFFECTIVE_LOW = Column("effective_low", "Int64", "tokens", "lower end of its 95 % interval")
EFFECTIVE_HIGH = Column("effective_high", "Int64", "tokens", "upper end of its 95 % interval")
BEYOND = Column(
    "beyond", "string", "", "what the next longer length does: level (gains nothing), loses, no value, or none: there "
    "is none, so the effective length may be longer"
)  # fmt: skip
GAIN = Column("gain", "float64", "nats/token", "paired fall of the loss from the shortest length to the effective one")
GAIN_STDERR = Column("gain_stderr", "float64", "nats/token", "standard error of the gain")

EFFECTIVE_LENGTHS: tuple[Column, ...] = (
    table.RUN, table.MODEL, table.ENCODING, table.TRAIN_LENGTH, table.PROTOCOL, table.STRIDE, LENGTHS_FROM,
    table.LONGEST, EFFECTIVE, EFFECTIVE_LOW, EFFECTIVE_HIGH, BEYOND, GAIN, GAIN_STDERR, table.CI_METHOD, table.N_TOKENS,
    table.STATUS, table.NOTE, table.SCHEMA_COLUMN,
)  # fmt: skip
"""`effective_length.csv`: of each model under `anchored`, how much context it makes use of."""

FROM_LENGTH = Column("from_length", "Int64", "tokens", "length that a change is from: the training's, or the shortest")
CHANGE = Column("change", "float64", "nats/token", "paired change of the loss on the text that both lengths scored")

CHANGES: tuple[Column, ...] = (
    table.RUN, table.MODEL, table.ENCODING, table.TRAIN_LENGTH, table.PROTOCOL, table.LENGTH, table.STRIDE, FROM_LENGTH,
    CHANGE, table.STDERR, table.CI_LOW, table.CI_HIGH, table.CI_METHOD, table.N_TOKENS, table.SCHEMA_COLUMN,
)  # fmt: skip
"""`changes.csv`: how the loss changes from the training length to each other one, where both scored the same text."""

FITTED_FROM = Column("fitted_from", "Int64", "tokens", "smallest context behind a fit")
FITTED_TO = Column("fitted_to", "Int64", "tokens", "largest context behind a fit")
ALPHA = Column("alpha", "float64", "tokens", "alpha of loss = (alpha / c) ** beta + gamma, c tokens of context")
ALPHA_STDERR = Column("alpha_stderr", "float64", "tokens", "standard error of alpha")
BETA = Column("beta", "float64", "", "beta of the same: how fast the loss falls with context")
BETA_STDERR = Column("beta_stderr", "float64", "", "standard error of beta")
GAMMA = Column("gamma", "float64", "nats/token", "gamma of the same: the loss that it falls to")
GAMMA_STDERR = Column("gamma_stderr", "float64", "nats/token", "standard error of gamma")
EXPLAINED = Column("explained", "float64", "", "share of the spread over sizes of context that the fit explains")

POSITION_FIT: tuple[Column, ...] = (
    table.RUN, table.MODEL, table.ENCODING, table.TRAIN_LENGTH, table.PROTOCOL, table.LENGTH, table.STRIDE,
    FITTED_FROM, FITTED_TO, ALPHA, ALPHA_STDERR, BETA, BETA_STDERR, GAMMA, GAMMA_STDERR, EXPLAINED,
    table.N_TOKENS, table.STATUS, table.NOTE, table.SCHEMA_COLUMN,
)  # fmt: skip
"""`position_fit.csv`: a power law through the loss by context of each model and protocol, at its longest length."""

POSITION = Column("position", "Int64", "", "place of the target among the tokens of its document, from 0")
TOKEN = Column("token", "Int64", "", "id of the target in the model's vocabulary")
CONTEXT = Column("context", "Int64", "tokens", "tokens visible to the target, BOS included")
BYTE_FROM = Column("byte_from", "Int64", "bytes", "bytes of the document before the target")
LOSS = Column("loss", "float32", "nats", "negative log-likelihood of the target, in the precision it was computed in")

TOKENS: tuple[Column, ...] = (
    table.RUN, table.MODEL, table.PROTOCOL, table.LENGTH, table.STRIDE, table.DOCUMENT, table.DIGEST, POSITION, TOKEN,
    CONTEXT, BYTE_FROM, table.N_BYTES, LOSS,
)  # fmt: skip
"""`by_token/*.parquet`: the loss of every scored target (`--keep-tokens`), a file a cell."""

STEP = Column("step", "Int64", "steps", "optimiser steps up to a line of the log", key=True)
TRAIN_NLL = Column("train_nll_nats", "float64", "nats/token", "mean training loss since the line before")
GRADIENT_NORM = Column("gradient_norm", "float64", "", "mean norm of the gradient since the line before, unclipped")
VALID_NLL = Column(
    "valid_nll_nats", "float64", "nats/token", "validation loss at the step; missing where there is none"
)

TRAINING: tuple[Column, ...] = (STEP, TRAIN_NLL, GRADIENT_NORM, table.LEARNING_RATE, VALID_NLL, table.SECONDS)
"""`training.csv` of a language model: the log of its training."""

N_TARGETS = Column("n_targets", "Int64", "tokens", "scored targets among which key tokens were looked for")
KEY_TOKENS = Column("key_tokens", "string", "", "what chose the key tokens: self, model:NAME or spans:PATH")

LONG_PERPLEXITY: tuple[Column, ...] = (*table.ROWS[:-1], N_TARGETS, KEY_TOKENS, table.SCHEMA_COLUMN)
"""`long_perplexity.csv`: perplexity of key tokens (`--key-tokens`); `n_tokens` counts these alone."""

KEY_METRICS: dict[str, str] = {
    "long_perplexity": "exp of the mean negative log-likelihood of the key tokens",
    "released_perplexity": "exp of a mean over documents in which one of n targets weighs n + 1, as LongPPL's code has "
    "it",
}
"""Each metric of `long_perplexity.csv` and its meaning."""

DERIVED: dict[str, tuple[Column, ...]] = {
    "effective_length.csv": EFFECTIVE_LENGTHS,
    "changes.csv": CHANGES,
    "position_fit.csv": POSITION_FIT,
    "long_perplexity.csv": LONG_PERPLEXITY,
}
"""The files that follow from the tables of a run, written at its end."""

KEY_SPANS = "key_tokens.jsonl"
"""Where the key tokens that a model chose are told, as spans of documents in bytes."""

STEP = Column("step", "Int64", "steps", "training steps of a checkpoint: the last number in the name of its folder")

BY_STEP: tuple[Column, ...] = (STEP, *table.ROWS)
"""`steps.csv`: the rows of all checkpoints that `watch` measured."""
