"""A block of query rows before and after the softmax, as several attention paths compute it."""

from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model.attention import visible_keys
from lpe_eval.model.encoding import Encoding, Scores
from lpe_eval.model.positions import part
from lpe_eval.model.products import products


def scaled_products(queries: Float[Tensor, "b h r d"], keys: Float[Tensor, "b h k d"]) -> Float[Tensor, "b h r k"]:
    """q . k / sqrt(d) in float32."""
    return products(queries, keys, queries.shape[-1] ** -0.5)


def scores_of_rows(
    queries: Float[Tensor, "b h r d"],
    k: Float[Tensor, "b h k d"],
    encoding: Encoding,
    at: Int[Tensor, " k"],
    rows: slice,
    causal: bool,
    backwards: bool = False,
) -> Scores:
    """What is known of a block before the encoding adjusts it.

    Args:
        queries: those of the block, in the order of its rows.
        k: all keys.
        encoding: whose bias is added, and how many keys after the last visible one it needs.
        at: the position of every key.
        rows: the block, counted in the whole sequence.
        causal: whether a query sees only its past and itself.
        backwards: whether the last row comes first.
    """
    keys = min(len(at), last_seen(rows, at, causal) + encoding.lookahead)
    some, q_at, k_at = k[:, :, :keys], part(at, rows, backwards), part(at, slice(0, keys))
    visible = visible_keys(rows, keys, len(at), causal, k.device)
    if backwards:
        visible = visible.flip(0)
    logits = scaled_products(queries, some)
    return Scores(logits, encoding.bias(q_at, k_at), queries.float(), some.float(), visible, q_at, k_at)


def last_seen(rows: slice, at: Int[Tensor, " k"], causal: bool) -> int:
    """How many keys there are up to the last one that a row of the block sees."""
    return rows.stop if causal else len(at)


def probabilities(encoding: Encoding, scores: Scores, seen: int) -> Float[Tensor, "b h r s"]:
    """The weights of the first `seen` keys, with nothing done in place that gradients need."""
    hidden = ~scores.visible[:, :seen]
    return encoding.adjust(scores)[..., :seen].masked_fill(hidden, float("-inf")).softmax(dim=-1)
