"""How long a run will take, told before it: one batch of each length that was asked for, as the run would make it.

Choices:
    * The batches are real ones, with the text, the size and the scored targets of the run. Of windows that differ in
      what they score, those of the most tokens are timed; the others are taken to be as fast.
    * A length of which a batch would take more than `_LONGEST` seconds, by a straight line through the two lengths
      before it, is not tried: seconds of a token are a line in the length.
    * What goes wrong at a length is told in its place, as the run would.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lpe_eval.errors import LengthError, one_sentence
from lpe_eval.measure.batches import Plan, Span, Texts, batches_of, fed, losses_of, release, spans_of
from lpe_eval.measure.determinism import is_not_deterministic
from lpe_eval.model.language_model import LanguageModel
from lpe_eval.out_of_memory import out_of_memory

_LONGEST = 20.0
"""Seconds of a batch that is timed."""
_TWICE = 2.0
"""Seconds of a batch that is timed once more, because the first of its kind is slower."""
_SHARE = 0.2
"""Of the tokens of a length: kinds of windows with fewer are not timed by themselves."""


class Guess(NamedTuple):
    """What a length will take.

    Attributes:
        seconds: in the model; None where it has no value.
        why_not: the status and the sentence of its cells, then.
    """

    seconds: float | None
    why_not: str = ""


class Stopwatch:
    """Times a model at one length after the other, the shortest first.

    Args:
        model: what is timed.
        texts: what it would be fed.
        batch_tokens: token budget of a batch at a length.
    """

    def __init__(self, model: LanguageModel, texts: Texts, batch_tokens: Callable[[int], int]) -> None:
        self._model, self._texts, self._batch_tokens = model, texts, batch_tokens
        self._known: list[tuple[int, float]] = []
        """Lengths, and seconds of a token there."""

    def seconds_of(self, plan: Plan) -> Guess:
        """Seconds in the model for all windows of a length, by no more than one batch of each kind."""
        wanted = spans_of(plan)
        total, why = sum(map(fed, wanted)), ""
        if not wanted:
            return Guess(0.0)
        try:
            each = self._each(plan.length, wanted, total)
        except Exception as error:
            if is_not_deterministic(error):
                raise
            why = f"{'n/a' if isinstance(error, LengthError) else 'failed'}: {one_sentence(error)}"
            if out_of_memory(error):
                why = f"failed: out of memory with a single window of {plan.length} tokens"
            each = None
        if each is None:
            release(self._model.device)
            return Guess(None, why)
        return Guess(each * total)

    def seconds_to_try(self, lengths: Sequence[int]) -> float:
        """Seconds of the two passes at each of these lengths by which a leak is looked for."""
        known = dict(self._known)
        return sum((2 * length * known.get(length, 0.0) for length in lengths), 0.0)

    def _each(self, length: int, wanted: dict[Span, int], total: int) -> float:
        if len(self._known) > 1:
            (low, first), (high, second) = self._known[-2:]
            guessed = second + max(0.0, (second - first) / (high - low)) * (length - high)
            if guessed * max(length, self._batch_tokens(length)) > _LONGEST:
                self._known.append((length, guessed))
                return guessed
        kinds = batches_of(wanted)
        # The longest kind is always tried, because that is what may not fit.
        shares = {kind: kind[0] * len(spans) / total for kind, spans in kinds.items()}
        timed = [next(iter(kinds)), *(kind for kind, share in list(shares.items())[1:] if share > _SHARE)]
        found = {kind: self._timed(kinds[kind], *kind, self._batch_tokens(length)) for kind in timed}
        covered = sum(shares[kind] for kind in timed)
        each = sum(found[kind] * shares[kind] for kind in timed) / covered
        self._known.append((length, each))
        return each

    def _timed(self, spans: list[Span], tokens: int, scored: int, batch_tokens: int) -> float:
        """Seconds of a token, in a batch of the size that most batches of this kind have."""
        size = max(1, batch_tokens // tokens)
        if not self._known:
            # Libraries load and threads start in the first pass.
            losses_of(self._model, self._texts, spans[:1], scored)
        while True:
            batch, too_large = spans[:size], False
            try:
                took = self._pass(batch, scored)
                if took < _TWICE:
                    took = min(took, self._pass(batch, scored))
                return took / (tokens * len(batch))
            except Exception as error:
                if len(batch) == 1 or not out_of_memory(error):
                    raise
                too_large = True
            if too_large:
                size = len(batch) // 2
                release(self._model.device)

    def _pass(self, batch: list[Span], scored: int) -> float:
        began = time.perf_counter()
        losses_of(self._model, self._texts, batch, scored)
        return max(time.perf_counter() - began, 0.0)
