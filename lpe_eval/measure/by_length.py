"""The loop over lengths: windows become batches, batches become sums, each cell is handed up when done.

Protocols of one length share windows: every non-overlapping window is also a sliding window of half
the length's stride, and an anchored one at the longest length ends where a non-overlapping one does.
A window that several protocols want is pushed through the model once.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpe_eval.data.selection import EncodedDocument
from lpe_eval.data.windows import Window
from lpe_eval.measure.batches import Forward, Plan, Span, Texts, span_of, spans_of
from lpe_eval.measure.passing import highest_id, pass_through
from lpe_eval.measure.progress import Advance
from lpe_eval.measure.token_losses import token_losses
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.records import KeepTokens, columns_of
from lpe_eval.table import BLOCK_TARGETS, BlockSum, CellKey, Cost, Facts, Measurement, PositionSum


def measure(
    model: LanguageModel,
    documents: Sequence[EncodedDocument],
    plans: Iterable[Plan],
    facts: Facts,
    *,
    bos_id: int | None,
    batch_tokens: int,
    seed: int,
    advance: Advance,
    adapt: bool = False,
    keep: KeepTokens | None = None,
) -> Iterator[Measurement]:
    """Measures one model at every length, shortest first, and yields each cell when it is finished.

    When memory runs out the batch is halved and the same windows are tried again, which changes the
    cost and not the result. A length at which a single window does not fit, for which the model has no
    positions, or at which it raises whatever it may, yields cells without a value that say so.

    Args:
        model: what is measured.
        documents: what the windows count in.
        plans: windows by length; nothing in it has been measured yet.
        facts: what every row of this model repeats.
        bos_id: the token of windows with BOS.
        batch_tokens: token budget of a batch.
        seed: of sampled positions; every forward pass of a length starts from the same draw, so that
            the batch a window is in does not matter.
        advance: told of tokens.
        adapt: whether a batch that is slower than its windows one by one may shrink.
        keep: handed the losses of the targets of each cell, before the cell.
    """
    highest = highest_id(documents)
    for plan in sorted(plans, key=lambda each: each.length):
        passed = pass_through(
            model,
            Texts(documents, bos_id, seed + plan.length),
            plan,
            spans_of(plan),
            highest,
            batch_tokens,
            advance,
            adapt,
        )
        if passed.forward is None:
            yield from (without_value(key, facts, passed.attention, passed.status, passed.note) for key in plan.windows)
            continue
        forward, batch_tokens = passed.forward, passed.forward.batch_tokens
        users = users_of(plan)
        for key, windows in plan.windows.items():
            blocks, positions = sums_of(documents, windows, forward.losses)
            if keep is not None and blocks:
                keep(key, token_losses(documents, windows, forward.losses))
            spent = spent_on(windows, users, forward)
            cost = Cost(
                seconds=spent.seconds,
                n_forward_tokens=round(spent.tokens),
                n_windows=len(windows),
                n_shared_windows=spent.shared,
                peak_memory_mib=passed.peak,
                batch_tokens=batch_tokens,
            )
            yield with_value(key, facts, passed.attention, blocks, positions, cost, passed.note)


class Spent(NamedTuple):
    """What the windows of a cell cost: their shares of what protocols have in common."""

    seconds: float
    tokens: float
    shared: int


def users_of(plan: Plan) -> dict[Span, int]:
    """How many windows of a plan use each span."""
    return dict(Counter(span_of(window) for windows in plan.windows.values() for window in windows))


def spent_on(windows: Sequence[Window], users: Mapping[Span, int], forward: Forward) -> Spent:
    """What some windows of a cell cost."""
    shares = [1 / users[span_of(each)] for each in windows]
    seconds = [forward.seconds[span_of(each)] for each in windows]
    return Spent(
        sum((each * share for each, share in zip(seconds, shares, strict=True)), 0.0),
        sum((each.n_input * share for each, share in zip(windows, shares, strict=True)), 0.0),
        sum(users[span_of(each)] > 1 for each in windows),
    )


def context_bucket_edges(longest: int) -> NDArray[np.int64]:
    """First context size of each bucket: all sizes to 16, then sixteen buckets an octave."""
    fine = np.arange(1, min(16, longest) + 1)
    octaves = 16 * 2 ** (np.arange(1, 16 * 40) / 16)
    edges = np.unique(np.concatenate([fine, np.ceil(octaves).astype(np.int64)]))
    return edges[edges <= longest]


def sums_of(
    documents: Sequence[EncodedDocument], windows: Sequence[Window], losses: Mapping[Span, NDArray[np.float64]]
) -> tuple[tuple[BlockSum, ...], tuple[PositionSum, ...]]:
    """The scored losses of a cell, added up by block of a document and by size of context.

    Args:
        documents: what the windows count in.
        windows: of the cell.
        losses: nats of the last targets of each span, at least as many as any window scores.
    """
    blocks, positions = sums_by_block(documents, windows, losses, longest_of(windows))
    return tuple(blocks.values()), positions


def longest_of(windows: Sequence[Window]) -> int:
    """Tokens that the longest of some windows feeds; it decides how sizes of context are put together."""
    return max((window.n_input for window in windows), default=1)


def sums_by_block(
    documents: Sequence[EncodedDocument],
    windows: Iterable[Window],
    losses: Mapping[Span, NDArray[np.float64]],
    longest: int,
) -> tuple[dict[tuple[int, int], BlockSum], tuple[PositionSum, ...]]:
    """As `sums_of`, for some windows of a cell: the sums by number of document and block, rising, and by context.

    Args:
        documents: what the windows count in.
        windows: some of the cell.
        losses: nats of the last targets of their spans.
        longest: `longest_of` all windows of the cell.
    """
    edges = context_bucket_edges(longest)
    by_context = np.zeros((2, len(edges)))
    by_block: dict[tuple[int, int], NDArray[np.float64]] = {}
    for window in windows:
        nats = losses[span_of(window)][-window.n_scored :]
        targets = np.arange(window.score_from, window.stop)
        bucket = np.searchsorted(edges, targets - window.start + window.bos, side="right") - 1
        by_context += [np.bincount(bucket, weights, len(edges)) for weights in (nats, np.ones_like(nats))]
        n_bytes = documents[window.document].n_bytes[targets]
        block = targets // BLOCK_TARGETS
        for number in np.unique(block):
            here = block == number
            sums = by_block.setdefault((window.document, int(number)), np.zeros(4))
            sums += [nats[here].sum(), here.sum(), n_bytes[here].sum(), (~np.isfinite(nats[here])).sum()]
    blocks = {
        (document, number): BlockSum(
            documents[document].name, documents[document].digest, number, float(sums[0]), *map(int, sums[1:])
        )
        for (document, number), sums in sorted(by_block.items())
    }
    last = np.append(edges[1:] - 1, longest)
    positions = tuple(
        PositionSum(int(low), int(high), float(nll), int(count))
        for low, high, nll, count in zip(edges, last, *by_context, strict=True)
        if count
    )
    return blocks, positions


def with_value(
    key: CellKey,
    facts: Facts,
    attention: str,
    blocks: Sequence[BlockSum],
    positions: Sequence[PositionSum],
    cost: Cost,
    note: str,
) -> Measurement:
    """A cell that was measured; one without any scored target has no value, and losses that are not finite are told."""
    if not blocks:
        return without_value(key, facts, attention, "n/a", "no target is scored at this length")
    bad = int(columns_of(blocks).n_nonfinite.sum())
    note = f"{bad} scored targets have a loss that is not finite" if bad else note
    return Measurement(key, facts, attention, blocks, positions, cost, "error" if bad else "ok", note)


def without_value(key: CellKey, facts: Facts, attention: str, status: str, note: str) -> Measurement:
    """A cell that could not be measured."""
    return Measurement(key, facts, attention, (), (), None, status, note)
