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


def numbers(*cells: str, kept: int = 1) -> screen.Table:
    columns = [screen.Column("name"), *(screen.Column(str(place), "g", number=True) for place in range(len(cells)))]
    return screen.Table("", columns, [["x", *cells]], kept=kept)


def test_a_table_that_fits_is_one_block_and_else_as_even_blocks_as_can_be():
    table = numbers(*["1234567"] * 5)
    # A blank at either side, the name, five numbers, and three between each.
    assert screen.block_width(table, screen.Block("", range(6), [0])) == 2 + 4 + 5 * 7 + 5 * 3
    assert [list(each.places) for each in screen.blocks(table, 56)] == [[0, 1, 2, 3, 4, 5]]
    # With two between each: 2 + 4 + 3 * (7 + 2) are 33 characters.
    assert [list(each.places) for each in screen.blocks(table, 33)] == [[0, 1, 2, 3], [0, 4, 5]]
    assert [list(each.places) for each in screen.blocks(table, 32)] == [[0, 1, 2], [0, 3, 4], [0, 5]]
    assert len(screen.blocks(table, 3)) == 5


def test_a_listing_breaks_no_number():
    columns = [screen.Column("what"), screen.Column("change", number=True)]
    table = screen.Table("", columns, [["some words of a row", "+1.25 ± 0.33"]])
    assert screen.column_widths(table, 2 + 10 + 3 + 12) == [10, 12]
    assert screen.column_widths(table, 2 + 4 + 3 + 12) is None
