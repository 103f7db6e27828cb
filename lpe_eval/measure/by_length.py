"""The loop over lengths: windows become batches, batches become sums, each cell is handed up when done.

Protocols of one length share windows: every non-overlapping window is also a sliding window of half
the length's stride, and an anchored one at the longest length ends where a non-overlapping one does.
A window that several protocols want is pushed through the model once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lpe_eval.data.selection import EncodedDocument
from lpe_eval.data.windows import Window
from lpe_eval.errors import CheckpointError, LengthError, one_sentence
from lpe_eval.measure.batches import Plan, Span, Texts, WindowError, fed, release, run_batches, span_of, spans_of
from lpe_eval.measure.determinism import is_not_deterministic
from lpe_eval.measure.memory import begin_peak, peak_memory_mib
from lpe_eval.measure.progress import Advance
from lpe_eval.measure.token_losses import token_losses
from lpe_eval.model.falling_back import taken
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.model.needed_memory import free_memory, shortfall
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.records import KeepTokens
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
    highest = max((int(each.tokens.max()) for each in documents if len(each.tokens)), default=-1)
    for plan in sorted(plans, key=lambda each: each.length):
        wanted = spans_of(plan)
        left = sum(fed(span) for span in wanted)

        def counted(done: int) -> None:
            nonlocal left
            left -= done
            advance(done)

        unknown = max(highest, bos_id if bos_id is not None and any(span.bos for span in wanted) else -1)
        forward, attention, peak, status, note = None, "", 0.0, "", ""
        begin_peak(model.device)
        with taken() as paths:
            try:
                _refuse_what_cannot_be(model, plan.length, wanted, unknown)
                texts = Texts(documents, bos_id, seed + plan.length)
                forward = run_batches(model, texts, spans_of(plan.whole), wanted, batch_tokens, counted, adapt)
                attention, peak = paths.paths(model.attention), peak_memory_mib(model.device)
            except Exception as error:
                # Encodings and kernels may be anybody's; what they raise costs this length alone.
                status, note = _why_without_value(error, plan.length)
        if forward is None or status:
            release(model.device)
            advance(left)
            yield from (_without_value(key, facts, _attention(model), status, note) for key in plan.windows)
            continue
        batch_tokens = forward.batch_tokens
        users = dict.fromkeys(wanted, 0)
        for windows in plan.windows.values():
            for window in windows:
                users[span_of(window)] += 1
        for key, windows in plan.windows.items():
            blocks, positions = sums_of(documents, windows, forward.losses)
            if keep is not None and blocks:
                keep(key, token_losses(documents, windows, forward.losses))
            shares = [1 / users[span_of(each)] for each in windows]
            spent = [forward.seconds[span_of(each)] for each in windows]
            cost = Cost(
                seconds=sum(each * share for each, share in zip(spent, shares, strict=True)),
                n_forward_tokens=round(sum(each.n_input * share for each, share in zip(windows, shares, strict=True))),
                n_windows=len(windows),
                n_shared_windows=sum(users[span_of(each)] > 1 for each in windows),
                peak_memory_mib=peak,
                batch_tokens=batch_tokens,
            )
            yield _measured(key, facts, attention, blocks, positions, cost, paths.note)


def _refuse_what_cannot_be(model: LanguageModel, length: int, wanted: Iterable[Span], highest_id: int) -> None:
    """Raises CheckpointError for ids without a symbol, and for windows that a processor's memory does not hold.

    A GPU says at once that its memory does not hold something.
    """
    if highest_id >= model.facts.vocab_size:
        raise CheckpointError(
            f"the text holds the token {highest_id} and the model has {model.facts.vocab_size} symbols"
        )
    longest = max(map(fed, wanted), default=0)
    least = model.least_bytes(longest) if model.device.type == "cpu" else 0
    if short := shortfall(0, 0, least, free_memory()):
        raise CheckpointError(f"a window of {length} tokens {short}")


def _attention(model: LanguageModel) -> str:
    """The attention path, of a model that may have failed in saying it."""
    try:
        return model.attention
    except Exception:
        return ""


def context_bucket_edges(longest: int) -> NDArray[np.int64]:
    """First context size of each bucket: all sizes to 16, then sixteen buckets an octave."""
    fine = np.arange(1, min(16, longest) + 1)
    octaves = 16 * 2 ** (np.arange(1, 16 * 40) / 16)
    edges = np.unique(np.concatenate([fine, np.ceil(octaves).astype(np.int64)]))
    return edges[edges <= longest]


def _why_without_value(error: Exception, length: int) -> tuple[str, str]:
    """Status and note of the cells of a length at which something was raised.

    Raises:
        RuntimeError: what was raised says that a step is not deterministic where that is demanded.
    """
    tokens, cause = (error.tokens, error.__cause__) if isinstance(error, WindowError) else (length, error)
    assert cause is not None
    if is_not_deterministic(cause):
        raise cause
    if isinstance(cause, LengthError):
        note = str(cause)
        return "n/a", note if tokens == length else f"{note}; the windows that failed have {tokens} tokens"
    if out_of_memory(cause):
        return "failed", f"out of memory with a single window of {tokens} tokens"
    note = one_sentence(cause)
    if tokens != length:
        note += f"; that was a shorter window of {tokens} tokens, at the end of a document: --tail drop leaves it out"
    return "failed", note


def sums_of(
    documents: Sequence[EncodedDocument], windows: Sequence[Window], losses: Mapping[Span, NDArray[np.float64]]
) -> tuple[tuple[BlockSum, ...], tuple[PositionSum, ...]]:
    """The scored losses of a cell, added up by block of a document and by size of context.

    Args:
        documents: what the windows count in.
        windows: of the cell.
        losses: nats of the last targets of each span, at least as many as any window scores.
    """
    longest = max((window.n_input for window in windows), default=1)
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
    blocks = tuple(
        BlockSum(documents[document].name, documents[document].digest, number, float(sums[0]), *map(int, sums[1:]))
        for (document, number), sums in sorted(by_block.items())
    )
    last = np.append(edges[1:] - 1, longest)
    positions = tuple(
        PositionSum(int(low), int(high), float(nll), int(count))
        for low, high, nll, count in zip(edges, last, *by_context, strict=True)
        if count
    )
    return blocks, positions


def _measured(
    key: CellKey,
    facts: Facts,
    attention: str,
    blocks: tuple[BlockSum, ...],
    positions: tuple[PositionSum, ...],
    cost: Cost,
    note: str,
) -> Measurement:
    if not blocks:
        return _without_value(key, facts, attention, "n/a", "no target is scored at this length")
    bad = sum(block.n_nonfinite for block in blocks)
    note = f"{bad} scored targets have a loss that is not finite" if bad else note
    return Measurement(key, facts, attention, blocks, positions, cost, "error" if bad else "ok", note)


def _without_value(key: CellKey, facts: Facts, attention: str, status: str, note: str) -> Measurement:
    return Measurement(key, facts, attention, (), (), None, status, note)
