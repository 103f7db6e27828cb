"""How the strings of the fifteen problems are drawn: each as likely as it should be."""

import random
from collections import Counter

import pytest
import torch

from lpe_eval.data.grammar import distribution
from lpe_eval.data.problem import open_problem
from tests.support.problem_oracles import one_by_one
from tests.support.problem_samples import NAMES, drawn


def assert_fits(seen: list[float], expected: list[float], what: str) -> None:
    """A chi-square test at more than five deviations; rare cells are put together."""
    observed, wanted, rest = [], [], [0.0, 0.0]
    for count, mean in zip(seen, expected, strict=True):
        if mean < 8:
            rest = [rest[0] + count, rest[1] + mean]
        else:
            observed.append(count)
            wanted.append(mean)
    if rest[1] > 0:
        observed.append(rest[0])
        wanted.append(rest[1])
    statistic = sum((count - mean) ** 2 / mean for count, mean in zip(observed, wanted, strict=True))
    freedom = max(len(wanted) - 1, 1)
    assert statistic < freedom + 6 * (2 * freedom) ** 0.5 + 6, f"{what}: {statistic:.0f} at {freedom} degrees"


def assert_uniform(values: list[int], choices: range, what: str) -> None:
    counts = Counter(values)
    assert set(counts) <= set(choices), what
    assert_fits([counts[each] for each in choices], [len(values) / len(choices)] * len(choices), what)


@pytest.mark.parametrize("name", NAMES)
def test_strings_are_drawn_as_one_by_one(name: str):
    many = 6000
    for length in (1, 2, 3, 4, 6, 9):
        if name == "modular_arithmetic" and length == 1:
            continue
        seen = Counter(map(tuple, drawn(name, many, length, seed=1).inputs.tolist()))
        inputs, _, _ = one_by_one(name, many, length, random.Random(2))
        wanted = Counter(map(tuple, inputs))
        cells = sorted(seen.keys() | wanted.keys())
        # Of two samples of the same law, (a - b)^2 / (a + b) is chi-square; half of it is twice (a - m)^2 / m.
        means = [(seen[cell] + wanted[cell]) / 2 for cell in cells]
        assert_fits([means[at] + (seen[cell] - means[at]) * 2**0.5 for at, cell in enumerate(cells)], means, name)


@pytest.mark.parametrize("name", ["binary_addition", "binary_multiplication"])
def test_operands_split_a_string_anywhere_and_never_are_zero(name: str):
    inputs = drawn(name, 8000, 40).inputs
    places = (inputs == 2).int().argmax(1)
    assert ((inputs == 2).sum(1) == 1).all()
    assert_uniform(places.tolist(), range(1, 39), "place of the operator")
    at = torch.arange(40)
    for operand in (at < places[:, None], at > places[:, None]):
        assert ((inputs == 1) & operand).any(1).all()
    small = inputs[places == 3][:, :3]
    numbers = (small * torch.tensor([1, 2, 4])).sum(1)
    assert_uniform(numbers.tolist(), range(1, 8), "a number of three digits")


def test_numbers_of_a_root_are_uniform_and_never_zero():
    for length in (3, 6):
        bits = drawn("compute_sqrt", 8000, length).inputs
        numbers = (bits << torch.arange(length - 1, -1, -1)).sum(1)
        assert_uniform(numbers.tolist(), range(1, 2**length), "numbers")
    assert drawn("compute_sqrt", 64, 500).inputs.double().mean().sub(0.5).abs() < 0.02


def test_a_stack_is_filled_to_any_height_and_each_action_is_as_likely():
    inputs = drawn("stack_manipulation", 8000, 40).inputs
    fillers = inputs < 2
    assert (fillers[:, :-1] >= fillers[:, 1:]).all(), "fillers come first"
    assert_uniform(fillers.sum(1).tolist(), range(1, 40), "number of fillers")
    assert_uniform(inputs[~fillers].tolist()[:20000], range(2, 5), "actions")
    assert_uniform(inputs[fillers].tolist()[:20000], range(2), "fillers")


def test_any_token_of_a_pair_is_hidden():
    for length in (40, 41):
        inputs = drawn("missing_duplicate_string", 8000, length).inputs
        assert_uniform((inputs == 2).int().argmax(1).tolist(), range(40), "hidden token")


def test_an_expression_splits_anywhere_and_its_values_have_the_known_distribution():
    inputs, targets, _ = drawn("modular_arithmetic_brackets", 8000, 41)
    depth = ((inputs == 8).int() - (inputs == 9).int()).cumsum(1)
    behind_value = torch.nn.functional.pad(((inputs < 5) | (inputs == 9))[:, :-1], (1, 0))
    own = (inputs >= 5) & (inputs <= 7) & (depth == 1) & behind_value
    assert (own.sum(1) == 1).all()
    assert_uniform((own.int().argmax(1) - 1).tolist(), range(1, 38), "length of the left part")
    assert_uniform(inputs[own].tolist(), range(5, 8), "operators")
    assert_fits(torch.bincount(targets[:, 0], minlength=5).tolist(), (8000 * distribution(41)[41]).tolist(), "values")


def test_x_stands_where_the_released_code_puts_it():
    hidden = Counter((drawn("solve_equation", 6000, 20, seed=3).inputs == 9).int().argmax(1).tolist())
    inputs, _, _ = one_by_one("solve_equation", 6000, 20, random.Random(4))
    wanted = Counter(tokens.index(9) for tokens in inputs)
    cells = range(18)
    means = [(hidden[cell] + wanted[cell]) / 2 for cell in cells]
    assert_fits([means[at] + (hidden[cell] - means[at]) * 2**0.5 for at, cell in enumerate(cells)], means, "x")
    assert_uniform(drawn("solve_equation", 8000, 30).targets[:, 0].tolist(), range(5), "solutions")


@pytest.mark.parametrize("name", ["even_pairs", "parity_check", "cycle_navigation", "missing_duplicate_string"])
def test_classes_are_balanced_at_40(name: str):
    problem = open_problem(name)
    assert_uniform(drawn(name, 8000, 40).targets[:, 0].tolist(), range(problem.classes), "classes")
