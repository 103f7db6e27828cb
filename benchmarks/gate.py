"""How often the regression gate is wrong: every rate that `docs/gate.md` states, simulated through the gate as it is.

    OMP_NUM_THREADS=1 python benchmarks/gate.py

Each line is 2,000 comparisons of a baseline with a run whose difference is known. Finished lines are kept in a file, so
that a second call goes on where the first was stopped; the seeds are fixed, so it prints the same table. All blocks are
equally long, so the standard error that resampling estimates has a closed form, which takes its place here, and nothing
has to be paired; `--resample` goes through the whole gate instead, several times as slow. `tests/test_gate_rates.py`
holds one against the other.

A text is documents of blocks of 1024 targets with losses of 1.1 nats, spread over documents by 0.15 and over blocks by
0.35, as those of the released alibi on the standard library. A change of the model adds `change` of the mean loss to
every block, and noise with the given standard deviation and shape: 0.54 % is the largest that was measured for a change
which costs 0.5 %.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lpe_eval.report.gate import judge as gate
from lpe_eval.report.gate.joining import ASPECTS, Judged
from lpe_eval.report.gate.judge import judge
from lpe_eval.report.gate.rules import Rules, Verdict
from lpe_eval.report.gate.weighing import Difference, weighed
from lpe_eval.report.gate.worst_document import ROUNDING, Parts, worst_part
from lpe_eval.report.numbers.statistics import MIN_DOCUMENTS, PairedDifference, paired_difference
from lpe_eval.table import BLOCK_TARGETS, BlockSum

COMPARISONS = 2000
WHOLE = False
"""Whether everything goes through the gate as it is; set by `--resample`."""
NOISE = 0.0054
SHOWN = ("worse", "inconclusive", "better", "same")

_PLAIN = Verdict("mine", "text", "nonoverlap", 512, None, "nll_nats", "same")

Losses = np.ndarray
SHAPES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda draw, count: draw.standard_normal(count),
    "t, 4 degrees": lambda draw, count: draw.standard_t(4, count) / 2**0.5,
    "t, 3 degrees": lambda draw, count: draw.standard_t(3, count) / 3**0.5,
    "skewed, -0.7": lambda draw, count: (8 - draw.gamma(8.0, size=count)) / 8**0.5,
    "skewed, +2": lambda draw, count: draw.exponential(size=count) - 1,
}


class Line(NamedTuple):
    """One line of the table: what is simulated, and how a comparison of it is drawn."""

    part: str
    text: str
    change: str
    drawn: Callable[[np.random.Generator], list[Verdict]]


def closed_form(new: Sequence[BlockSum], old: Sequence[BlockSum]) -> PairedDifference:
    """What `statistics.paired_difference` estimates by resampling, where every unit has as many targets."""
    targets = old[0].n_tokens
    change = np.array([(one.nll_nats - other.nll_nats) / targets for one, other in zip(new, old, strict=True)])
    documents = len({block.digest for block in old})
    whole = documents >= MIN_DOCUMENTS
    units = change.reshape(documents, -1).mean(1) if whole else change
    count, noun = len(units), "documents" if whole else "blocks"
    stderr = float(units.std(ddof=1)) / count**0.5 if count > 1 else float("nan")
    method = f"bootstrap-{noun}-0" if count > 1 else "none"
    return PairedDifference(float(change.mean()), stderr, float("nan"), float("nan"), method, 1.0, count)


def of_losses(new: Losses, old: Losses, tokens: int) -> Verdict:
    """The verdict of `judge` on paired sums of nats of blocks (columns) of documents (rows), each of so many tokens."""
    documents, count = new.shape
    units = (new - old).mean(1) if documents >= MIN_DOCUMENTS else (new - old).ravel()
    stderr = float(units.std(ddof=1)) / len(units) ** 0.5 / tokens if units.size > 1 else float("nan")
    level = float(old.mean())
    alike = bool((np.abs(new - old) <= ROUNDING * np.maximum(old, level)).all())
    least = gate.noise_of_text(level / tokens, tokens * old.size)
    value, before = float(new.mean()) / tokens, level / tokens
    verdict = weighed(_PLAIN, Difference(value, before, stderr, len(units), least, alike), Rules())
    names = [f"{document}" for document in range(documents) for _ in range(count)]
    parts = Parts(new.ravel(), old.ravel(), np.full(old.size, float(tokens)), names, names, [*range(count)] * documents)
    worst = None if alike else worst_part(parts, Rules().tolerance)
    return verdict if worst is None else verdict._replace(verdict="worse", document=worst.document)


def of_counts(now: np.ndarray, before: np.ndarray, same: bool) -> Verdict:
    """The verdict of `judge` on strings of one answer token, right or wrong, by `same` checkpoint or another."""
    if WHOLE:
        return judge([of_answers(now, "one" if same else "other")], [of_answers(before, "one")], Rules())[0]
    change, count = now.astype(float) - before.astype(float), len(now)
    stderr = float(change.std(ddof=1)) / count**0.5
    alike = same and not change.any()
    least = gate.noise_of_answers(count)
    found = Difference(float(now.mean()), float(before.mean()), stderr, count, least, alike)
    return weighed(_PLAIN._replace(metric="accuracy", worse_is=-1.0), found, Rules())


def of_text(losses: Losses, name: str = "mine", source: str = "baseline", tokens: int = BLOCK_TARGETS) -> Judged:
    """A row with these losses, in nats a token, of each block (column) of each document (row)."""
    blocks = [
        BlockSum(f"{document}.txt", f"{document}", number, float(loss) * tokens, tokens, 4 * tokens, 0)
        for document, row in enumerate(losses)
        for number, loss in enumerate(row)
    ]
    return _judged(name, "nll_nats", blocks, None, source)


def of_answers(right: np.ndarray, checkpoint: str) -> Judged:
    """A row of a problem with one answer token a string, right or wrong."""
    blocks = [BlockSum(f"{at}", f"{at}", 0, float(each), 1, 0, 0) for at, each in enumerate(right)]
    return _judged("mine", "accuracy", blocks, checkpoint, "baseline")


def _judged(name: str, metric: str, blocks: list[BlockSum], checkpoint: str | None, source: str) -> Judged:
    row = {
        "model": name, "task": "text", "protocol": "nonoverlap", "length": 512, "stride": None, "metric": metric,
        "status": "ok", "note": "",
    }  # fmt: skip
    settings: dict[str, str] = dict.fromkeys(ASPECTS, "")
    return Judged(row, blocks, settings, None, checkpoint, source)


def losses(draw: np.random.Generator, documents: int, blocks: int) -> Losses:
    """A text of so many documents of so many blocks."""
    level = 1.1 + 0.15 * draw.standard_normal((documents, 1))
    return np.maximum(0.05, level + 0.35 * draw.standard_normal((documents, blocks)))


def paired(
    documents: int, blocks: int, change: float = 0.0, noise: float = NOISE, shape: str = "normal",
    bad: int = 0, factor: float = 1.0, of_documents: bool = False, tokens: int = BLOCK_TARGETS,
) -> Callable[[np.random.Generator], list[Verdict]]:  # fmt: skip
    """A run that differs by `change`, with noise of each block (or document); `bad` documents cost `factor` as much."""

    def drawn(draw: np.random.Generator) -> list[Verdict]:
        old = losses(draw, documents, blocks)
        each = (documents, 1) if of_documents else old.shape
        moved = change + noise * SHAPES[shape](draw, each[0] * each[1]).reshape(each)
        new = old + old.mean() * moved
        new[draw.permutation(documents)[:bad]] *= factor
        if WHOLE:
            return judge([of_text(new, tokens=tokens)], [of_text(old, tokens=tokens)], Rules())
        return [of_losses(new * tokens, old * tokens, tokens)]

    return drawn


def trained(count: int, change: float, spread: float = 0.006) -> Callable[[np.random.Generator], list[Verdict]]:
    """A training that is worse by `change` than the recipe's mean, beside `count` that vary by `spread`."""

    def drawn(draw: np.random.Generator) -> list[Verdict]:
        old = losses(draw, 1, 1)
        shares = spread * draw.standard_normal(count + 1)
        new = of_text(old * (1 + change + shares[0]))
        return judge([new], [of_text(old * (1 + each), source=f"{n}") for n, each in enumerate(shares[1:])], Rules())

    return drawn


def answered(
    strings: int, again: float = 0.0, forgotten: float = 0.0, same: bool = False
) -> Callable[[np.random.Generator], list[Verdict]]:
    """80 % are right; a share is answered anew at random, another share of all is wrong that was right."""

    def drawn(draw: np.random.Generator) -> list[Verdict]:
        before = draw.random(strings) < 0.8
        now = np.where(draw.random(strings) < again, draw.random(strings) < 0.8, before)
        right = np.flatnonzero(now)
        now[draw.permutation(right)[: round(forgotten * strings)]] = False
        return [of_counts(now, before, same)]

    return drawn


def guessing(strings: int) -> Callable[[np.random.Generator], list[Verdict]]:
    """Random weights: the baseline has 95 % right, the run answers each of two classes at random."""

    def drawn(draw: np.random.Generator) -> list[Verdict]:
        before, now = draw.random(strings) < 0.95, draw.random(strings) < 0.5
        return [of_counts(now, before, False)]

    return drawn


def percent(share: float) -> str:
    """A share as the page writes it."""
    return f"{100 * share:g} %"


def lines() -> list[Line]:
    """Every line, in the order of the page."""
    mean, few, document = "the mean", "few units", "one document"
    some = "24 documents of 3 blocks"
    found = [Line(mean, some, f"none; noise 0.54 %, {shape}", paired(24, 3, shape=shape)) for shape in SHAPES]
    found += [
        Line(mean, "3 documents of 12 blocks", f"none; noise {percent(n)}", paired(3, 12, noise=n))
        for n in (NOISE, 0.018)
    ]
    found += [Line(mean, some, f"+{percent(c)}; noise 0.54 %", paired(24, 3, c)) for c in (0.0025, 0.005, 0.01)]
    found += [Line(mean, "3 documents of 12 blocks", "+0.5 %; noise 0.54 %", paired(3, 12, 0.005))]
    found += [
        Line(few, f"{count} x {tokens:,} tokens", told, paired(1, count, change, noise, tokens=tokens))
        for count, tokens in ((1, 400), (2, 1000), (8, 1024))
        for change, noise, told in (
            (0.0, 1e-6, "none; rounding of 1e-6"),
            (0.0, NOISE, "none; noise 0.54 %"),
            (0.1, 0.05, "+10 %; noise 5 %"),
            (2.0, 0.5, "+200 %; noise 50 %"),
        )
    ]
    found += [
        Line(document, f"{count} documents", f"none; noise 0.3 %, {shape}",
             paired(count, 1, 0, 0.003, shape, of_documents=True))
        for count in (8, 24, 100) for shape in ("normal", "t, 3 degrees", "skewed, +2")
    ]  # fmt: skip
    found += [
        Line(document, f"{count} documents of {blocks} blocks", f"one x {factor:g}; noise {percent(noise)}",
             paired(count, blocks, 0, noise, bad=1, factor=factor))
        for count, blocks in ((3, 12), (8, 3), (24, 3))
        for factor, noise in ((1.01, 0.0), (1.05, NOISE), (1.1, NOISE), (1.5, NOISE), (1.5, 0.018))
    ]  # fmt: skip
    found += [
        Line(document, some, f"{bad} documents x 1.5; noise 0.54 %", paired(24, 3, bad=bad, factor=1.5))
        for bad in (2, 4, 8)
    ]
    found += [
        Line(
            "trainings",
            f"{count} trainings that vary by 0.6 %",
            f"+{percent(change)}" if change else "none",
            trained(count, change),
        )
        for count in (2, 3, 5, 10)
        for change in (0.0, 0.03, 0.1, 2.0)
    ]
    for count in (4, 16, 64, 128):
        text = f"{count} strings"
        found.append(Line("answers", text, "none; the same checkpoint", answered(count, same=True)))
        found.append(Line("answers", text, "none; 20 % answered anew", answered(count, again=0.2)))
        found.append(Line("answers", text, "an eighth forgotten", answered(count, forgotten=0.125)))
        found.append(Line("answers", text, "a third forgotten", answered(count, forgotten=1 / 3)))
        found.append(Line("answers", text, "random weights, two classes", guessing(count)))
    return found


def rates(line: Line, number: int) -> dict[str, float]:
    """The share of each verdict over all comparisons of a line."""
    found: Counter[str] = Counter()
    for seed in range(COMPARISONS):
        found.update(each.verdict for each in line.drawn(np.random.default_rng([number, seed])))
    return {verdict: found[verdict] / COMPARISONS for verdict in SHOWN}


def simulate_with(resample: bool) -> None:
    """Sets how standard errors are made from here on."""
    global WHOLE
    WHOLE = resample
    gate.paired_difference = paired_difference if resample else closed_form


def main() -> None:
    """Simulates what is not there yet, and prints the table."""
    parser = argparse.ArgumentParser(description="Rates of the regression gate, simulated")
    parser.add_argument("--kept", type=Path, default=Path("results/runs/gate-rates.jsonl"), help="finished lines")
    parser.add_argument("--resample", action="store_true", help="standard errors as the gate makes them")
    asked = parser.parse_args()
    kept = asked.kept
    simulate_with(asked.resample)
    kept.parent.mkdir(parents=True, exist_ok=True)
    read = [json.loads(text) for text in kept.read_text().splitlines()] if kept.exists() else []
    done = {tuple(each["line"]): each["rates"] for each in read}
    print("| rule | measured on | true change |", " | ".join(SHOWN), "|", flush=True)
    print("|---|---|---|" + "---:|" * len(SHOWN), flush=True)
    for number, line in enumerate(lines()):
        key = line[:3]
        if key not in done:
            done[key] = rates(line, number)
            with kept.open("a") as file:
                file.write(json.dumps({"line": key, "rates": done[key]}) + "\n")
        told = [f"{100 * done[key][verdict]:.2f} %" for verdict in SHOWN]
        print("|", " | ".join([*key, *told]), "|", flush=True)


if __name__ == "__main__":
    main()
