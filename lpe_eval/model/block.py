"""A block of query rows before and after the softmax, as several attention paths compute it."""

from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask
from lpe_eval.model.positions import part
from lpe_eval.model.products import products
from lpe_eval.model.scores import Scores


def scaled_products(queries: Float[Tensor, "b h r d"], keys: Float[Tensor, "b h k d"]) -> Float[Tensor, "b h r k"]:
    """q . k / sqrt(d) in float32."""
    return products(queries, keys, queries.shape[-1] ** -0.5)


def scores_of_rows(
    queries: Float[Tensor, "b h r d"],
    k: Float[Tensor, "b h k d"],
    encoding: Encoding,
    at: Int[Tensor, " k"],
    rows: slice,
    mask: Mask,
    features: Float[Tensor, "b h k n"] | None,
    backwards: bool = False,
) -> Scores:
    """What is known of a block before the encoding adjusts it.

    Args:
        queries: those of the block, in the order of its rows.
        k: all keys.
        encoding: whose bias is added, and how many keys it needs around those that are seen.
        at: the position of every key.
        rows: the block, counted in the whole sequence.
        mask: which keys each query sees.
        features: of every token; None where the encoding has none.
        backwards: whether the last row comes first.
    """
    keys = mask.keys(rows, len(at), encoding.lookbehind, encoding.lookahead)
    some, q_at, k_at = k[:, :, keys], part(at, rows, backwards), part(at, keys)
    visible = mask.visible(rows, keys, k.device)
    of_rows, of_keys = (None, None) if features is None else (features[:, :, rows], features[:, :, keys])
    if backwards:
        visible = visible.flip(0)
        of_rows = None if of_rows is None else of_rows.flip(2)
    logits = scaled_products(queries, some)
    bias = encoding.bias(q_at, k_at)
    return Scores(logits, bias, queries.float(), some.float(), visible, q_at, k_at, of_rows, of_keys)


def seen_columns(encoding: Encoding, rows: slice, length: int, mask: Mask) -> slice:
    """Which columns of `scores_of_rows` are keys that a row of the block sees."""
    seen, keys = mask.keys(rows, length), mask.keys(rows, length, encoding.lookbehind, encoding.lookahead)
    return slice(seen.start - keys.start, seen.stop - keys.start)


def probabilities(encoding: Encoding, scores: Scores, seen: slice) -> Float[Tensor, "b h r s"]:
    """The weights of the keys in the columns `seen`, with nothing done in place that gradients need.

    A row sums to one, or to what the encoding keeps of it.
    """
    hidden = ~scores.visible[:, seen]
    positioned = encoding.adjust(scores)[..., seen].masked_fill(hidden, float("-inf"))
    return kept_of(encoding, positioned, positioned.softmax(dim=-1))


def kept_of(
    encoding: Encoding, positioned: Float[Tensor, "b h r s"], weights: Float[Tensor, "b h r s"]
) -> Float[Tensor, "b h r s"]:
    """The weights times what the encoding keeps of each row, from the masked logits that they come from."""
    if not encoding.capabilities.keeps:
        return weights
    kept = encoding.kept(positioned.logsumexp(dim=-1))
    return weights if kept is None else weights * kept[..., None]
