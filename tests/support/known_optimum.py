"""Best guesses made slowly: by counting one symbol at a time, and by adding up everything that could have been."""

import math
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise, product

Window = tuple[int, ...]


def counted_losses(window: Window, symbols: int, alpha: Fraction) -> list[float]:
    """Nats of each symbol by the ratio of counts, one step after the other, in exact fractions until the logarithm."""
    pairs: Counter[tuple[int, int]] = Counter()
    rows: Counter[int] = Counter()
    losses = [math.log(symbols)]
    for one, other in pairwise(window):
        share = (pairs[one, other] + alpha) / (rows[one] + symbols * alpha)
        losses.append(math.log(share.denominator) - math.log(share.numerator))
        pairs[one, other] += 1
        rows[one] += 1
    return losses


def chain_probability(path: Window, symbols: int, alpha: Fraction) -> Fraction:
    """The probability of a document's first symbols: Dirichlet-multinomial in its closed form, rising factorials."""
    pairs = Counter(pairwise(path))
    found = Fraction(1, symbols)
    for row in range(symbols):
        counts = [pairs[row, column] for column in range(symbols)]
        for count in counts:
            found *= _rising(alpha, count)
        found /= _rising(symbols * alpha, sum(counts))
    return found


def window_probabilities(length: int, before: int, symbols: int, alpha: Fraction) -> dict[Window, Fraction]:
    """The probability of every window that begins so many symbols inside a document: a sum over all before it."""
    found: dict[Window, Fraction] = {}
    for path in product(range(symbols), repeat=before + length):
        found[path[before:]] = found.get(path[before:], Fraction(0)) + chain_probability(path, symbols, alpha)
    return found


def _rising(value: Fraction, times: int) -> Fraction:
    return math.prod((value + each for each in range(times)), start=Fraction(1))


def echo_probabilities(length: int, symbols: int, octaves: int, value: int) -> dict[Window, Fraction]:
    """The probability of every window of a text of records, to which each place to begin is alike.

    Every value of every name, every sequence of names and every beginning is gone through. A blank is the number after
    those of the symbols.
    """
    width = next(size for size in range(1, 9) if symbols**size >= 2**octaves)
    period = 1 + width + value
    law = {2**group + place: Fraction(1, octaves * 2**group) for group in range(octaves) for place in range(2**group)}
    records = -(-(length + period - 1) // period)
    each = [tuple(name // symbols**power % symbols for power in reversed(range(width))) for name in range(2**octaves)]
    found: dict[Window, Fraction] = {}
    for names in product(law, repeat=records):
        used = sorted(set(names))
        chance = math.prod((law[name] for name in names), start=Fraction(1))
        chance /= period * symbols ** (value * len(used))
        for values in _values(used, symbols, value):
            text = tuple(one for name in names for one in (symbols, *each[name], *values[name]))
            for start in range(period):
                window = text[start : start + length]
                found[window] = found.get(window, Fraction(0)) + chance
    return found


def _values(names: list[int], symbols: int, value: int) -> Iterator[dict[int, Window]]:
    for drawn in product(product(range(symbols), repeat=value), repeat=len(names)):
        yield dict(zip(names, drawn, strict=True))


def losses_by_chain_rule(windows: dict[Window, Fraction], window: Window) -> list[float]:
    """Nats of each symbol of a window given those before it, from the probabilities of all windows of its length."""
    sums = [
        sum((chance for other, chance in windows.items() if other[:size] == window[:size]), Fraction(0))
        for size in range(len(window) + 1)
    ]
    return [
        math.log(before.numerator * after.denominator) - math.log(before.denominator * after.numerator)
        for before, after in pairwise(sums)
    ]


def gain_inside(length: int, before: int, symbols: int, alpha: Fraction) -> float:
    """Nats that the best of all guesses gains over the ratio of counts in a whole window that begins inside a document.

    Both are given the first symbol of the window. It is the expected logarithm of the ratio of what a window has as
    its probability there and at the beginning of a document, where the ratio of counts is exact.
    """
    windows = window_probabilities(length, before, symbols, alpha)
    ratios = ((chance, chance / chain_probability(window, symbols, alpha)) for window, chance in windows.items())
    return sum(float(chance) * math.log(ratio) for chance, ratio in ratios)
