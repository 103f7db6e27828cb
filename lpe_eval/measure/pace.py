"""How fast it goes, and how long it will take: told beside a progress bar.

Tokens of long windows take longer, and how much longer is the model's own affair. So what is left is reckoned from
what was measured: at a length that was begun, from its own seconds for each token; at another one, from the lengths
of that model on both sides of it, or the two nearest, by a straight line (matrices cost the same for each token,
attention grows with the length); for a model that was not begun, as for the others on average.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from lpe_eval.measure.plan import work_per_token
from lpe_eval.measure.progress import Advance, takes_left


class _Seen(NamedTuple):
    tokens: int
    seconds: float

    @property
    def each(self) -> float:
        return self.seconds / self.tokens


class Pace:
    """Counts tokens by model and length, and tells a progress bar of them.

    Args:
        tokens: how many there are to do, by model and length.
        advance: the bar's.
        clock: seconds from any fixed moment.
    """

    def __init__(
        self, tokens: Mapping[tuple[str, int], int], advance: Advance, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._left, self._advance, self._clock = dict(tokens), advance, clock
        self._told = takes_left(advance)
        self._seen: dict[tuple[str, int], _Seen] = {}
        self._now: tuple[str, int] | None = None
        self._began = 0.0

    def begin(self, model: str, length: int, description: str) -> None:
        """From now on a model is measured at a length."""
        self._now, self._began = (model, length), self._clock()
        self._tell(0, description)

    def done(self, tokens: int) -> None:
        """So many tokens more are done."""
        assert self._now is not None
        before = self._seen.get(self._now, _Seen(0, 0.0))
        self._seen[self._now] = _Seen(before.tokens + tokens, self._clock() - self._began)
        self._left[self._now] = max(0, self._left.get(self._now, 0) - tokens)
        self._tell(tokens)

    def pass_over(self, model: str, length: int) -> None:
        """What is left of a model at a length will not be done."""
        skipped, self._left[model, length] = self._left.get((model, length), 0), 0
        self._seen.pop((model, length), None)
        self._tell(skipped)

    def _tell(self, tokens: int, description: str | None = None) -> None:
        self._advance(tokens, description, **({"left": self.left()} if self._told else {}))

    def left(self) -> float | None:
        """Seconds that the rest will take; None before anything is known."""
        if not any(each.tokens for each in self._seen.values()):
            return None
        rest = ((model, length, tokens) for (model, length), tokens in self._left.items() if tokens)
        return sum((tokens * self._each(model, length) for model, length, tokens in rest), 0.0)

    def _each(self, model: str, length: int) -> float:
        own = self._of_model(model, length)
        if own is not None:
            return own
        others = [self._of_model(name, length) for name in {name for name, _ in self._seen}]
        known = [each for each in others if each is not None]
        return sum(known) / max(1, len(known))

    def _of_model(self, model: str, length: int) -> float | None:
        """Seconds of a token at a length, from what was seen of the model."""
        seen = {at: each for (name, at), each in self._seen.items() if name == model and each.tokens}
        if not seen:
            return None
        if length in seen:
            return seen[length].each
        near = sorted(sorted(seen, key=lambda at: abs(at - length))[:2])
        if len(near) == 1:
            return seen[near[0]].each * work_per_token(length) / work_per_token(near[0])
        low, high = near
        slope = max(0.0, (seen[high].each - seen[low].each) / (high - low))
        return max(seen[low].each + slope * (length - low), 0.25 * seen[low].each)
