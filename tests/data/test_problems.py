"""The fifteen problems: the released code's own samples, every answer one by one, and what their docstrings say."""

import itertools
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from lpe_eval.data.problem import Problem, Sample, all_count, assemble, open_problem, vocabulary_size
from lpe_eval.errors import SpecError, UnknownName
from lpe_eval.registry import PROBLEMS
from lpe_eval.spec.che_task import read_problem_task
from lpe_eval.spec.task_files import problem_task_names
from tests.support.problem_oracles import ANSWER, DRAW
from tests.support.problem_samples import CPU, NAMES, drawn

GOLDEN = Path(__file__).parents[1] / "golden" / "che"


LENGTHS = [*range(1, 14), 20, 40, 41, 61, 62, 63, 64, 100, 127, 500]


def golden(name: str) -> list[dict]:
    return [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


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
def test_the_same_seed_makes_the_same_batch(name: str):
    one, again, other = drawn(name, 16, 40), drawn(name, 16, 40), drawn(name, 16, 40, seed=1)
    assert all(a.equal(b) for a, b in zip(one, again, strict=True))
    assert not one.inputs.equal(other.inputs)
    assert {each.dtype for each in one} == {torch.int64, torch.bool}


def test_where_order_does_not_matter_a_shuffled_input_has_the_same_answer():
    for name in NAMES:
        sample, problem = drawn(name, 64, 13), open_problem(name)
        if name.startswith(("modular", "solve", "missing", "binary", "stack")):
            assert not problem.permutation_invariant
            continue
        turned = problem.solve(sample.inputs.roll(1, 1)).targets
        assert turned.equal(sample.targets) == problem.permutation_invariant, name


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
