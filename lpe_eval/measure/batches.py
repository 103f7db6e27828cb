"""Windows become batches, and batches become the losses of each window.

Choices:
    * The longest windows come first: what does not fit, or has no positions, says so in the length that was asked
      for, and the time that is left is known early. The order changes no value.
    * A batch that memory does not hold is halved and tried again.
    * A batch may be slower than its windows one by one: a scan written in plain Python, or numbers that leave the
      cache. Where `adapt` allows it, one window is timed beside the first batch of each kind, and batches shrink while
      that is so. What is scored stays the same; rounding may change as with another `--batch-size`.
"""

import gc
import time
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lpe_eval.data.batch import batch_of
from lpe_eval.data.selection import EncodedDocument
from lpe_eval.data.windows import Window
from lpe_eval.measure.layers import told_by_layer
from lpe_eval.measure.progress import Advance
from lpe_eval.measure.score import target_losses
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.table import CellKey

_SLOWER = 1.25
"""Times as slow as its windows one by one: a batch that is measured slower than that, twice, shrinks."""

_NOTICED = 0.2
"""Seconds of a batch; of a faster one nobody notices whether it is slow, and no machine is that even."""


class Plan(NamedTuple):
    """The windows of every protocol at one length.

    Attributes:
        length: of all of them.
        windows: of each cell that is to be measured.
        finished: of the cells that an earlier start has measured.
    """

    length: int
    windows: Mapping[CellKey, Sequence[Window]]
    finished: Mapping[CellKey, Sequence[Window]] = {}

    @property
    def whole(self) -> "Plan":
        """The plan as if nothing had been measured: what decides which windows stand in one batch."""
        return self._replace(windows={**self.windows, **self.finished}, finished={})


class Span(NamedTuple):
    """What is fed to the model; windows that differ only in what they score share it."""

    document: int
    start: int
    stop: int
    bos: bool


class Texts(NamedTuple):
    """What a model is fed from.

    Attributes:
        documents: what spans count in.
        bos_id: the token of windows with BOS.
        seed: of sampled positions; every pass starts from the same draw.
    """

    documents: Sequence[EncodedDocument]
    bos_id: int | None
    seed: int


class Forward(NamedTuple):
    """What came of all spans of a length.

    Attributes:
        losses: nats of the last targets of each span, as many as any protocol scores.
        seconds: of each span.
        batch_tokens: token budget of a batch at the end.
    """

    losses: dict[Span, NDArray[np.float64]]
    seconds: dict[Span, float]
    batch_tokens: int


class WindowError(Exception):
    """Whatever a model raised, and the tokens of the windows at which it did; the cause is what was raised."""

    def __init__(self, tokens: int) -> None:
        super().__init__(f"a window of {tokens} tokens failed")
        self.tokens = tokens


def spans_of(plan: Plan) -> dict[Span, int]:
    """Each distinct span, with how many of its last targets are wanted."""
    wanted: dict[Span, int] = {}
    for windows in plan.windows.values():
        for window in windows:
            span = span_of(window)
            wanted[span] = max(wanted.get(span, 0), window.n_scored)
    return wanted


def span_of(window: Window) -> Span:
    """What of a window is fed."""
    return Span(window.document, window.start, window.stop, window.bos)


def fed(span: Span) -> int:
    """Tokens, BOS included."""
    return span.stop - 1 - span.start + span.bos


def batches_of(wanted: Mapping[Span, int]) -> dict[tuple[int, int], list[Span]]:
    """Spans that can stand in one batch, by tokens fed and targets wanted; the longest first."""
    kinds: dict[tuple[int, int], list[Span]] = {}
    for span in sorted(wanted, key=lambda each: (-fed(each), wanted[each], each)):
        kinds.setdefault((fed(span), wanted[span]), []).append(span)
    return kinds


def run_batches(
    model: LanguageModel,
    texts: Texts,
    wanted: Mapping[Span, int],
    needed: Collection[Span],
    batch_tokens: int,
    advance: Advance,
    adapt: bool,
) -> Forward:
    """The losses of all spans that are needed.

    Args:
        model: what is measured.
        texts: what is fed.
        wanted: the spans of a whole length, and how many of their last targets count. Batches are made of all of them,
            since the last bits of a loss may depend on what stands in a batch with it, and a run that was killed and
            goes on must end with the same bytes.
        needed: those whose losses are asked for; a batch without any is left out.
        batch_tokens: token budget of a batch.
        advance: told of tokens, layer by layer where the model has layers.
        adapt: whether a batch that is slower than its windows one by one may shrink.

    Raises:
        WindowError: of anything that the model raises but Ctrl-C.
    """
    found = Forward({}, {}, batch_tokens)
    for (tokens, scored), spans in batches_of(wanted).items():
        try:
            found = _run_kind(model, texts, tokens, scored, spans, needed, found, advance, adapt)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            # Somebody's module may raise a class of its own, or call sys.exit.
            raise WindowError(tokens) from error
    return found


def _run_kind(
    model: LanguageModel,
    texts: Texts,
    tokens: int,
    scored: int,
    left: list[Span],
    needed: Collection[Span],
    found: Forward,
    advance: Advance,
    adapt: bool,
) -> Forward:
    """Adds the losses of spans of one size to what was found before."""
    batch_tokens, alone, slow = found.batch_tokens, None, 0
    with told_by_layer(model, advance) as passes:
        while left:
            batch = left[: max(1, batch_tokens // tokens)]
            asked = sum(span in needed for span in batch)
            if not asked:
                left = left[len(batch) :]
                continue
            began = time.perf_counter()
            passes.begin(tokens * asked)
            losses = None
            try:
                losses = losses_of(model, texts, batch, scored)
            except Exception as error:
                if len(batch) == 1 or not out_of_memory(error):
                    raise
            if losses is None:
                # Not before: until here the error held all that was computed when it was raised.
                passes.fail()
                batch_tokens = len(batch) // 2 * tokens
                release(model.device)
                continue
            whole = max(time.perf_counter() - began, 0.0)
            took = whole / len(batch)
            found.losses.update(zip(batch, losses, strict=True))
            found.seconds.update(dict.fromkeys(batch, took))
            left = left[len(batch) :]
            passes.end()
            if adapt and whole > _NOTICED and len(batch) > 1 and len(left) > 1:
                alone = alone or _seconds_alone(model, texts, batch[0], scored)
                slow = slow + 1 if took > _SLOWER * alone else 0
                if slow > 1 or took > 2 * _SLOWER * alone:
                    batch_tokens, slow = max(1, int(len(batch) / max(2.0, took / alone))) * tokens, 0
    return found._replace(batch_tokens=batch_tokens)


def _seconds_alone(model: LanguageModel, texts: Texts, span: Span, scored: int) -> float:
    """Of one window; the faster of two passes, since the first of its shape may be slow."""
    seconds: list[float] = []
    for _ in range(2):
        began = time.perf_counter()
        losses_of(model, texts, [span], scored)
        seconds.append(max(time.perf_counter() - began, 1e-9))
    return min(seconds)


def losses_of(model: LanguageModel, texts: Texts, spans: Sequence[Span], scored: int) -> NDArray[np.float64]:
    """Nats [b, r] of the last `scored` targets of spans of one size, on the CPU.

    Raises:
        LengthError: the model has no position for some of the tokens.
    """
    windows = [Window(each.document, each.start, each.stop, each.stop - scored, each.bos) for each in spans]
    batch = batch_of(windows, texts.documents, texts.bos_id, model.device)
    # On Apple's MPS there is no float64.
    return target_losses(model, batch, torch.Generator().manual_seed(texts.seed)).cpu().double().numpy()


def release(device: torch.device) -> None:
    """Gives memory back that nobody uses."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    elif device.type == "xpu":
        torch.xpu.empty_cache()
