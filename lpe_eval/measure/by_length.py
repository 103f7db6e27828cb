"""The loop over lengths: windows become batches, batches become sums, each cell is handed up when done.

Protocols of one length share windows: every non-overlapping window is also a sliding window of half
the length's stride, and an anchored one at the longest length ends where a non-overlapping one does.
A window that several protocols want is pushed through the model once.
"""

import gc
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lpe_eval.data.batch import batch_of
from lpe_eval.data.selection import EncodedDocument
from lpe_eval.data.windows import Window
from lpe_eval.errors import LengthError, one_sentence
from lpe_eval.measure.determinism import is_not_deterministic
from lpe_eval.measure.memory import peak_memory_mib
from lpe_eval.measure.progress import Advance
from lpe_eval.measure.score import target_losses
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.model.needed_memory import free_memory, shortfall
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.table import BLOCK_TARGETS, BlockSum, CellKey, Cost, Facts, Measurement, PositionSum


class Plan(NamedTuple):
    """The windows of every protocol at one length."""

    length: int
    windows: Mapping[CellKey, Sequence[Window]]


class _Span(NamedTuple):
    """What is fed to the model; windows that differ only in what they score share it."""

    document: int
    start: int
    stop: int
    bos: bool


class _Forward(NamedTuple):
    losses: dict[_Span, NDArray[np.float64]]
    """Nats of the last targets of each span, as many as any protocol scores."""
    seconds: dict[_Span, float]
    batch_tokens: int


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
        advance: progress.
    """
    highest = max((int(each.tokens.max()) for each in documents if len(each.tokens)), default=-1)
    for plan in sorted(plans, key=lambda each: each.length):
        wanted = _spans(plan)
        total = sum(_fed(span) for span in wanted)
        unknown = max(highest, bos_id if bos_id is not None and any(span.bos for span in wanted) else -1)
        if unknown >= model.facts.vocab_size:
            advance(total)
            note = f"the text holds the token {unknown} and the model has {model.facts.vocab_size} symbols"
            yield from (_without_value(key, facts, model.attention, "failed", note) for key in plan.windows)
            continue
        short = _shortfall(model, wanted)
        if short:
            advance(total)
            note = f"a window of {plan.length} tokens {short}"
            yield from (_without_value(key, facts, model.attention, "failed", note) for key in plan.windows)
            continue
        left = total

        def counted(done: int) -> None:
            nonlocal left
            left -= done
            advance(done)

        try:
            forward = _forward(model, documents, wanted, bos_id, batch_tokens, seed + plan.length, counted)
        except Exception as error:
            # Encodings and kernels may be anybody's; what they raise costs this length alone.
            if is_not_deterministic(error):
                raise
            advance(left)
            status, note = _why_without_value(error, plan.length)
            yield from (_without_value(key, facts, model.attention, status, note) for key in plan.windows)
            continue
        batch_tokens = forward.batch_tokens
        users = dict.fromkeys(wanted, 0)
        for windows in plan.windows.values():
            for window in windows:
                users[_span(window)] += 1
        peak = peak_memory_mib(model.device)
        for key, windows in plan.windows.items():
            blocks, positions = _sums(documents, windows, forward.losses)
            shares = [1 / users[_span(each)] for each in windows]
            cost = Cost(
                seconds=sum(forward.seconds[_span(each)] * share for each, share in zip(windows, shares, strict=True)),
                n_forward_tokens=round(sum(each.n_input * share for each, share in zip(windows, shares, strict=True))),
                n_windows=len(windows),
                n_shared_windows=sum(users[_span(each)] > 1 for each in windows),
                peak_memory_mib=peak,
                batch_tokens=batch_tokens,
            )
            yield _measured(key, facts, model.attention, blocks, positions, cost)


def _shortfall(model: LanguageModel, wanted: Iterable[_Span]) -> str:
    """What is missing for the longest window alone, on a processor; a GPU says so at once."""
    longest = max(map(_fed, wanted), default=0)
    return "" if model.device.type != "cpu" else shortfall(0, 0, model.least_bytes(longest), free_memory())


def distinct_inputs(plan: Plan) -> list[int]:
    """Tokens fed by each window that goes through the model, those of all protocols together."""
    return [_fed(span) for span in _spans(plan)]


def context_bucket_edges(longest: int) -> NDArray[np.int64]:
    """First context size of each bucket: all sizes to 16, then sixteen buckets an octave."""
    fine = np.arange(1, min(16, longest) + 1)
    octaves = 16 * 2 ** (np.arange(1, 16 * 40) / 16)
    edges = np.unique(np.concatenate([fine, np.ceil(octaves).astype(np.int64)]))
    return edges[edges <= longest]


def _spans(plan: Plan) -> dict[_Span, int]:
    """Each distinct span, with how many of its last targets are wanted."""
    wanted: dict[_Span, int] = {}
    for windows in plan.windows.values():
        for window in windows:
            span = _span(window)
            wanted[span] = max(wanted.get(span, 0), window.n_scored)
    return wanted


def _span(window: Window) -> _Span:
    return _Span(window.document, window.start, window.stop, window.bos)


def _fed(span: _Span) -> int:
    return span.stop - 1 - span.start + span.bos


def _forward(
    model: LanguageModel,
    documents: Sequence[EncodedDocument],
    wanted: Mapping[_Span, int],
    bos_id: int | None,
    batch_tokens: int,
    seed: int,
    advance: Advance,
) -> _Forward:
    losses: dict[_Span, NDArray[np.float64]] = {}
    seconds: dict[_Span, float] = {}
    left = sorted(wanted, key=lambda span: (_fed(span), wanted[span], span))
    while left:
        alike = (_fed(left[0]), wanted[left[0]])
        most = max(1, batch_tokens // alike[0])
        batch = [span for span in left[:most] if (_fed(span), wanted[span]) == alike]
        began = time.perf_counter()
        try:
            found = _losses(model, documents, batch, alike[1], bos_id, seed)
        except (RuntimeError, MemoryError) as error:
            if len(batch) == 1 or not out_of_memory(error):
                raise
            batch_tokens = len(batch) // 2 * alike[0]
            _release(model.device)
            continue
        took = max(time.perf_counter() - began, 0.0) / len(batch)
        losses.update(zip(batch, found, strict=True))
        seconds.update(dict.fromkeys(batch, took))
        left = left[len(batch) :]
        advance(alike[0] * len(batch))
    return _Forward(losses, seconds, batch_tokens)


def _losses(
    model: LanguageModel,
    documents: Sequence[EncodedDocument],
    spans: Sequence[_Span],
    scored: int,
    bos_id: int | None,
    seed: int,
) -> NDArray[np.float64]:
    windows = [Window(each.document, each.start, each.stop, each.stop - scored, each.bos) for each in spans]
    batch = batch_of(windows, documents, bos_id, model.device)
    found = target_losses(model, batch, torch.Generator().manual_seed(seed))
    return found.double().cpu().numpy()


def _why_without_value(error: Exception, length: int) -> tuple[str, str]:
    """Status and note of the cells of a length at which the model raised an error."""
    if isinstance(error, LengthError):
        return "n/a", str(error)
    if out_of_memory(error):
        return "failed", f"out of memory with a single window of {length} tokens"
    return "failed", one_sentence(error)


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _sums(
    documents: Sequence[EncodedDocument], windows: Sequence[Window], losses: Mapping[_Span, NDArray[np.float64]]
) -> tuple[tuple[BlockSum, ...], tuple[PositionSum, ...]]:
    longest = max((window.n_input for window in windows), default=1)
    edges = context_bucket_edges(longest)
    by_context = np.zeros((2, len(edges)))
    by_block: dict[tuple[int, int], NDArray[np.float64]] = {}
    for window in windows:
        nats = losses[_span(window)][-window.n_scored :]
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
) -> Measurement:
    if not blocks:
        return _without_value(key, facts, attention, "n/a", "no target is scored at this length")
    bad = sum(block.n_nonfinite for block in blocks)
    note = f"{bad} scored targets have a loss that is not finite" if bad else ""
    return Measurement(key, facts, attention, blocks, positions, cost, "error" if bad else "ok", note)


def _without_value(key: CellKey, facts: Facts, attention: str, status: str, note: str) -> Measurement:
    return Measurement(key, facts, attention, (), (), None, status, note)
