"""What each head adds to its logits for every distance, seen from one query: means over texts, and their errors.

Nothing of a layer is kept but sums, so memory grows with heads times keys and not with texts.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from lpe_eval.data.selection import EncodedDocument
from lpe_eval.errors import CheckpointError, LengthError, SpecError
from lpe_eval.measure.progress import Advance
from lpe_eval.model.language_model import LanguageModel, LastQuery
from lpe_eval.model.needed_memory import free_memory, shortfall
from lpe_eval.records import LayerBias, OverTexts, Span

NEAR = (1, 7)
"""The distances that count as near; the query's own key is apart, because methods treat it apart."""
_FINE = 8
"""Narrow ranges in an octave."""


def measure_bias(
    model: LanguageModel,
    texts: Sequence[Int[Tensor, "1 t"]],
    seed: int,
    layers: Sequence[int],
    advance: Advance,
) -> list[LayerBias]:
    """Runs each text once, and gives what position adds to the logits of its last query, layer by layer.

    Args:
        model: what is measured.
        texts: of one length, each [1, t].
        seed: of sampled positions.
        layers: layers that somebody wants to see.
        advance: told of each text.

    Raises:
        SpecError: the model has no positions for texts of this length, or no layer of such a number.
        CheckpointError: what position adds cannot be read in this model, or a text does not fit it or the memory.
    """
    length, generator = texts[0].shape[1], torch.Generator().manual_seed(seed)
    _refuse_what_cannot_be(model, texts)
    sums: dict[int, _Sums] = {}

    def take(found: LastQuery) -> None:
        if found.layer not in sums:
            sums[found.layer] = _Sums(found)
        sums[found.layer].add(found)

    for tokens in texts:
        try:
            with torch.inference_mode():
                model.last_query(tokens.to(model.device), generator, take)
        except LengthError as error:
            raise SpecError(f"--position {length - 1}: {error}; take a smaller one") from error
        unknown = [each for each in layers if each not in sums]
        if unknown:
            raise SpecError(f"--layers {unknown[0]}: {model.facts.name} has the layers 0 to {len(sums) - 1}")
        advance(1)
    return [sums[layer].finished() for layer in sorted(sums)]


def cut(documents: Sequence[EncodedDocument], tokens: int, bos_id: int | None, count: int) -> list[Int[Tensor, "1 t"]]:
    """Texts of so many tokens: the beginnings of all documents first, then what follows in each.

    Args:
        documents: none of which is too short.
        tokens: of a text, a BOS among them.
        bos_id: the token that every text begins with; None for none.
        count: how many texts are wanted; there may be fewer.
    """
    held = tokens if bos_id is None else tokens - 1
    places = sorted((start, number) for number, each in enumerate(documents)
                    for start in range(0, len(each.tokens) - held + 1, max(1, held)))  # fmt: skip
    begin = [] if bos_id is None else [bos_id]
    found = [[*begin, *documents[number].tokens[start : start + held].tolist()] for start, number in places[:count]]
    return [torch.tensor([each]) for each in found]


def octaves(farthest: int, parts: int = 1) -> list[Span]:
    """Ranges of distances 0, 1, 2-3, 4-7, and so on to the farthest; each octave in as many parts as it has room for.

    Args:
        farthest: the last distance.
        parts: of an octave, at most.
    """
    found, first = [(0, 0)], 1
    while first <= farthest:
        cuts = sorted({first + first * part // parts for part in range(parts + 1)})
        found += [(low, min(high - 1, farthest)) for low, high in pairwise(cuts) if low <= farthest]
        first *= 2
    return found


def change_of(distance: NDArray[np.int64], added: NDArray[np.float64]) -> NDArray[np.float64]:
    """[h], what is added to keys of the far half, less what is added to near ones, both as means.

    Near are the distances 1 to 7, or to half of the farthest where that is less; NaN where one key is all.
    """
    farthest = int(distance.max())
    half = farthest // 2
    if not farthest:
        return np.full(len(added), np.nan)
    near = (distance >= NEAR[0]) & (distance <= max(1, min(NEAR[1], half)))
    return added[:, distance > half].mean(axis=1) - added[:, near].mean(axis=1)


class _Sums:
    """What has been seen of a layer: means that are updated text by text, so that equal numbers have no spread."""

    def __init__(self, first: LastQuery) -> None:
        order = first.distance.argsort().cpu()
        self.order, self.layer, self.fixed = order, first.layer, first.fixed
        self.distance = _array(first.distance, order).astype(np.int64)
        farthest = int(self.distance.max())
        self.spans = {parts: octaves(farthest, parts) for parts in (1, _FINE)}
        self.texts, self.content_squares = 0, 0.0
        self.means: dict[str, NDArray[np.float64]] = {}
        self.squares = np.zeros(tuple(first.added.shape))
        self.by_text: dict[int, list[NDArray[np.float64]]] = {1: [], _FINE: []}
        self.changes: list[NDArray[np.float64]] = []

    def add(self, found: LastQuery) -> None:
        """One more text."""
        self.texts += 1
        given = {
            "content": found.content,
            "added": found.added,
            "static": found.static,
            "of_mean_key": found.of_mean_key,
            "decay": found.decay,
        }
        for name, values in given.items():
            if values is None:
                continue
            new = _array(values, self.order)
            mean = self.means.setdefault(name, np.zeros_like(new))
            before = new - mean
            mean += before / self.texts
            if name == "added":
                self.squares += before * (new - mean)
        self.content_squares += float(found.content.double().square().mean())
        added = _array(found.added, self.order)
        for parts, kept in self.by_text.items():
            kept.append(self._over(parts, added))
        self.changes.append(change_of(self.distance, added))

    def finished(self) -> LayerBias:
        """Everything that is known."""
        texts, means = self.texts, self.means
        error = np.sqrt(self.squares / ((texts - 1) * texts)) if texts > 1 else np.full_like(self.squares, np.nan)
        return LayerBias(
            self.layer,
            self.distance,
            means["content"],
            math.sqrt(self.content_squares / texts),
            means["added"],
            error,
            means.get("static"),
            means.get("of_mean_key"),
            means.get("decay"),
            self.fixed,
            self._over_texts(1),
            self._over_texts(_FINE),
            np.stack(self.changes),
        )

    def _over_texts(self, parts: int) -> OverTexts:
        static, of_mean_key = (
            self._over(parts, self.means[name]) if name in self.means else None for name in ("static", "of_mean_key")
        )
        return OverTexts(self.spans[parts], np.stack(self.by_text[parts]), static, of_mean_key)

    def _over(self, parts: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """[h, s] of [h, k]: the distances rise one by one from 0, as a window or a chunk leaves them."""
        return np.stack([values[:, low : high + 1].mean(axis=1) for low, high in self.spans[parts]], axis=1)


def _array(values: Tensor, order: Tensor) -> NDArray[np.float64]:
    return values.cpu().double()[..., order].numpy()


def _refuse_what_cannot_be(model: LanguageModel, texts: Sequence[Int[Tensor, "1 t"]]) -> None:
    highest, length = max(int(each.max()) for each in texts), texts[0].shape[1]
    if highest >= model.facts.vocab_size:
        raise CheckpointError(
            f"the text holds the token {highest} and {model.facts.name} has {model.facts.vocab_size} symbols; name its "
            "own tokenizer with --tokenizer"
        )
    least = model.least_bytes(length) if model.device.type == "cpu" else 0
    if short := shortfall(0, 0, least, free_memory()):
        raise CheckpointError(f"a text of {length} tokens {short}; take a smaller --position")
