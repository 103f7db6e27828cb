"""The study of what FIRE can represent: its networks, run as the encoding, against the closed forms of the biases."""

import csv
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.support.script import loaded

STUDY = Path(__file__).parents[2] / "results" / "studies" / "fire-represents"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return loaded(STUDY / "represent.py")


def test_alibi_is_one_unit(study: ModuleType) -> None:
    slopes, distance = [2.0**-2, 2.0**-8], np.arange(301.0)
    wanted = -np.outer(slopes, distance)
    network = study.straight(wanted, 1e-15)
    assert network.hidden == 1
    assert study.error_of(network, wanted) < 1e-9
    # Also beyond the threshold, where eps alone is the denominator.
    for position in (300, 600):
        assert study.error_as_run(network, wanted, position) < 1e-4


def test_a_bucketed_bias_is_exact_with_a_unit_for_each_bend(study: ModuleType) -> None:
    by_bucket = torch.randn(2, 9, generator=torch.Generator().manual_seed(0)).double().numpy()
    bucket = np.array([min(d, 4) if d < 5 else min(4 + int(math.log2(d / 4)), 8) for d in range(201)])
    wanted = by_bucket[:, bucket]
    network = study.exactly(wanted, 1.0)
    # Single distances bend once each, and a step between wide buckets twice.
    assert network.hidden <= 1 + 5 + 2 * 4
    assert study.error_of(network, wanted) < 1e-12
    assert study.error_as_run(network, wanted, 200) < 1e-4
    fewer = study.of_width(wanted, 6, [0.1, 1.0])
    assert fewer.hidden == 6
    assert 0 < study.error_of(fewer, wanted) == pytest.approx(study.error_as_run(fewer, wanted, 200), abs=1e-4)


def test_a_head_of_kerple_is_one_unit_and_its_rate_is_found(study: ModuleType) -> None:
    wanted = -1.7 * np.log1p(0.31 * np.arange(501.0))[None]
    rate = study._rate(wanted[0])
    assert rate == pytest.approx(0.31, rel=1e-9)
    assert study.error_of(study.straight(wanted, rate), wanted) < 1e-9
    assert study.error_as_run(study.straight(wanted, rate), wanted, 500) < 1e-4


def test_more_units_leave_less_error(study: ModuleType) -> None:
    wanted = -np.stack([0.3 * np.arange(1001.0) ** 0.5, np.log1p(0.2 * np.arange(1001.0))])
    errors = [study.relative_error_of(study.of_width(wanted, units, [0.01, 0.1, 1.0]), wanted) for units in (4, 16, 64)]
    assert errors[0] > 4 * errors[1] > 16 * errors[2]


@pytest.mark.slow
def test_the_errors_that_are_told_are_those_of_the_script(study: ModuleType) -> None:
    with (STUDY / "errors.csv").open() as file:
        told = list(csv.DictReader(file))
    found = study.rows()
    assert [(each["bias"], each["construction"], int(each["hidden"])) for each in told] == [
        (each.bias, each.construction, each.hidden) for each in found
    ]
    for each, row in zip(told, found, strict=True):
        assert float(each["error"]) == pytest.approx(row.error, rel=1e-3, abs=1e-6)
        assert float(each["error_float32"]) == pytest.approx(row.error_float32, rel=0.3, abs=1e-4)
