"""Scores of algorithmic problems against answerers whose score is known, and brute force."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lpe_eval.data.problem import Problem, open_problem
from lpe_eval.errors import SpecError
from lpe_eval.measure.score_problem import (
    best_ceiling,
    correct_answers,
    problem_test_set,
)
from lpe_eval.registry import PROBLEMS
from tests.support.answerers import CPU, MASKED, constant, guessing, one_hot, perfect, scored, seeded

EVERY = [open_problem(name) for name in PROBLEMS.names()]
every_problem = pytest.mark.parametrize("problem", EVERY, ids=PROBLEMS.names())


@every_problem
@pytest.mark.parametrize("length", [1, 2, 9, 20])
def test_a_perfect_answerer_is_right_everywhere(problem: type[Problem], length: int):
    if length < problem.shortest_length:
        return
    found = scored(perfect(problem, length), problem, length)
    assert (found.accuracy, found.exact_match, found.accuracy_stderr, found.exact_match_stderr) == (1, 1, 0, 0)
    assert np.array_equal(found.n_correct, found.n_scored)
    assert (found.n_samples, found.n_tokens) == (40, int(found.n_scored.sum()))


@every_problem
def test_the_score_is_what_counting_by_hand_gives(problem: type[Problem]):
    answer = guessing(problem)
    found = scored(answer, problem, 7)
    strings = problem_test_set(problem, 7, 40, 1)
    again = guessing(problem)
    right, counted, whole = [], [], []
    for start in range(0, 40, 16):
        rows = range(start, min(start + 16, 40))
        inputs = strings.inputs[start : start + 16]
        outputs = strings.targets.shape[1]
        logits = again(torch.zeros(len(rows), inputs.shape[1] + outputs, dtype=torch.long), seeded())
        for row, own in zip(rows, logits[:, inputs.shape[1] :], strict=True):
            hits = [
                max(range(problem.classes), key=lambda token, place=place: float(place[token])) == int(target)
                for place, target, counts in zip(own, strings.targets[row], strings.mask[row], strict=True)
                if counts
            ]
            right.append(sum(hits))
            counted.append(len(hits))
            whole.append(all(hits))
    assert found.n_correct.tolist() == right
    assert found.n_scored.tolist() == counted
    assert found.accuracy == sum(right) / sum(counted)
    assert found.exact_match == sum(whole) / 40


@pytest.mark.parametrize("name", ["reverse_string", "duplicate_string", "odds_first", "bucket_sort", "even_pairs"])
def test_the_best_constant_of_each_string_lands_on_the_ceiling_without_positions(name: str):
    problem = open_problem(name)
    length, samples = 41, 4000

    def answer(tokens: Tensor, generator: torch.Generator) -> Tensor:
        outputs = problem.output_length(length)
        solved = problem.solve(tokens[:, :-outputs]).targets
        most = torch.stack([(solved == token).sum(1) for token in range(problem.classes)]).argmax(0)
        if outputs == 1:
            most = torch.zeros_like(most)
        return one_hot(most[:, None].expand(-1, tokens.shape[1]), problem.classes)

    found = scored(answer, problem, length, samples=samples, sub_batch=1000)
    ceilings = problem.ceilings(length)
    ceiling = ceilings.get("without_positions", ceilings["by_position"])
    assert abs(found.accuracy - ceiling) < 4 * found.accuracy_stderr
    assert 0 < found.accuracy_stderr < 0.01


@pytest.mark.parametrize("problem", MASKED, ids=lambda problem: problem.__name__)
def test_the_best_answer_at_each_place_lands_on_the_ceiling_by_position(problem: type[Problem]):
    length = 24
    known = problem.sample(20_000, length, seeded(3), CPU)
    tokens = torch.stack([((known.targets == token) & known.mask).sum(0) for token in range(problem.classes)])
    best = tokens.argmax(0)

    def answer(tokens: Tensor, generator: torch.Generator) -> Tensor:
        before = best.new_zeros(tokens.shape[1] - len(best))
        return one_hot(torch.cat([before, best]).expand(len(tokens), -1), problem.classes)

    found = scored(answer, problem, length, samples=4000, sub_batch=1000)
    # Some ceilings are themselves estimates, good to 0.01 at this length.
    assert abs(found.accuracy - problem.ceilings(length)["by_position"]) < 4 * found.accuracy_stderr + 0.01
    assert best_ceiling(problem, length) == max(problem.ceilings(length).values())


def test_an_answer_that_ignores_one_token_is_counted_token_by_token():
    problem = open_problem("bucket_sort")
    found = scored(constant(problem, 0), problem, 9)
    strings = problem_test_set(problem, 9, 40, 1)
    assert found.n_correct.tolist() == (strings.inputs == 0).sum(1).tolist()
    assert found.exact_match == 0


def test_the_test_set_depends_on_problem_length_samples_and_seed_alone():
    problem, seen = open_problem("reverse_string"), []

    def watching(tokens: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(tokens)
        return one_hot(torch.zeros_like(tokens), 2)

    def strings(**changes: Any) -> Tensor:
        seen.clear()
        scored(watching, problem, **{"length": 12, **changes})
        return torch.cat(seen)

    state = torch.get_rng_state()
    first = strings()
    torch.rand(5)
    assert torch.equal(first, strings(sub_batch=7))
    assert torch.equal(first, strings(sub_batch=64))
    assert torch.equal(first[:, :12], problem_test_set(problem, 12, 40, 1).inputs)
    assert not torch.equal(first, strings(seed=2))
    assert not torch.equal(first[:30], strings(samples=30))
    assert not torch.equal(first[:, :11], strings(length=11)[:, :11])
    other = problem_test_set(open_problem("duplicate_string"), 12, 40, 1).inputs
    assert not torch.equal(first[:, :12], other)
    torch.set_rng_state(state)
    strings()
    assert torch.equal(torch.get_rng_state(), state)


def test_an_answerer_gets_a_generator_of_its_own_and_no_gradients():
    problem, drawn = open_problem("parity_check"), []

    def answer(tokens: Tensor, generator: torch.Generator) -> Tensor:
        assert not torch.is_grad_enabled()
        drawn.append(torch.rand(3, generator=generator))
        return torch.zeros(*tokens.shape, 2)

    scored(answer, problem)
    first, drawn = list(drawn), []
    assert not torch.equal(first[0], first[1])
    scored(answer, problem)
    assert all(torch.equal(*pair) for pair in zip(first, drawn, strict=True))


def test_logits_of_the_answer_alone_and_of_the_whole_string_score_alike():
    problem = open_problem("stack_manipulation")
    table_of_guesses = torch.rand(64, 19, 3, generator=seeded(2))

    def whole(tokens: Tensor, generator: torch.Generator) -> Tensor:
        return table_of_guesses[: len(tokens)]

    def last(tokens: Tensor, generator: torch.Generator) -> Tensor:
        return table_of_guesses[: len(tokens), 9:]

    first, second = scored(whole, problem), scored(last, problem)
    assert np.array_equal(first.n_correct, second.n_correct)


def test_a_logit_that_is_no_number_is_a_wrong_answer():
    problem = open_problem("reverse_string")

    def broken(tokens: Tensor, generator: torch.Generator) -> Tensor:
        logits = perfect(problem, 9)(tokens, generator)
        logits[:, -1] = math.nan
        return logits

    found = scored(broken, problem)
    assert found.n_correct.tolist() == [8] * 40
    assert found.exact_match == 0


def test_stacked_runs_are_counted_at_once():
    problem = open_problem("binary_addition")
    sample = problem.sample(8, 10, seeded(), CPU)
    logits = torch.rand(3, 8, 21, 3, generator=seeded(1))
    together = correct_answers(logits, sample)
    assert together.shape == (3, 8)
    for run in range(3):
        assert torch.equal(together[run], correct_answers(logits[run], sample))


def test_a_length_without_strings_is_refused():
    with pytest.raises(SpecError, match="no strings of length 0"):
        scored(constant(open_problem("parity_check"), 0), open_problem("parity_check"), 0)
