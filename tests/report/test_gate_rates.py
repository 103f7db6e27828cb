"""The simulation behind the rates of docs/gate.md: it says what the gate says, and the page says what it printed."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = next(each for each in Path(__file__).parents if (each / "pyproject.toml").exists())


@pytest.fixture(scope="module")
def simulation() -> Iterator[ModuleType]:
    found = importlib.util.spec_from_file_location("simulated_gate", ROOT / "benchmarks" / "gate.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["simulated_gate"] = module
    found.loader.exec_module(module)
    yield module
    module.simulate_with(resample=True)
    del sys.modules["simulated_gate"]


def test_the_simulation_finds_what_the_gate_finds(simulation):
    """Line by line on two seeds; resampling differs from its closed form by a few percent, so a verdict may flip."""
    alike = compared = 0
    for number, line in enumerate(simulation.lines()):
        for seed in range(2):
            verdicts = []
            for whole in (False, True):
                simulation.simulate_with(resample=whole)
                verdicts += line.drawn(np.random.default_rng([number, seed]))
            fast, real = verdicts
            assert (fast.value, fast.baseline, fast.units) == (
                pytest.approx(real.value, rel=1e-9), pytest.approx(real.baseline, rel=1e-9), real.units,
            )  # fmt: skip
            assert fast.stderr == pytest.approx(real.stderr, rel=0.15, nan_ok=True)
            alike += (fast.verdict, bool(fast.document)) == (real.verdict, bool(real.document))
            compared += 1
    assert alike >= 0.98 * compared


def test_every_line_of_the_simulation_stands_in_the_page(simulation):
    page = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8").splitlines()
    rows = {tuple(each.strip() for each in line.split("|")[1:4]): line for line in page if line.startswith("| ")}
    for line in simulation.lines():
        assert line[:3] in rows, line[:3]
        shares = [float(each.strip(" %")) for each in rows[line[:3]].split("|")[4:8]]
        assert sum(shares) == pytest.approx(100, abs=0.05)
