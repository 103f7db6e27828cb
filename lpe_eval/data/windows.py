"""How documents are cut into windows of a given length, and which targets of a window are scored.

A window of length L feeds at most L tokens and predicts the token after each of them. This is the
only place where inputs and targets are shifted by one. Windows are plain offsets into a document,
so nothing is carried from one batch to the next, and no window is ever padded or made longer.

The four protocols, drawn for one document of ten tokens `0123456789` and L = 4. A window shows the
tokens it feeds; the line below has `^` under the input whose *next* token is scored.

    nonoverlap      0123      4567      8        every target once; contexts 1 .. L
                    ^^^^      ^^^^      ^        the last window is the tail: it keeps the context it has

    sliding, S = 2  0123    2345    4567    678  every target once; after the first window a target
                    ^^^^      ^^      ^^      ^  sees at least L - S + 1 tokens

    last, k = 2     0123      4567               the last k targets of each full window: L - k + 1 .. L
                      ^^        ^^

    anchored, k = 2, longest length 6, S = 2     blocks of k targets are chosen once: the first where the
      L = 6         012345    234567             longest window first fits, then one every S tokens (targets
                        ^^        ^^             5 6 and 7 8 here). Every length scores them, with
      L = 4           2345      4567             L - k + 1 .. L tokens of context, so that a difference
                        ^^        ^^             between two lengths is due to context alone

`nonoverlap` is `sliding` with S = L. Token 0 of a document has no context and is not scored unless
a beginning-of-sequence token (BOS) precedes it. BOS counts towards L and is never scored:

    bos="never"          windows as drawn
    bos="always"         every window is BOS and then L - 1 tokens. A window then predicts its own first
                         token from BOS alone: nonoverlap feeds B012 B456 B89 and predicts 0123 4567 89
    bos="first-window"   the document is read as if BOS were its first token: B012 3456 78

With anchored windows and "first-window", a window has BOS if it reaches back that far.

The tail is the window that reaches the end of a document before it is full. It is scored with the
context it has (tail="score") or left out (tail="drop"). It is never extended to the left: that gives
its targets more context than the others. `last` and `anchored` have no tail.

Other tools' flags, in ours (docs/coming-from.md has both numbers of each row and what is left of the difference):

    lm-eval         loglikelihood_rolling            nonoverlap, length L, bos first-window (+)
    Hugging Face    max_length L, stride s           sliding, length L - 1, stride s, packed (*)
    Hugging Face    stride = max_length = L          anchored, length L - 1, last_k L - 1, stride L, packed (*)
    evaluate        max_length n                     nonoverlap, length n - 1, tail drop, bos always (*, +)
    yarn            --sliding-window s               sliding, length n - 1, stride s (*)
    yarn            --truncate                       nonoverlap, length n - 1, tail drop, bos always (*, +)
    fairseq         --tokens-per-sample T            sliding, length T, stride T - W
                    --context-window W               (ALiBi's sliding evaluation has W = T - 1: stride 1)
    llama.cpp       -c n                             anchored, length n - 1, last_k n / 2 - 1, stride n, packed (*)
    llama.cpp       -c n --ppl-stride s              anchored, length n + s / 2 - 1, last_k s, stride s, packed
    KERPLE          packed evaluation windows        nonoverlap on a packed corpus
    DAPE            last 256 tokens                  last, last_k 256
    LongLoRA        stride 256, re-scores overlaps   has no equal here: a target would count more than once

(*) These feed n tokens and score targets inside those n only, so their window has n - 1 targets and is
our window of length n - 1.
(+) Equal for part of the text: lm-eval extends its last window to the left; `evaluate` and `--truncate`
read the first window of each text alone, and `evaluate` averages perplexities instead of losses.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from lpe_eval.errors import SpecError
from lpe_eval.spec.protocol_spec import ProtocolSpec

Bos = Literal["always", "first-window", "never"]
Tail = Literal["score", "drop"]

DEFAULT_LAST_K = 256
"""DAPE's number of scored tokens in a window."""


class Window(NamedTuple):
    """Where a window lies in the token list of its document; BOS has no offset.

    The model is fed `[BOS]` if `bos`, then `tokens[start : stop - 1]`, and predicts
    `tokens[start + 1 : stop]`, with `bos` `tokens[start : stop]`. Of those,
    `tokens[score_from : stop]` are scored.
    """

    document: int
    start: int
    stop: int
    score_from: int
    bos: bool

    @property
    def n_input(self) -> int:
        """Tokens fed, BOS included, and as many are predicted; never above the length."""
        return self.stop - 1 - self.start + self.bos

    @property
    def n_scored(self) -> int:
        """Tokens that count."""
        return self.stop - self.score_from


def plan(
    protocol: ProtocolSpec,
    length: int,
    document_lengths: Sequence[int],
    bos: Bos,
    tail: Tail,
    longest: int,
) -> list[Window]:
    """All windows of one length, document by document and from left to right.

    Args:
        protocol: a protocol that `resolve` has completed.
        length: the most tokens a window feeds.
        document_lengths: tokens in each document, BOS not counted.
        bos: which windows start with BOS.
        tail: what becomes of a window that its document cannot fill.
        longest: the longest length of the sweep; it places the blocks of `anchored`.

    Raises:
        SpecError: the protocol does not fit the length, or is not complete.
    """
    check(protocol, [length])
    if longest < length:
        raise SpecError(f"the longest length is {longest}, so {length} cannot be one of the lengths")
    windows: list[Window] = []
    for document, n_tokens in enumerate(document_lengths):
        if protocol.name in ("nonoverlap", "sliding"):
            found = _sliding(document, n_tokens, length, _stride(protocol, length), bos)
            windows += (each for each in found if tail == "score" or each.n_input == length)
        else:
            windows += _blocks(document, n_tokens, length, longest, protocol, bos)
    return windows


def check(protocol: ProtocolSpec, lengths: Sequence[int]) -> None:
    """Refuses numbers that do not fit each other, before anything is loaded.

    Raises:
        SpecError: a length, the stride or last_k cannot be.
    """
    if not lengths:
        raise SpecError("there are no lengths; give at least one")
    shortest = min(lengths)
    if shortest < 1:
        raise SpecError(f"a length must be at least 1, not {shortest}")
    if protocol.stride is not None:
        if protocol.name not in ("sliding", "anchored"):
            raise SpecError(f"the protocol {protocol.name} has no stride; leave it out, or use sliding or anchored")
        if protocol.stride < 1:
            raise SpecError(f"the stride must be at least 1, not {protocol.stride}")
        if protocol.name == "sliding" and protocol.stride > shortest:
            raise SpecError(
                f"a stride of {protocol.stride} would skip tokens at length {shortest}; "
                f"lower the stride to {shortest} or leave it out for half of each length"
            )
    if protocol.last_k is not None:
        if protocol.name not in ("last", "anchored"):
            raise SpecError(f"the protocol {protocol.name} has no last_k; leave it out, or use last or anchored")
        if protocol.last_k < 1:
            raise SpecError(f"last_k must be at least 1, not {protocol.last_k}")
        if protocol.last_k > shortest:
            raise SpecError(
                f"a window of length {shortest} has no {protocol.last_k} targets; lower last_k or drop that length"
            )
        if protocol.name == "anchored" and protocol.stride is not None and protocol.stride < protocol.last_k:
            raise SpecError(
                f"a stride of {protocol.stride} would score targets of blocks of {protocol.last_k} twice; "
                f"raise the stride to {protocol.last_k} or lower last_k"
            )


def resolve(protocol: ProtocolSpec, lengths: Sequence[int]) -> ProtocolSpec:
    """The protocol with its defaults filled in for a sweep over `lengths`.

    last_k becomes 256, at most the shortest length for `last` and half of it for `anchored`, where
    smaller blocks keep every target's context near L. The stride of `anchored` becomes a quarter of the
    longest length; that of `sliding` stays None, half of each length.

    Raises:
        SpecError: see `check`.
    """
    check(protocol, lengths)
    shortest, changes = min(lengths), {}
    if protocol.last_k is None and protocol.name in ("last", "anchored"):
        most = shortest if protocol.name == "last" else max(1, shortest // 2)
        changes["last_k"] = min(DEFAULT_LAST_K, most)
    if protocol.stride is None and protocol.name == "anchored":
        changes["stride"] = max(max(lengths) // 4, protocol.last_k or changes["last_k"])
    resolved = protocol.model_copy(update=changes)
    check(resolved, lengths)
    return resolved


def _stride(protocol: ProtocolSpec, length: int) -> int:
    if protocol.name == "nonoverlap":
        return length
    return max(1, length // 2) if protocol.stride is None else protocol.stride


def _sliding(document: int, n_tokens: int, length: int, stride: int, bos: Bos) -> Iterator[Window]:
    scored = 0 if bos != "never" else 1
    stop = scored + length
    while scored < n_tokens:
        start, has_bos = _begin(stop, length, bos)
        yield Window(document, start, min(stop, n_tokens), scored, has_bos)
        scored, stop = stop, stop + stride


def _blocks(
    document: int, n_tokens: int, length: int, longest: int, protocol: ProtocolSpec, bos: Bos
) -> Iterator[Window]:
    reach, step = (longest, protocol.stride) if protocol.name == "anchored" else (length, length)
    if protocol.last_k is None or step is None:
        raise SpecError(f"the protocol {protocol.name} has no last_k or stride yet; complete it with windows.resolve")
    first = reach + (bos == "never")
    for stop in range(first, n_tokens + 1, step):
        start, has_bos = _begin(stop, length, bos)
        yield Window(document, start, stop, stop - protocol.last_k, has_bos)


def _begin(stop: int, length: int, bos: Bos) -> tuple[int, bool]:
    """Where a window that feeds `length` tokens and stops at `stop` starts, and whether BOS is one of them."""
    if bos == "always" or (bos == "first-window" and stop == length):
        return stop - length, True
    return stop - 1 - length, False
