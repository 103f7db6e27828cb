"""Golden numbers of the methods of 2024 to 2026, recomputed pair by pair, and what each wrong variant changes in them.

RoPE at other distances has the same in `test_remap.py`. StreamingLLM, LM-Infinite and windows in two directions, which
have golden numbers, are no members and are recomputed here alone.
"""

import pytest
import torch
from torch import Tensor

from tests.support.golden_cases import Case, cases, compared, tensor, tolerance
from tests.support.oracles import cable, fox, inkling, p_rope, path, sinks, stick_breaking, temperature, windows

ORACLES = {
    "fox": fox,
    "cable": cable,
    "inkling": inkling,
    "temperature": temperature,
    "p_rope": p_rope,
    "windows": windows,
    "sinks": sinks,
    "path": path,
    "stick_breaking": stick_breaking,
}
CASES = [case for file in ORACLES for case in cases(file)]
SLIPS = [(file, slip) for file, oracle in ORACLES.items() for slip in oracle.WRONG]
CLEAR = 1000
"""Tolerances between a wrong variant and the golden numbers: 2e-3 or more."""


def told(case: Case) -> str:
    """The name of a case, with the registry name of an encoding that its id does not hold."""
    within = ["none"] if "nope" in f"{case.fields['variant']} {case.id}".lower() else []
    return "-".join([case.fields["encoding"], case.id, *within])


def distances(case: Case, slip: str = "") -> dict[str, float]:
    """How far each output is from the golden one, in tolerances."""

    def distance(name: str, found: Tensor) -> float:
        everywhere = name in case.fields.get("all_cells", ())
        counted = case._replace(compare="all") if everywhere else case
        mine, golden = compared(counted, found, tensor(case.outputs[name], torch.float64))
        assert bool(mine.isfinite().all())
        return float((mine - golden).abs().max()) / tolerance(case, name)

    found = ORACLES[case.fields["encoding"]].outputs(case, slip)
    assert set(found) == set(case.outputs)
    return {name: distance(name, value) for name, value in found.items()}


@pytest.mark.parametrize("case", CASES, ids=told)
def test_every_golden_number_follows_from_the_formulas(case: Case) -> None:
    assert max(distances(case).values()) <= 1


@pytest.mark.parametrize(("file", "slip"), SLIPS, ids=str)
def test_a_slip_in_the_formulas_is_seen_in_the_golden_numbers(file: str, slip: str) -> None:
    assert max(max(distances(case, slip).values()) for case in cases(file)) > CLEAR
