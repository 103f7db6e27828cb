"""Key tokens: the targets that a model can only tell from a long context, and perplexity over these alone (LongPPL).

Source: Fang et al. 2024, What is Wrong with Perplexity for Long-context Language Modeling? (arXiv 2410.23771), and its
code, PKU-ML/LongPPL, `longppl/longppl.py`. A target is a key token where

    loss with a short context - loss with a long one > gain     and     loss with the long one < loss

in nats, both 2 by default (alpha = 2 and beta = -2 there). Its perplexity is exp of the mean loss over key tokens.

Deviations:
    * Both contexts are lengths of this program's protocols, so that every target sees them whole. The code has one pass
      over the whole document, and a short context that grows from `trunc_len` by `sliding_window` tokens. The protocol
      `sliding` with length `trunc_len + sliding_window - 1`, stride `sliding_window`, and a longest length of the whole
      document is the same to the last token.
    * Spans are bytes of the document, where the code has characters; so tokenizers may differ in any way. Where the
      tokenizer is the same, targets are compared by their places, and no span is needed.
    * A span's token is one that lies wholly inside, as there. The code's first token of a document, if it is in a
      span, stands for the last one (an index of -1); here it counts as itself, or not at all where it is not scored.
      A character that a tokenizer makes of several tokens belongs to the first of them; there to each.
    * The code joins documents by the number of their key tokens, which is the mean over all key tokens; so is ours.
      Only its plain perplexity weighs a document by n tokens where its mean is over n - 1 (`released`).
"""

import numpy as np
from jaxtyping import Bool, Float, Int


def chosen(
    short: Float[np.ndarray, " n"], long: Float[np.ndarray, " n"], gain: float, loss: float
) -> Bool[np.ndarray, " n"]:
    """Which of some targets are key tokens.

    Args:
        short: nats of each with the short context.
        long: nats of the same with the long one.
        gain: nats that a key token gains, more than that.
        loss: nats that it costs with the long context, less than that.
    """
    # What is infinite with both gains nothing.
    with np.errstate(invalid="ignore"):
        return (short - long > gain) & (long < loss)


def merged(byte_from: Int[np.ndarray, " n"], n_bytes: Int[np.ndarray, " n"]) -> Int[np.ndarray, "m 2"]:
    """The spans of some tokens, in bytes, those that touch joined; a token without bytes has none."""
    kept = n_bytes > 0
    starts, ends = byte_from[kept], (byte_from + n_bytes)[kept]
    if not len(starts):
        return np.zeros((0, 2), dtype=np.int64)
    apart = starts[1:] != ends[:-1]
    first, last = np.concatenate([[True], apart]), np.concatenate([apart, [True]])
    return np.stack([starts[first], ends[last]], axis=1).astype(np.int64)


def inside(
    byte_from: Int[np.ndarray, " n"], n_bytes: Int[np.ndarray, " n"], spans: Int[np.ndarray, "m 3"]
) -> Bool[np.ndarray, " n"]:
    """Which of some tokens lie wholly in one of the spans.

    Args:
        byte_from: bytes of the document before each token.
        n_bytes: bytes of each; none for the later pieces of one character, which lie where it ends.
        spans: rising and apart; of each the first byte that a token may have, the byte that it must reach (the same,
            but for spans that begin after blanks which belong to a token), and the end.
    """
    if not len(spans):
        return np.zeros(len(byte_from), dtype=bool)
    ends = byte_from + n_bytes
    place = np.minimum(np.searchsorted(spans[:, 2], ends, side="left"), len(spans) - 1)
    earliest, beyond, end = spans[place].T
    # A blank that is a token of its own, right before a span without its blanks, is the span's as well.
    reaches = (ends > beyond) | ((ends == beyond) & (n_bytes > 0))
    return (byte_from >= earliest) & reaches & (ends <= end)
