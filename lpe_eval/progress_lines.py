"""Progress where there is no bar, as in the log of a CI job: a plain line now and then.

Choices:
    * A line for each tenth of the work. Beside them one after a while without any: a minute at first, a twentieth of
      the time that has passed later, and never more than five minutes, since some machines end a job that is silent
      for ten. So a job of ten hours has some two hundred lines, and one of a minute has ten.
    * The line after a while comes even where nothing was finished in between, from a thread of its own: a long batch
      is not silence.
    * What is left is reckoned from what is done, or told by whoever knows better, less what has passed since. Where
      that has run out, nothing is promised.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lpe_eval.screen import clock, short_count

_FIRST = 15.0
"""Seconds until the first line, where nothing was finished."""
_SHORTEST, _SHARE, _LONGEST = 60.0, 1 / 20, 300.0


class Pace:
    """How much is done in which time, and how long the rest will take."""

    def __init__(self, total: int) -> None:
        self._total, self._start, self._told, self._told_at = total, time.monotonic(), None, 0.0
        self.finished = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return max(time.monotonic() - self._start, 1e-9)

    @property
    def percent(self) -> int:
        """Of the work, rounded down."""
        return self.finished * 100 // self._total

    @property
    def tenth(self) -> int:
        """Tenths of the work that are done."""
        return self.finished * 10 // self._total

    def add(self, done: int, left: float | None) -> None:
        """Counts what is done; `left` is for who knows better than a division how many seconds are left."""
        self.finished += done
        self._told, self._told_at = left, 0.0 if left is None else self.elapsed

    def speed(self, unit: str) -> str:
        """How much of a unit is done in a second, or how many seconds one takes."""
        per_second = self.finished / self.elapsed
        if 0 < per_second < 1:
            return f"{1 / per_second:.3g} s/{unit.removesuffix('s')}"
        return f"{short_count(per_second)} {unit}/s"

    def left(self) -> str:
        """The rest, as the beginning of a list; empty where nothing is done yet, or where it should be over."""
        if self.finished <= 0 and self._told is None:
            return ""
        if self._told is None:
            return f"{clock(max(self.elapsed * (self._total - self.finished) / self.finished, 0))} left, "
        left = self._told - (self.elapsed - self._told_at)
        return f"{clock(left)} left, " if left >= 0 or self._told <= 0 else ""

    def amount(self, unit: str) -> str:
        """What is done, of what."""
        return f"{short_count(self.finished)} of {short_count(self._total)} {unit}"


@contextmanager
def told_in_lines(total: int, unit: str, say: Callable[[str], None]) -> Iterator[Callable[..., None]]:
    """Tells work in lines; yields `advance(done, description=None, left=None)`.

    Args:
        total: how much there is to do.
        unit: of what.
        say: takes a line, from any thread.
    """
    lines, over = _Lines(total, unit, say), threading.Event()
    watching = threading.Thread(target=lines.watch, args=(over,), name="progress", daemon=True)
    watching.start()
    try:
        yield lines.advance
    finally:
        over.set()
        watching.join()


class _Lines:
    def __init__(self, total: int, unit: str, say: Callable[[str], None]) -> None:
        self._pace, self._unit, self._say = Pace(total), unit, say
        self._tenth, self._what, self._spoke, self._many = 0, "", self._pace.elapsed, 0
        self._alone = threading.Lock()

    def advance(self, done: int, description: str | None = None, left: float | None = None) -> None:
        """So much more is done; a line, where one is due."""
        with self._alone:
            self._pace.add(done, left)
            self._what = self._what if description is None else f"{description}: "
            tenth, elapsed = self._pace.tenth, self._pace.elapsed
            if tenth > self._tenth or elapsed - self._spoke >= _patience(elapsed):
                self._tenth = max(self._tenth, tenth)
                self._tell()

    def watch(self, over: threading.Event) -> None:
        """Tells a line after each while in which there was none, until it is over."""
        before = 0
        while not over.wait(_patience(self._pace.elapsed) if self._many else _FIRST):
            with self._alone:
                if self._many == before and not over.is_set():
                    self._tell()
                before = self._many

    def _tell(self) -> None:
        self._many, self._spoke = self._many + 1, self._pace.elapsed
        times = f"{clock(self._pace.elapsed)} elapsed, {self._pace.left()}{self._pace.speed(self._unit)}"
        self._say(f"{self._what}{self._pace.percent} % ({self._pace.amount(self._unit)}, {times})")


def _patience(elapsed: float) -> float:
    """Seconds of silence after which a line is due."""
    return min(max(_SHORTEST, elapsed * _SHARE), _LONGEST)
