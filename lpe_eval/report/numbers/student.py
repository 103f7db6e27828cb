"""How many standard errors stand for `k` sigmas when the standard error itself comes from few units.

A difference divided by a standard error that was estimated from u units is spread like Student's t with u - 1
degrees of freedom, not like a normal number: beyond 3 standard errors lie 0.13 % of normal numbers, but 1 % of t with
7 degrees of freedom. `student` gives the multiple that leaves as much beyond itself as `k` leaves of a normal one.

Source: the finite sums for whole degrees of freedom, Abramowitz and Stegun (1964), 26.7.3 and 26.7.4. Above 1000
degrees of freedom it is the Cornish-Fisher expansion (26.7.5), which is then right to nine digits.
"""

import functools
import math

_MANY = 1000
MOST_SIGMAS = 6.0
"""Beyond this, what is left of a normal distribution (1e-9) is lost in the rounding of the sums."""


@functools.cache
def student(sigmas: float, freedom: int) -> float:
    """The multiple of a standard error beyond which t lies as rarely as a normal number beyond `sigmas`.

    Args:
        sigmas: from 0 to `MOST_SIGMAS`.
        freedom: units less one, at least 1.
    """
    if freedom > _MANY:
        return expansion(sigmas, freedom)
    return _beyond(0.5 * math.erfc(sigmas / math.sqrt(2)), freedom, sigmas, max(1.0, 2 * sigmas))


@functools.cache
def upper_point(share: float, freedom: int) -> float:
    """The value above which lies `share` of Student's t.

    Args:
        share: above 0, at most a half.
        freedom: degrees of freedom, from 1 to 1000.
    """
    return _beyond(share, freedom, 0.0, 1.0)


def upper_tail(value: float, freedom: int) -> float:
    """Share of Student's t with so many degrees of freedom that lies above `value`, which is not negative."""
    angle = math.atan2(value, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    terms = [term] if freedom > 1 else []
    for step in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (step - 1) / step
        terms.append(term)
    inside = sine * math.fsum(terms)
    inside = 2 / math.pi * (angle + inside) if odd else inside
    return 0.5 * (1 - inside)


def expansion(z: float, freedom: int) -> float:
    """Student's t at the place of a normal `z`, by the Cornish-Fisher series; right to 0.003 from 5 degrees on."""
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def _beyond(share: float, freedom: int, low: float, high: float) -> float:
    """Where `upper_tail` is `share`, not below `low`; `high` is where the search for an upper bound begins."""
    while upper_tail(high, freedom) > share:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if upper_tail(middle, freedom) > share else (low, middle)
    return (low + high) / 2
