"""Flags of `lpe-eval ppl` about single tokens: keeping their losses, and those that need a long context."""

from typing import Annotated

import typer

TOKENS = "Single tokens"

KeepTokens = Annotated[
    bool,
    typer.Option(
        "--keep-tokens",
        help="Keep the loss of every target in by_token/, as Parquet: document, position, token, context, loss.",
        rich_help_panel=TOKENS,
    ),
]
KeyTokens = Annotated[
    str | None,
    typer.Option(
        help="Perplexity of the tokens that need a long context (LongPPL), chosen by self, model:NAME (one of -m) or "
        "spans:PATH (stored ones). Needs anchored or sliding windows.",
        rich_help_panel=TOKENS,
    ),
]
KeyGain = Annotated[
    float | None,
    typer.Option(help="Nats that a key token gains by the long context. Default: 2.", rich_help_panel=TOKENS),
]
KeyLoss = Annotated[
    float | None,
    typer.Option(help="Nats that a key token costs at most with it. Default: 2.", rich_help_panel=TOKENS),
]
KeyShort = Annotated[
    int | None,
    typer.Option(help="The short length. Default: the shortest; the long one is the longest.", rich_help_panel=TOKENS),
]
KeyWeighting = Annotated[
    str | None,
    typer.Option(
        help="released: also the perplexity of all tokens as the released code weighs documents. Default: tokens.",
        rich_help_panel=TOKENS,
    ),
]
