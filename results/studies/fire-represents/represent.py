"""How well FIRE can be T5's, ALiBi's and KERPLE's bias: networks written down, not trained, and their largest errors.

    python results/studies/fire-represents/represent.py     prints the table of README.md and writes errors.csv

FIRE's bias is f(psi(i - j) / (psi(max(L, i)) + eps)) with psi(x) = ln(1 + c x). With the threshold L at the largest
position the denominator is one number, so the bias is any function of u = ln(1 + c (i - j)) that is linear in pieces:
one hidden unit for the first piece, and one for each bend. The biases are those of the released checkpoints, all heads
of a layer with one c, as FIRE has it; `one head` is a network for each head by itself.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.encodings.fire import Fire
from lpe_eval.model.scores import Geometry
from lpe_eval.model.transformer_model import TransformerModel

Array = NDArray[np.float64]
EPS = 1e-6
LONGEST = 16384


class Network(NamedTuple):
    """A FIRE: bends in distance, and the bias of each head there.

    Attributes:
        c: of psi.
        threshold: L.
        bends: distances where a piece ends, 0 and the farthest among them.
        values: [h, n], the bias at each.
    """

    c: float
    threshold: int
    bends: Array
    values: Array

    @property
    def hidden(self) -> int:
        """Hidden units."""
        return len(self.bends) - 1

    def bias(self, distance: Array) -> Array:
        """[h, k] in float64, for queries up to the threshold."""
        at = np.log1p(self.c * distance)
        return np.stack([np.interp(at, np.log1p(self.c * self.bends), each) for each in self.values])

    def encoding(self) -> Fire:
        """The same as the encoding that models run, in float32."""
        heads = len(self.values)
        options = Fire.Options(hidden=self.hidden, threshold=float(self.threshold), initial_c=self.c, eps=EPS)
        made = Fire(Geometry(heads, 8, 8 * heads, self.threshold), options)
        places = np.log1p(self.c * self.bends)
        whole = np.log1p(self.c * self.threshold) + EPS
        slopes = np.diff(self.values, axis=1) / np.diff(places) * whole
        changes = np.diff(slopes, axis=1, prepend=0.0)
        with torch.no_grad():
            made.first.weight.fill_(1.0)
            made.first.bias.copy_(torch.from_numpy(-places[:-1] / whole))
            made.second.weight.copy_(torch.from_numpy(changes))
            made.second.bias.copy_(torch.from_numpy(self.values[:, 0]))
        return made


def exactly(wanted: Array, c: float) -> Network:
    """With a bend wherever the bias has one between whole distances; exact for any bias if there are units enough."""
    at = np.log1p(c * np.arange(wanted.shape[1]))
    slopes = np.diff(wanted, axis=1) / np.diff(at)
    bend = (np.abs(np.diff(slopes, axis=1)) > 1e-9 * np.abs(slopes).max()).any(axis=0)
    bends = np.concatenate([[0], 1 + np.flatnonzero(bend), [wanted.shape[1] - 1]])
    return Network(c, wanted.shape[1] - 1, bends.astype(float), wanted[:, bends])


def straight(wanted: Array, c: float) -> Network:
    """One hidden unit: a multiple of psi."""
    ends = np.array([0, wanted.shape[1] - 1])
    return Network(c, wanted.shape[1] - 1, ends.astype(float), wanted[:, ends])


def of_width(wanted: Array, hidden: int, scales: Sequence[float]) -> Network:
    """So many hidden units: bends where the bias is bent most, for the c of some that leaves the least relative error.

    A head whose bias is large does not outweigh the others.
    """
    size = np.abs(wanted).max(axis=1, keepdims=True)
    alike = wanted / size
    found = min((_of_width(alike, hidden, c) for c in scales), key=lambda each: error_of(each, alike))
    return found._replace(values=found.values * size)


def _of_width(wanted: Array, hidden: int, c: float) -> Network:
    last = wanted.shape[1] - 1
    whole = exactly(wanted, c)
    if whole.hidden <= 4 * hidden:
        return _thinned(whole, wanted, hidden)
    at = np.log1p(c * np.arange(last + 1.0))
    slopes = np.diff(wanted, axis=1) / np.diff(at)
    # Pieces of equal error: their lengths go with one over the root of the second derivative.
    bent = np.abs(np.diff(slopes, axis=1)) / (at[2:] - at[:-2])
    density = np.sqrt(bent.max(axis=0)) * (at[2:] - at[:-2])
    share = np.concatenate([[0.0], np.cumsum(density), [0.0]])
    share[-1] = share[-2]
    marks = np.searchsorted(share, np.linspace(0, share[-1], hidden + 1)[1:-1])
    bends = np.unique(np.concatenate([[0], marks, [last]]))
    # What two marks at one distance leave over is spent where the error is largest.
    while len(bends) < hidden + 1:
        apart = np.abs(Network(c, last, bends.astype(float), wanted[:, bends]).bias(np.arange(last + 1.0)) - wanted)
        bends = np.unique(np.append(bends, int(apart.max(axis=0).argmax())))
    return Network(c, last, bends.astype(float), wanted[:, bends])


def _thinned(whole: Network, wanted: Array, hidden: int) -> Network:
    """Without the bends that cost least, one after another."""
    # Beyond the last bend but the end nothing changes.
    near = wanted[:, : int(whole.bends[-2]) + 2]
    while whole.hidden > hidden:
        fewer = [
            whole._replace(bends=np.delete(whole.bends, place), values=np.delete(whole.values, place, axis=1))
            for place in range(1, len(whole.bends) - 1)
        ]
        whole = min(fewer, key=lambda each: error_of(each, near))
    return whole


def error_of(network: Network, wanted: Array) -> float:
    """The largest difference over all heads and distances, in nats and float64."""
    return float(np.abs(network.bias(np.arange(float(wanted.shape[1]))) - wanted).max())


def relative_error_of(network: Network, wanted: Array) -> float:
    """The largest difference as a share of the largest bias of its head."""
    size = np.abs(wanted).max(axis=1, keepdims=True)
    return error_of(network._replace(values=network.values / size), wanted / size)


def error_as_run(network: Network, wanted: Array, position: int) -> float:
    """The same of the encoding in float32, for a query at `position` and keys no farther than `wanted` goes."""
    keys = torch.arange(max(0, position - wanted.shape[1] + 1), position + 1)
    with torch.no_grad():
        found = network.encoding().bias(torch.tensor([position]), keys)[:, 0].double().numpy()[:, ::-1]
    return float(np.abs(found - wanted[:, : found.shape[1]]).max())


def released(name: str, longest: int) -> Array:
    """[h, k], the bias of a released checkpoint at each distance."""
    model = locate(name).load(LoadOptions())
    assert isinstance(model, TransformerModel)
    with torch.no_grad():
        bias = model.model.layer_encodings[0].bias_by_offset(torch.arange(longest + 1))
    assert bias is not None
    return bias.double().numpy()


class Row(NamedTuple):
    """One line of the table."""

    bias: str
    construction: str
    c: float
    hidden: int
    largest_bias: float
    error: float
    relative_error: float
    error_float32: float
    error_at_twice: float


def row_of(bias: str, construction: str, network: Network, wanted: Array) -> Row:
    """What a network makes of a bias, up to the threshold and at twice as far."""
    last = wanted.shape[1] - 1
    return Row(
        bias,
        construction,
        network.c,
        network.hidden,
        float(np.abs(wanted).max()),
        error_of(network, wanted),
        relative_error_of(network, wanted),
        error_as_run(network, wanted, last),
        error_as_run(network, wanted, 2 * last),
    )


def worst(rows: Sequence[Row]) -> Row:
    """Of several heads by themselves, the one with the largest error."""
    return max(rows, key=lambda each: each.error)


def rows(longest: int = LONGEST, hidden: int = 32) -> list[Row]:
    """Every bias, by every construction that fits it."""
    scales = list(np.logspace(-6, 1, 29))
    alibi, t5, log, power = (released(name, longest) for name in ("alibi", "t5", "kerple-log", "kerple-power"))
    found = [row_of("alibi", "one unit, c near 0", straight(alibi, 1e-15), alibi)]
    found += [
        row_of("t5", "a unit for each bend", exactly(t5, 1.0), t5),
        row_of("t5", f"{hidden} units", of_width(t5, hidden, scales), t5),
    ]
    heads = [log[head : head + 1] for head in range(len(log))]
    # p ln(1 + a d) rises from 0 to 1 by p ln(1 + a), and from 0 to 2 by p ln(1 + 2a).
    found.append(
        worst(
            [row_of("kerple-log", "one head, one unit, c = a", straight(each, _rate(each[0])), each) for each in heads]
        )
    )
    found += [
        row_of("kerple-log", f"{hidden} units", of_width(log, hidden, scales), log),
        row_of("kerple-power", f"{hidden} units", of_width(power, hidden, scales), power),
    ]
    return found


def _rate(bias: Array) -> float:
    """a of the bias -p ln(1 + a d), by bisection on the ratio of its values at the farthest distance and at 1."""
    last, wanted = len(bias) - 1.0, bias[-1] / bias[1]
    low, high = 1e-9, 1e9
    for _ in range(200):
        middle = (low * high) ** 0.5
        # The ratio falls from the distance itself to one as a grows.
        low, high = (middle, high) if np.log1p(middle * last) / np.log1p(middle) > wanted else (low, middle)
    return low


def main() -> None:
    """Prints the table and writes `errors.csv`."""
    found = rows()
    with (Path(__file__).parent / "errors.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(found)
    sys.stdout.write("| bias | FIRE | c | hidden | largest bias | error | of its head | in float32 | at twice L |\n")
    sys.stdout.write("|---|---|---|---|---|---|---|---|---|\n")
    for each in found:
        numbers = " | ".join(f"{value:.2g}" for value in each[4:])
        sys.stdout.write(f"| {each.bias} | {each.construction} | {each.c:.2g} | {each.hidden} | {numbers} |\n")


if __name__ == "__main__":
    main()
