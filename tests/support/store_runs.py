"""Runs of a few cells written to a store, also by a process that a test kills."""

import math
import sys
import time
from pathlib import Path

import numpy as np

from lpe_eval.report.folders.ppl import open_run
from lpe_eval.report.numbers.statistics import summarise
from lpe_eval.table import BlockSum, CellKey, Cost, Facts, Measurement, PositionSum

SPEC = "models: [ours]\nlengths: [128, 256]\n"
KEYS = [
    CellKey(f"org/model {number}", protocol, length, stride)
    for number in range(4)
    for protocol, stride in (("anchored", None), ("disjoint", 128))
    for length in (128, 256, 512, 1024, 2048)
]


def measurement_of(key: CellKey, status: str = "ok", note: str = "") -> Measurement:
    rng = np.random.default_rng(abs(key.length * 7 + len(key.protocol) + sum(map(ord, key.model))))
    blocks = tuple(
        BlockSum(f'book "{n}", part', f"digest{n}", 0, 1000 * math.exp(rng.normal(1, 0.2)), 1000, 4100, 0)
        for n in range(9)
    )
    positions = (PositionSum(1, 64, 300.5, 100), PositionSum(65, 128, 1 / 3, 1))
    facts = Facts("alibi", None, "custom", 1, "novels", "test", 7, "float32", "cpu")
    cost = Cost(1.5 + time.time() % 1, 128000, 10, 0, 512.25, 4096)
    if status == "ok":
        return Measurement(key, facts, "dense", blocks, positions, cost)
    return Measurement(key, facts, "dense", (), (), None, status, note)


def save(store, key: CellKey, status: str = "ok", note: str = "") -> None:
    measurement = measurement_of(key, status, note)
    store.save(measurement, summarise(measurement, store.run, 1, replicates=50))


def fill(directory: Path, run: str) -> None:
    """Measures what is not finished; the program that the tests below kill."""
    with open_run(directory, SPEC, run) as store:
        sys.stdout.write("open\n")
        sys.stdout.flush()
        done = store.finished()
        for key in KEYS:
            if key not in done:
                save(store, key)
                store.collect(KEYS)
        store.collect(KEYS)
        store.write_provenance({"commit": "abc", "when": "now"})


def hold(directory: Path, run: str) -> None:
    with open_run(directory, SPEC, run):
        sys.stdout.write("held\n")
        sys.stdout.flush()
        time.sleep(60)
