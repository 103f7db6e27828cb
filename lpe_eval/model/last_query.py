"""What position adds to the logits of a text's last query, in each layer of a reference transformer as it runs.

The model runs as always. Each layer's attention passes through here on its way to the path that serves it: the last
row is scored as `block.py` scores any block of rows, and queries and keys are there as they were before `rotate`.

Choices:
    * Content is what would be there if every key stood at the query's position: `rotate` is called once more with that
      position for all. So a constant factor of an encoding (CABLE's missing 1 / sqrt(d), YaRN's attention factor, a
      temperature at this query) is content, and position adds nothing at distance 0 where it only turns.
    * Where the encoding reads no scores, what is added is the bias itself, and no difference of rounded sums.
    * What an encoding keeps of a row afterwards (sinks) is the same for all keys and no part of this.
    * Pairs of channels that do not turn count as cos(0) = 1 in the decay.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lpe_eval.errors import CheckpointError
from lpe_eval.model.attention import AttentionPath, choose
from lpe_eval.model.block import scaled_products, scores_of_rows, seen_columns
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.falling_back import attended
from lpe_eval.model.gpu import device_of_float64
from lpe_eval.model.language_model import LastQuery
from lpe_eval.model.mask import Mask
from lpe_eval.model.remaps import mapped_distances
from lpe_eval.model.rotary import Rotation
from lpe_eval.model.transformer import Layer, Transformer

Take = Callable[[LastQuery], None]


def refuse_unreadable(encodings: list[Encoding], where: str) -> None:
    """Raises CheckpointError where no layer's logits show what position adds.

    Args:
        encodings: one for each layer.
        where: what messages call the model.
    """
    if any(_acts(each) for each in encodings):
        return
    if encodings[0].embeds:
        raise CheckpointError(
            f"{where} adds its positions ({encodings[0].label}) to the embeddings of its tokens, so no logit tells "
            "them from content; take a model whose encoding acts on queries, keys or logits"
        )
    raise CheckpointError(
        f"{where} has no positional encoding ({encodings[0].label}), so position adds nothing to any logit"
    )


def _acts(encoding: Encoding) -> bool:
    uses = encoding.capabilities
    return uses.rotates or uses.offset_bias or uses.general_bias or uses.adjusts


@contextmanager
def reading(model: Transformer, take: Take) -> Iterator[None]:
    """Within it, each layer of a pass over one text hands to `take` what its last query's logits are made of."""
    asked, held = model.attention, _Held()

    class Reading(AttentionPath):
        """Takes the last row apart, and computes as the path that was asked for does."""

        falls_back = False

        @classmethod
        def serves(cls, encoding: Encoding, device: torch.device) -> bool:
            return True

        @classmethod
        def attend(
            cls,
            q: Float[Tensor, "b h q d"],
            k: Float[Tensor, "b h k d"],
            v: Float[Tensor, "b h k d"],
            encoding: Encoding,
            at: Int[Tensor, " k"],
            mask: Mask,
            features: Float[Tensor, "b h k n"] | None = None,
        ) -> Float[Tensor, "b h q d"]:
            number, plain_q, plain_k = held.taken()
            turned = _Row(q[:, :, -1:], k, encoding, at, mask, features)
            take(_taken_apart(number, plain_q, plain_k, turned))
            return attended(choose(asked, encoding, q.device)[1], q, k, v, encoding, at, mask, features)

    handles = [
        layer.query_key_value.register_forward_hook(partial(held.put, number, layer))
        for number, layer in enumerate(model.layers)
        if isinstance(layer, Layer)
    ]
    model.attention = Reading
    try:
        yield
    finally:
        model.attention = asked
        for handle in handles:
            handle.remove()


class _Held:
    """What the running layer made of its tokens, from the moment it is made until its attention is computed."""

    def __init__(self) -> None:
        self._made: tuple[int, Tensor, Tensor] | None = None

    def put(self, number: int, layer: Layer, _module: nn.Module, _given: Any, made: Tensor) -> None:
        """A forward hook of `query_key_value`."""
        q, k, _ = layer.in_heads(made)
        self._made = number, q, k

    def taken(self) -> tuple[int, Tensor, Tensor]:
        """The layer's number, and its queries and keys before they are turned; they are not held any longer."""
        assert self._made is not None
        found, self._made = self._made, None
        return found


class _Row(NamedTuple):
    """The last query of a text, and what it meets."""

    query: Float[Tensor, "b h 1 d"]
    keys: Float[Tensor, "b h k d"]
    encoding: Encoding
    at: Int[Tensor, " k"]
    mask: Mask
    features: Float[Tensor, "b h k n"] | None

    @property
    def rows(self) -> slice:
        return slice(len(self.at) - 1, len(self.at))

    @property
    def seen(self) -> slice:
        """The keys that it sees, among all."""
        return self.mask.keys(self.rows, len(self.at))


def _taken_apart(number: int, q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], row: _Row) -> LastQuery:
    """One layer's row.

    Args:
        number: of the layer.
        q: queries before `rotate`.
        k: keys before `rotate`.
        row: the same query and keys after it.
    """
    encoding, at, seen = row.encoding, row.at, row.seen
    uses = encoding.capabilities
    added, static, content = _added(row, *_in_one_place(q, k, row))
    of_mean_key = None
    if uses.rotates and (not uses.adjusts or encoding.mapped_distances() is not None):
        mean = k[:, :, seen].mean(dim=2, keepdim=True).expand_as(k)
        # A query is turned too, and not looked at.
        turned = encoding.rotate(mean, mean, at)[1].to(row.keys.dtype)
        of_mean_key = _added(row._replace(keys=turned), *_in_one_place(q, mean, row))[0]
    last = len(at) - 1
    distance = last - torch.arange(seen.start, seen.stop, device=at.device)
    fixed = not uses.rotates and not uses.adjusts and encoding.prefix_stable and static is not None
    return LastQuery(number, distance, content, added, static, of_mean_key, _decay(row), fixed)


def _in_one_place(
    q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], row: _Row
) -> tuple[Float[Tensor, "b h 1 d"], Float[Tensor, "b h t d"]]:
    """The last query and all keys as if every token stood at the query's position."""
    if not row.encoding.capabilities.rotates:
        return q[:, :, -1:], k
    together = row.encoding.rotate(q, k, torch.full_like(row.at, int(row.at[-1])))
    return together[0][:, :, -1:], together[1]


def _added(
    row: _Row, query: Float[Tensor, "b h 1 d"], keys: Float[Tensor, "b h t d"]
) -> tuple[Float[Tensor, "h k"], Float[Tensor, "h k"] | None, Float[Tensor, "h k"]]:
    """What position adds, the bias, and the content, of the keys that are seen.

    Args:
        row: turned to their positions.
        query: the same in one place.
        keys: likewise.
    """
    encoding = row.encoding
    scores = scores_of_rows(row.query, row.keys, encoding, row.at, row.rows, row.mask, row.features)
    some = seen_columns(encoding, row.rows, len(row.at), row.mask)
    static = None if scores.bias is None else _exact(scores.bias[:, 0, some])
    # The same products as those of the scores, so that what does not turn adds exactly nothing.
    around = row.mask.keys(row.rows, len(row.at), encoding.lookbehind, encoding.lookahead)
    content = _exact(scaled_products(query, keys[:, :, around])[0, :, 0, some])
    if encoding.capabilities.adjusts:
        return _exact(encoding.adjust(scores)[0, :, 0, some]) - content, static, content
    turned = _exact(scores.logits[0, :, 0, some]) - content
    return (turned if static is None else turned + static), static, content


def _decay(row: _Row) -> Float[Tensor, " k"] | None:
    """See `LastQuery`; the distances are those of positions, mapped ones where the encoding maps them."""
    mapped = row.encoding.mapped_distances()
    rotation = row.encoding.rotation() if mapped is None else mapped.rotation
    if rotation is None:
        return None
    q_at, k_at = row.at[-1:], row.at[row.seen]
    apart = (q_at - k_at).double().cpu()
    if mapped is not None:
        apart = mapped_distances(mapped.distances, q_at.cpu(), k_at.cpu())[0]
    return decay(apart, rotation, row.keys.shape[-1])


def decay(apart: Float[Tensor, " k"], rotation: Rotation, width: int) -> Float[Tensor, " k"]:
    """The mean over the pairs of a head's channels of cos(distance * frequency).

    Args:
        apart: distances, in float64.
        rotation: its frequencies.
        width: channels of a head.
    """
    angle = apart[:, None] * rotation.inverse.double().to(apart.device)
    return (angle.cos().sum(dim=1) + (width / 2 - angle.shape[1])) / (width / 2)


def _exact(values: Float[Tensor, "h k"]) -> Float[Tensor, "h k"]:
    """In float64, where the device has it."""
    return values.to(device_of_float64(values.device)).double()
