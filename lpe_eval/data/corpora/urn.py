"""Documents from Markov chains that nobody knows, and what the best guess of their next symbol costs.

Each document has a chain of its own. Its rows are independent draws from a symmetric Dirichlet distribution with the
parameter `alpha` for each symbol, and its first symbol is uniform. What follows symbol i is learned from what followed
it before, however long ago, so every further token of context helps, and by how much is known.

Drawing is Pólya's urn (Blackwell and MacQueen 1973): the symbol after i is, with the weight of one for each time that i
had a successor, one of these successors, and with the weight `symbols * alpha` any symbol. The row of i, drawn first
and kept, would give sequences of the same probability; the urn needs whole numbers alone.

The best guess of what comes after i, of those who see a window alone, is

    (n_ij + alpha) / (n_i + symbols * alpha),

n_ij how often j came after i in the window until now, and n_i how often anything did. That is exact for a window at
the beginning of a document. Elsewhere it is exact given that the first symbol of a window says nothing of the chain;
it says a little, since it is more often a frequent symbol. With 64 symbols and alpha 0.1 a guess that used this would
gain at most 0.073 nats in a whole window, however long, all targets together: docs/known-optimum.md has the proof and
the numbers. The first symbol of a window itself, which is a target behind BOS, costs ln(symbols), which is exact.

Options beside those of all generated text: `alpha`, a number or a fraction such as 1/3.
"""

import math
from fractions import Fraction
from functools import partial
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from pydantic import field_validator

from lpe_eval.data.corpus import Optimum
from lpe_eval.data.generated import SYMBOLS, Generated, GeneratedOptions, below, times_before, words

_FINEST = 10**6
"""The largest numerator and denominator of alpha."""


class Urn(Generated):
    """See the module's docstring."""

    class Options(GeneratedOptions):
        alpha: str = "1/10"

        @field_validator("alpha", mode="before")
        @classmethod
        def _exact(cls, value: object) -> object:
            if type(value) not in (int, float, str):
                raise ValueError(f"alpha must be a number or a fraction such as 1/3, not {value!r}")
            try:
                found = Fraction(str(value))
            except (ValueError, ZeroDivisionError):
                raise ValueError(f"alpha must be a number or a fraction such as 1/3, not {value!r}") from None
            if found <= 0 or max(found.numerator, found.denominator) > _FINEST:
                raise ValueError(f"alpha must be above 0 and have at most six digits, not {value!r}")
            return str(found)

    options: Options
    Options: ClassVar = Options

    def draw(self, key: str) -> str:
        symbols, alpha = self.options.symbols, Fraction(self.options.alpha)
        part, whole = alpha.numerator, alpha.denominator
        drawn = words(key, self.options.length)
        last = below(next(drawn), symbols)
        path, after = [last], [[] for _ in range(symbols)]
        for word in drawn:
            seen = after[last]
            place = below(word, len(seen) * whole + symbols * part)
            again = place // whole
            last = seen[again] if again < len(seen) else (place - len(seen) * whole) // part
            seen.append(last)
            path.append(last)
        return "".join(map(SYMBOLS.__getitem__, path))

    def optimum(self) -> Optimum:
        symbols, alpha = self.options.symbols, float(Fraction(self.options.alpha))
        return Optimum(SYMBOLS[:symbols], partial(_losses, symbols, alpha))


def _losses(symbols: int, alpha: float, window: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    nats = np.full(len(window), math.log(symbols))
    before, pairs = window[:-1], window[:-1] * symbols + window[1:]
    nats[1:] = np.log((times_before(before) + symbols * alpha) / (times_before(pairs) + alpha))
    return nats
