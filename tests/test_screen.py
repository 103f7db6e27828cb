"""Numbers, errors, counts, times and names as text."""

import math

import pytest

from lpe_eval import screen
from tests.support.hostile_names import HOSTILE, SHOWN


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.123, "5.123"),
        (5.0, "5.000"),
        (12.3456, "12.35"),
        (999.96, "1000.0"),
        (1234.5, "1234"),
        (30046.0, "30046"),
        (999999.4, "999999"),
        (1.2e9, "1.2e9"),
        (1e300, "1.0e300"),
        (0.05678, "0.05678"),
        (1.5e-7, "1.5e-7"),
        (0.0, "0"),
        (-2.5, "-2.500"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "-"),
        (None, "-"),
        (7, "7.000"),
    ],
)
def test_numbers_keep_four_digits_and_never_lose_one_before_the_point(value, text):
    assert screen.number(value) == text


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (5.12345, 0.0213, "5.123 ± 0.021"),
        (5.12345, 0.00004, "5.1235 ± 0.0000"),
        (30046.2, 512.0, "30046 ± 512"),
        (105.61, 1.26, "105.6 ± 1.3"),
        (1.2e9, 3.4e7, "1.2e9 ± 3.4e7"),
        (5.1234, math.nan, "5.123"),
        (5.1234, None, "5.123"),
        (math.inf, math.nan, "inf"),
        (5.1234, math.inf, "5.123"),
    ],
)
def test_a_value_is_written_to_the_second_digit_of_its_error(value, stderr, text):
    assert screen.with_error(value, stderr) == text


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7"), (999, "999"), (1000, "1k"), (12345, "12.3k"), (1.2e6, "1.2M"), (3.45e9, "3.45G")]
)
def test_counts_are_short(count, text):
    assert screen.short_count(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(7.4, "0:07"), (200, "3:20"), (3725, "1:02:05"), (59.7, "1:00")])
def test_durations_look_like_a_clock(seconds, text):
    assert screen.clock(seconds) == text


def test_only_what_a_terminal_would_obey_becomes_an_escape():
    assert screen.visible(HOSTILE) == SHOWN
    assert screen.visible("a\nb\tc ü ± 文 👩‍💻 [bold] %s {x} \\") == "a b c ü ± 文 👩‍💻 [bold] %s {x} \\"
    assert screen.visible_lines("a\n\x1bb\n") == "a\n\\x1bb\n"
    every = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
    assert screen.visible(every).isprintable()
