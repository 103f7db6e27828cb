"""Which numbers stand beside an axis, and how they are written; plain functions of numbers."""

import math

_DENSER = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0),
    tuple(1 + n / 5 for n in range(45)),
)
_MOST = 8


def short_length(length: float | int) -> str:
    """Tokens as people write them: 512, 2k, 16k."""
    return f"{length / 1024:.0f}k" if length >= 1024 and length % 1024 == 0 else f"{length:.0f}"


def readable(value: float | int) -> str:
    """A number for a tick: 4.5, 100, 30000, and 1e6 from a million on."""
    return f"{value:.0e}".replace("e+0", "e").replace("e+", "e") if value >= 1e6 else f"{value:.6g}"


def readable_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones on a logarithmic axis, few enough for a panel."""
    found: list[float] = []
    for steps in _DENSER:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        finer = [float(f"{step * 10.0**power:.6g}") for power in powers for step in steps]
        finer = [tick for tick in finer if low <= tick <= high]
        if len(finer) > _MOST and len(found) >= 2:
            break
        found = finer
        if len(found) >= 5:
            break
    if len(found) < 2:
        step = 10.0 ** math.floor(math.log10((high - low) / 3))
        found = [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return found[:: math.ceil(len(found) / _MOST)]


def thinned(lengths: list[int]) -> list[int]:
    """Those of some sorted lengths whose labels do not overlap; the longest is always among them."""
    if len(lengths) < 2:
        return lengths
    room = math.log(lengths[-1] / lengths[0]) / 9
    kept = [lengths[-1]]
    for length in reversed(lengths[:-1]):
        if math.log(kept[-1] / length) >= room:
            kept.append(length)
    return kept[::-1]
