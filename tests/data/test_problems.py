"""The fifteen problems: the released code's own samples, every answer one by one, and how strings are drawn."""

import itertools
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from lpe_eval.data.grammar import distribution
from lpe_eval.data.problem import Problem, Sample, all_count, assemble, open_problem, vocabulary_size
from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.registry import PROBLEMS
from lpe_eval.spec.che_task import problem_task_names, read_problem_task
from tests.support.problem_oracles import ANSWER, DRAW, one_by_one

GOLDEN = Path(__file__).parents[1] / "golden" / "che"
CPU = torch.device("cpu")
NAMES = sorted(ANSWER)
LENGTHS = [*range(1, 14), 20, 40, 41, 61, 62, 63, 64, 100, 127, 500]
ESTIMATED = {("binary_addition", "without_positions"), ("compute_sqrt", "without_positions")} | {
    ("binary_multiplication", ceiling) for ceiling in ("by_position", "without_positions")
}

FINGERPRINTS = {
    ("binary_addition", 1): "b1233f3fda2267bc",
    ("binary_multiplication", 1): "3350590945522827",
    ("bucket_sort", 1): "c0fd46fa0585a8ca",
    ("compute_sqrt", 1): "c07b42ef56220052",
    ("cycle_navigation", 1): "cffc67d34331eecb",
    ("duplicate_string", 1): "abdea7d9e4573ba3",
    ("even_pairs", 1): "df2b971bb9877f2e",
    ("missing_duplicate_string", 1): "03b89816231fdd39",
    ("modular_arithmetic", 1): "7b6804ee4120ceea",
    ("modular_arithmetic_brackets", 1): "b65fd8ea96980083",
    ("odds_first", 1): "9fd11b949575cd65",
    ("parity_check", 1): "69d891431faaf4c0",
    ("reverse_string", 1): "27a3ae04ea369edc",
    ("solve_equation", 1): "19178fcfd1110f58",
    ("stack_manipulation", 1): "04b66a66dbe0dbbd",
}
"""Content of every version of every task. A change of a task is a new version and a new line here."""


def drawn(name: str, batch: int, length: int, seed: int = 0) -> Sample:
    return open_problem(name).sample(batch, length, torch.Generator().manual_seed(seed), CPU)


def golden(name: str) -> list[dict]:
    return [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


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


def test_the_fifteen_problems_are_there():
    assert set(NAMES) <= set(PROBLEMS.names())
    assert problem_task_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_samples_of_the_released_code_are_reproduced(name: str):
    problem, rows = open_problem(name), golden(name)
    assert len(rows) == 310
    by_length = itertools.groupby(sorted(rows, key=lambda row: row["input_length"]), lambda row: row["input_length"])
    for length, group in by_length:
        same = list(group)
        answer = problem.solve(torch.tensor([row["input"] for row in same]))
        assert answer.targets.tolist() == [row["target"] for row in same]
        assert answer.mask.tolist() == [[bool(counts) for counts in row["mask"]] for row in same]
        assert {row["output_length"] for row in same} == {problem.output_length(length)}
    first = rows[0]
    assert (problem.level, problem.input_size) == (first["level"], first["input_size"])
    assert problem.classes == first["output_size"]
    assert not first["single_output"] or {problem.output_length(length) for length in LENGTHS} == {1}


def test_the_encoder_reads_what_the_released_wrapper_feeds_it():
    # The wrapper can be told to add computation tokens, which this program has none of.
    rows = [row for row in golden("assembled") if row["computation_steps_mult"] == 0]
    assert len(rows) == 60
    for row in rows:
        problem = open_problem(row["task"])
        inputs = torch.tensor(row["input"])
        sample = Sample(inputs, *problem.solve(inputs))
        tokens = assemble(sample, problem)
        assert tokens.tolist() == row["encoder_input"]
        assert vocabulary_size(problem) == row["vocab_width"]
        first, past = row["output_positions"]
        assert (first, past) == (inputs.shape[1], tokens.shape[1])
        assert past - first == sample.targets.shape[1] == sample.mask.shape[1]


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_is_the_one_found_one_by_one(name: str):
    problem = open_problem(name)
    for length in LENGTHS:
        sample = drawn(name, 24, length, seed=length)
        assert sample.inputs.shape == (24, length - (name == "modular_arithmetic" and length % 2 == 0))
        for tokens, target, mask in zip(*(each.tolist() for each in sample), strict=True):
            expected, counted = ANSWER[name](tokens)
            assert target == expected
            assert mask == [at < counted for at in range(len(expected))]
        solved = problem.solve(sample.inputs)
        assert solved.targets.equal(sample.targets)
        assert solved.mask.equal(sample.mask)


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


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_makes_the_same_batch(name: str):
    one, again, other = drawn(name, 16, 40), drawn(name, 16, 40), drawn(name, 16, 40, seed=1)
    assert all(a.equal(b) for a, b in zip(one, again, strict=True))
    assert not one.inputs.equal(other.inputs)
    assert {each.dtype for each in one} == {torch.int64, torch.bool}


def strings(name: str, length: int) -> Iterator[tuple[float, list[int]]]:
    """Every string of a length and how probable it is."""
    alphabet = {"cycle_navigation": 3, "bucket_sort": 5}.get(name, 2)
    if name == "compute_sqrt":
        for tokens in itertools.product(range(2), repeat=length):
            if any(tokens):
                yield 1 / (2**length - 1), list(tokens)
    elif name.startswith("binary"):
        for size in range(1, length - 1):
            other = length - 1 - size
            for first, second in itertools.product(range(1, 2**size), range(1, 2**other)):
                digits = [[number >> at & 1 for at in range(n)] for number, n in ((first, size), (second, other))]
                yield 1 / (length - 2) / (2**size - 1) / (2**other - 1), [*digits[0], 2, *digits[1]]
    elif name == "stack_manipulation":
        for size in range(1, length):
            for tokens in itertools.product(*[range(2)] * size, *[range(2, 5)] * (length - size)):
                yield 1 / (length - 1) / 2**size / 3 ** (length - size), list(tokens)
    elif name == "modular_arithmetic":
        spots = [range(5, 8) if at % 2 else range(5) for at in range(length - (length % 2 == 0))]
        for tokens in itertools.product(*spots):
            yield 1 / 5 ** (len(tokens) // 2 + 1) / 3 ** (len(tokens) // 2), list(tokens)
    elif name == "missing_duplicate_string":
        half = length // 2
        for word in itertools.product(range(2), repeat=half):
            for at in range(2 * half):
                twice = [*word, *word, *[3] * (length % 2)]
                yield 1 / 2**half / (2 * half), [*twice[:at], 2, *twice[at + 1 :]]
    else:
        for tokens in itertools.product(range(alphabet), repeat=length):
            yield alphabet**-length, list(tokens)


def enumerated(name: str, length: int) -> dict[str, float]:
    """Both ceilings from all strings of a length."""
    at_place: list[Counter] = []
    counted_all = constant = 0.0
    for share, tokens in strings(name, length):
        target, counted = ANSWER[name](tokens)
        counted_all += share * counted
        constant += share * max(Counter(target[:counted]).values())
        at_place += [Counter() for _ in range(len(target) - len(at_place))]
        for place, token in enumerate(target[:counted]):
            at_place[place][token] += share
    best = sum(max(counts.values()) for counts in at_place if counts)
    return {"by_position": best / counted_all, "without_positions": constant / counted_all}


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"modular_arithmetic_brackets", "solve_equation"}))
def test_the_ceilings_are_those_of_all_strings_counted(name: str):
    for length in range(2 if name == "missing_duplicate_string" else 3, 7 if name == "bucket_sort" else 9):
        if name == "modular_arithmetic" and length > 6:
            break
        counted = enumerated(name, length)
        for ceiling, value in open_problem(name).ceilings(length).items():
            tolerance = 0.025 if (name, ceiling) in ESTIMATED else 1e-12
            assert value == pytest.approx(counted[ceiling], abs=tolerance), (length, ceiling)


@cache
def values_of(length: int) -> tuple[float, ...]:
    """The distribution of an expression's value, by the recursion of the grammar."""
    if length < 5:
        return (0.2,) * 5
    shares = [0.0] * 5
    for left in range(1, length - 3):
        for (a, p), (b, q) in itertools.product(enumerate(values_of(left)), enumerate(values_of(length - 3 - left))):
            for value in (a + b, a - b, a * b):
                shares[value % 5] += p * q / 3 / (length - 4)
    return tuple(shares)


def test_zero_is_the_most_frequent_value_of_long_expressions():
    brackets = open_problem("modular_arithmetic_brackets")
    for length in (1, 4, 5, 9, 41):
        assert distribution(length)[length] == pytest.approx(values_of(length), abs=1e-12)
        assert brackets.ceilings(length)["by_position"] == pytest.approx(max(values_of(length)), abs=1e-12)
    assert brackets.ceilings(500)["by_position"] == pytest.approx(0.316, abs=5e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_says_of_its_problem_what_the_problem_says_of_itself(name: str):
    task, problem = read_problem_task(name), open_problem(name)
    assert task.problem == name
    assert (task.level, task.classes) == (problem.level, problem.classes)
    assert task.chance == pytest.approx(problem.chance(), abs=1e-9)
    assert task.permutation_invariant == problem.permutation_invariant
    step = 20 if {(name, ceiling) for ceiling in task.ceilings} & ESTIMATED else 1
    at = [problem.ceilings(length) for length in range(41, 501, step)]
    assert set(task.ceilings) == set(at[0])
    for ceiling, value in task.ceilings.items():
        mean = sum(each[ceiling] for each in at) / len(at)
        assert value == pytest.approx(mean, abs=0.51e-4 if step == 1 else 0.004), ceiling


def test_models_without_positions_have_the_known_ceilings():
    for name in ("reverse_string", "duplicate_string", "odds_first"):
        assert read_problem_task(name).ceilings["without_positions"] == 0.5278
    assert read_problem_task("bucket_sort").ceilings == {"by_position": 0.9013, "without_positions": 0.2369}
    assert read_problem_task("modular_arithmetic_brackets").ceilings == {"by_position": 0.3101}


def test_where_order_does_not_matter_a_shuffled_input_has_the_same_answer():
    for name in NAMES:
        sample, problem = drawn(name, 64, 13), open_problem(name)
        if name.startswith(("modular", "solve", "missing", "binary", "stack")):
            assert not problem.permutation_invariant
            continue
        turned = problem.solve(sample.inputs.roll(1, 1)).targets
        assert turned.equal(sample.targets) == problem.permutation_invariant, name


def test_no_task_changes_without_a_new_version():
    for name in problem_task_names():
        task = read_problem_task(name)
        assert FINGERPRINTS[task.name, task.version] == task.fingerprint[:16], name


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_docstring_is_true(name: str):
    problem = open_problem(name)
    text = sys.modules[problem.__module__].__doc__ or ""
    arrows = re.findall(r"(?:^|\s{2,})(\S+(?: \S+)*) {2,}-> {2,}(\d(?: \d)*)(?= {2,}|\n)", text)
    masks = re.findall(r"\(mask\) +(\d(?: \d)*)", text)
    assert arrows and masks
    for drawn_tokens, drawn_target in arrows:
        tokens = [2 if token in "+*P" else int(token) for token in drawn_tokens.split()]
        answer = problem.solve(torch.tensor([tokens]))
        assert answer.targets.tolist() == [[int(token) for token in drawn_target.split()]]
        assert answer.mask.int().tolist() == [[int(counts) for counts in masks[0].split()]]


def test_bad_names_and_lengths_are_one_sentence():
    with pytest.raises(UnknownName, match="did you mean reverse_string"):
        open_problem("reverse_strnig")
    with pytest.raises(UnknownName, match="did you mean bucket_sort"):
        read_problem_task("bucket-srt")
    for name in NAMES:
        with pytest.raises(SpecError, match="has no strings of length 0; ask for 1 or more"):
            drawn(name, 2, 0)


def test_a_problem_of_ones_own_needs_two_functions():
    class Twice(Problem):
        title, level, input_size, classes = "Twice", "regular", 2, 2

        @classmethod
        def draw(cls, batch, length, generator, device):
            return torch.randint(2, (batch, length), generator=generator, device=device)

        @classmethod
        def solve(cls, inputs):
            return all_count(inputs)

    sample = Twice.sample(3, 4, torch.Generator().manual_seed(0), CPU)
    assert assemble(sample, Twice).shape == (3, 8)
    assert Twice.ceilings(4) == {"by_position": 0.5}


def test_the_oracles_know_every_problem():
    assert set(DRAW) == set(ANSWER)
