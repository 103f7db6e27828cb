"""How often effective lengths are wrong, and verdicts on them: the rates of `docs/far-context.md` and `docs/gate.md`.

    OMP_NUM_THREADS=1 python benchmarks/effective_length.py

Each line is 300 simulated models, or pairs of models, with fixed seeds. A text is documents of three blocks of 256
targets at six lengths; what it costs differs from block to block by 0.3 nats, the same at every length, and every block
of every length has noise of its own. A changed model adds noise again: 0.015 nats are 0.54 % of the loss, the largest
that was measured for a real change (`benchmarks/gate.py`).
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from lpe_eval.report.gate.joining import ASPECTS, Judged
from lpe_eval.report.gate.judge import judge
from lpe_eval.report.gate.rules import EFFECTIVE_LENGTH, Rules
from lpe_eval.report.numbers.effective_length import effective_length
from lpe_eval.table import BlockSum

LENGTHS = (128, 256, 512, 1024, 2048, 4096)
TARGETS = 256
VERDICTS = ("worse", "inconclusive", "better", "same")

Losses = Mapping[int, Sequence[BlockSum]]


def text(losses: Sequence[float], documents: int, noise: float, draw: np.random.Generator) -> Losses:
    """Sums of a model with these losses at each length."""
    level = draw.uniform(-0.3, 0.3, (documents, 3))
    return {
        length: [
            BlockSum(f"{d}", f"{d}", b, TARGETS * float(each[d, b]), TARGETS, TARGETS, 0)
            for d in range(documents)
            for b in range(3)
        ]
        for length, loss in zip(LENGTHS, losses, strict=True)
        for each in [loss + level + noise * draw.standard_normal((documents, 3))]
    }


def changed(old: Losses, lost: Mapping[int, float], noise: float, draw: np.random.Generator) -> Losses:
    """The same text under another model."""
    return {
        length: [
            each._replace(nll_nats=each.nll_nats + TARGETS * (lost.get(length, 0.0) + noise * draw.standard_normal()))
            for each in blocks
        ]
        for length, blocks in old.items()
    }


def verdict(new: Losses, old: Losses) -> str:
    """What the gate says."""
    row = {"model": "m", "task": "t", "protocol": "anchored-256", "length": 4096, "stride": 1024, "note": ""}
    row |= {"metric": EFFECTIVE_LENGTH, "status": "ok"}
    sides = [Judged(row, (), dict.fromkeys(ASPECTS, ""), None, None, "", by_length=each) for each in (new, old)]
    return judge(sides[:1], sides[1:], Rules())[0].verdict


def lengths(documents: int, noise: float, count: int) -> str:
    """How often a model that is level from 256 tokens on is taken for one that makes use of more."""
    found = [
        effective_length(text([3.0, *[2.5] * 5], documents, noise, np.random.default_rng([documents, seed])))
        for seed in range(count)
    ]
    longer = sum((each.length or 0) > 256 for each in found) / count
    shorter = sum((each.length or 0) < 256 for each in found) / count
    held = sum((each.low or 0) <= 256 <= (each.high or 0) for each in found) / count
    return f"{100 * longer:.1f} % | {100 * shorter:.1f} % | {100 * held:.1f} %"


def verdicts(documents: int, noise: float, gains: Sequence[float], lost: float, count: int) -> str:
    """Shares of the verdicts on a model whose last gain is from 512 to 1024 tokens, and that has lost so much of it."""
    found: Counter[str] = Counter()
    for seed in range(count):
        draw = np.random.default_rng([documents, seed, 1])
        gain = gains[seed % len(gains)]
        old = text([3.0, 2.8, 2.7, *[2.7 - gain] * 3], documents, 0.02, draw)
        now = changed(old, {length: lost * (length >= 1024) for length in LENGTHS}, noise, draw)
        found[verdict(now, old)] += 1
    return " | ".join(f"{100 * found[each] / count:.1f} %" for each in VERDICTS)


def main() -> None:
    """Prints both tables."""
    count = argparse.ArgumentParser()
    count.add_argument("--count", type=int, default=300)
    many = count.parse_args().count
    print("| text | noise | longer | shorter | in the interval |\n|---|---|---:|---:|---:|")
    for documents, noise in ((3, 0.02), (12, 0.02), (40, 0.02)):
        print(f"| {documents} documents | {noise} nats | {lengths(documents, noise, many)} |", flush=True)
    print("\n| text | what is lost | worse | inconclusive | better | same |\n|---|---|---:|---:|---:|---:|")
    small = (0.0, 0.01, 0.02, 0.03, 0.04)
    for documents, noise, told, gains, lost in (
        (12, 1e-6, "none; rounding of 1e-6", small, 0.0),
        (12, 0.004, "none; noise 0.004 nats", small, 0.0),
        (12, 0.015, "none; noise 0.015 nats", small, 0.0),
        (40, 0.015, "none; noise 0.015 nats", small, 0.0),
        (12, 0.015, "all of a last gain of 0.1 nats", (0.1,), 0.1),
        (12, 0.015, "all of a last gain of 0.03 nats", (0.03,), 0.03),
        (40, 0.015, "all of a last gain of 0.03 nats", (0.03,), 0.03),
    ):
        shares = verdicts(documents, noise, gains, lost, many)
        print(f"| {documents} documents of 3 blocks | {told} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
