"""Student's multiples against the printed table and the closed forms."""

import math

import pytest

from lpe_eval.report.numbers.student import MOST_SIGMAS, student, upper_tail


@pytest.mark.parametrize(
    ("freedom", "point"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (9, 2.2622), (10, 2.2281), (30, 2.0423),
     (120, 1.9799), (1000, 1.9623), (1001, 1.9623)],
)  # fmt: skip
def test_students_multiple_is_the_one_of_the_printed_table(freedom, point):
    assert student(1.959963984540054, freedom) == pytest.approx(point, abs=6e-5)


@pytest.mark.parametrize("sigmas", [0.0, 0.5, 1.0, 3.0, MOST_SIGMAS])
def test_students_multiple_is_the_closed_form_for_one_and_two_degrees_of_freedom(sigmas):
    tail = 0.5 * math.erfc(sigmas / math.sqrt(2))
    assert student(sigmas, 1) == pytest.approx(1 / math.tan(math.pi * tail) if tail < 0.5 else 0.0, rel=1e-6, abs=1e-12)
    two = (1 - 2 * tail) * math.sqrt(2 / (4 * tail * (1 - tail)))
    assert student(sigmas, 2) == pytest.approx(two, rel=1e-6, abs=1e-12)
    assert upper_tail(student(sigmas, 7), 7) == pytest.approx(tail, rel=1e-6)


def test_students_multiple_is_never_below_the_normal_one_and_falls_to_it():
    found = [student(3.0, freedom) for freedom in (1, 2, 3, 7, 35, 200, 1000, 1001, 10**6)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(3.0, abs=1e-4)
