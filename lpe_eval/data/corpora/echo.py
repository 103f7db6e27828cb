"""Values that come back whenever their name does, from every distance alike, and what the best guess of them costs.

A document is a list of records: a blank, a name, and the value of that name. Each document has values of its own for
all names, drawn symbol by symbol, uniformly. So the value behind a name that was there before is known, and the value
of another one is not, whatever else was read. Names are drawn one by one and by themselves: first one of `octaves`
groups, all alike, then a name of the group; group k has 2^k names. A name of group k comes back after octaves * 2^k
records on average, so that each doubling of the context, far or near, shows as many more values as the last one did:
with the defaults a twelfth of all records, from 96 to 196,608 tokens. A name is what is found again, not a distance,
so a model that knows no positions can do it as well, and one that was trained on short windows has learned how.

The best guess of those who see a window alone, to whom it may begin at any place of a record alike:

    a blank     costs nothing once one was seen;
    a name      costs -ln of its probability, always, symbol by symbol;
    a value     costs nothing where the window showed a record of that name before; else ln(symbols) a symbol.

What comes before the first blank is read with each place of a record as likely as any that fits so far. The rest of
the record in which a window begins may lack its name. Then it may be of the name that comes later, as likely as this
name is among those that still can be, and the guess of that name's value is the mixture. All of it is exact;
tests/data/test_echo.py has every window of small alphabets by enumeration.

Options beside those of all generated text: `octaves`, and `value`, the symbols of a value. A name has as many symbols
as it takes to tell 2^octaves names apart: two of 64.
"""

import math
from collections.abc import Mapping
from functools import cached_property, partial
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from lpe_eval.data.corpus import Optimum
from lpe_eval.data.generated import SYMBOLS, Generated, GeneratedOptions, below, times_before, words

_BLANK = " "


class Echo(Generated):
    """See the module's docstring."""

    class Options(GeneratedOptions):
        octaves: int = Field(default=12, ge=1, le=16, strict=True)
        value: int = Field(default=5, ge=1, le=64, strict=True)

    options: Options
    Options: ClassVar = Options

    def draw(self, key: str) -> str:
        asked, law = self.options, self._law
        letters = [SYMBOLS[below(word, asked.symbols)] for word in words(f"{key} values", asked.value << asked.octaves)]
        count = -(-asked.length // law.period)
        drawn = words(f"{key} names", 2 * count)
        records: list[str] = []
        for which, place in zip(drawn, drawn, strict=True):
            group = 1 << below(which, asked.octaves)
            name = group + below(place, group)
            records += [_BLANK, _spelled(name, law), *letters[name * asked.value : (name + 1) * asked.value]]
        return "".join(records)[: asked.length]

    def optimum(self) -> Optimum:
        law = self._law
        return Optimum(SYMBOLS[: law.symbols] + _BLANK, partial(_losses, law))

    @cached_property
    def _law(self) -> "_Law":
        asked = self.options
        width = next(size for size in range(1, 17) if asked.symbols**size >= 1 << asked.octaves)
        names = np.arange(asked.symbols**width)
        group = np.floor(np.log2(np.maximum(names, 1))).astype(np.int64)
        there = (names > 0) & (names < 1 << asked.octaves)
        return _law_of(asked.symbols, width, asked.value, np.where(there, 0.5**group / asked.octaves, 0.0))


class _Law(NamedTuple):
    """What is known of all documents.

    Attributes:
        symbols: how many there are; a blank is one more.
        width: symbols of a name.
        value: symbols of a value.
        names: the probability of each name, by its number.
        shares: the probability of what stands in a name from one place to another, by its number; the rest is anything.
    """

    symbols: int
    width: int
    value: int
    names: Float[np.ndarray, " m"]
    shares: Mapping[tuple[int, int], Float[np.ndarray, " _s"]]

    @property
    def period(self) -> int:
        """Characters of a record."""
        return 1 + self.width + self.value


def _law_of(symbols: int, width: int, value: int, names: Float[np.ndarray, " m"]) -> _Law:
    shares: dict[tuple[int, int], Float[np.ndarray, " _s"]] = {}
    for stop in range(width + 1):
        for start in range(stop + 1):
            shape = [symbols**size for size in (start, stop - start, width - stop)]
            shares[start, stop] = names.reshape(shape).sum(axis=(0, 2))
    return _Law(symbols, width, value, names, shares)


def _spelled(name: int, law: _Law) -> str:
    places = (name // law.symbols**power % law.symbols for power in reversed(range(law.width)))
    return "".join(map(SYMBOLS.__getitem__, places))


def _losses(law: _Law, window: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    blanks = np.flatnonzero(window == law.symbols)
    first = int(blanks[0]) if len(blanks) else len(window)
    nats = np.concatenate([_until_blank(law, window[: first + 1]), np.zeros(max(0, len(window) - first - 1))])
    if first == len(window):
        return nats
    start = -first % law.period
    count = -(-(len(window) - first) // law.period)
    padded = np.full(count * law.period, -1)
    padded[: len(window) - first] = window[first:]
    records, found = padded.reshape(count, law.period), np.zeros((count, law.period))
    names = _names(law, records, found)
    known = {1: [_number(law, window[: law.width])]}.get(start, [])
    new = np.flatnonzero((times_before(names) == 0) & ~np.isin(names, known))
    found[new, 1 + law.width :] = math.log(law.symbols)
    if start > 1:
        _compare(law, start, window[:first], records, names, new, found)
    nats[first + 1 :] = found.reshape(-1)[1 : len(window) - first]
    return nats


def _until_blank(law: _Law, window: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The losses up to the first blank; each place of a record is as likely as any to be that of the first symbol."""
    starts = np.arange(law.period)
    weights, nats = np.full(law.period, 1 / law.period), np.zeros(len(window))
    for at, symbol in enumerate(window.tolist()):
        each = np.array([_chance(law, window[:at].tolist(), int(start), symbol) for start in starts])
        nats[at] = -math.log(weights @ each)
        weights = weights * each / (weights @ each)
    return nats


def _chance(law: _Law, before: list[int], start: int, symbol: int) -> float:
    """The probability of the next symbol where a window that had no blank yet began at a place of a record."""
    place = start + len(before)
    if symbol == law.symbols or place in (0, law.period):
        return float(symbol == law.symbols and place in (0, law.period))
    if not 0 < place < law.period:
        return 0.0
    if place > law.width:
        return 1 / law.symbols
    known = before[max(0, 1 - start) :]
    start = place - 1 - len(known)
    given = law.shares[start, place - 1][_number(law, known)]
    return float(law.shares[start, place][_number(law, [*known, symbol])] / given) if given else 0.0


def _number(law: _Law, places: Int[np.ndarray, " s"] | list[int]) -> int:
    found = 0
    for each in places:
        found = found * law.symbols + int(each)
    return found


def _names(law: _Law, records: Int[np.ndarray, "r p"], found: Float[np.ndarray, "r p"]) -> Int[np.ndarray, " _named"]:
    """The numbers of all names that are there as a whole; puts what their symbols cost into `found`."""
    begun = np.zeros(len(records), dtype=np.int64)
    for place in range(1, law.width + 1):
        rows = len(records) - (records[-1, place] < 0)
        given, begun = law.shares[0, place - 1][begun[:rows]], begun[:rows] * law.symbols + records[:rows, place]
        found[:rows, place] = np.log(given / law.shares[0, place][begun])
    return begun


def _compare(
    law: _Law,
    start: int,
    lead: Int[np.ndarray, " s"],
    records: Int[np.ndarray, "r p"],
    names: Int[np.ndarray, " _named"],
    new: Int[np.ndarray, " _new"],
    found: Float[np.ndarray, "r p"],
) -> None:
    """Puts into `found` what new values cost where they may be the one in which the window began.

    Args:
        law: of all documents.
        start: the place of a record at which the window begins, so that its name is not there as a whole.
        lead: what the window shows of that record.
        records: all further ones.
        names: theirs.
        new: those whose name was not there before, in their order.
        found: the losses.
    """
    cut = max(0, law.width + 1 - start)
    ends = np.arange(len(law.names)) % law.symbols**cut == _number(law, lead[:cut])
    chances = np.where(ends, law.names, 0.0)
    left, fitting = float(chances.sum()), 0.0
    seen = lead[cut:].tolist()
    for row in new.tolist():
        weight = float(chances[names[row]])
        if not weight:
            continue
        left -= weight
        for place in range(law.period - len(seen), law.period):
            symbol, rest = int(records[row, place]), left + fitting
            if symbol < 0:
                break
            same = symbol == seen[place - law.period]
            found[row, place] = -math.log((weight * same + rest / law.symbols) / (weight + rest))
            weight = weight * law.symbols * same
        fitting += weight
