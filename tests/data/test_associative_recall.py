"""Associative recall as an algorithmic problem: answers one by one, strings, what needs no skill, and training."""

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lpe_eval.cli import app
from lpe_eval.data.problem import assemble, open_problem, vocabulary_size
from lpe_eval.errors import SpecError
from lpe_eval.report.frames import read_csv
from lpe_eval.spec.che_spec import protocol_names, read_protocol
from lpe_eval.spec.fingerprint import spec_text
from lpe_eval.table import CHE
from tests.support.che_runs import tiny
from tests.support.problem_samples import drawn

NAME = "associative_recall"
FILLER = 24


def answer(tokens: list[int]) -> list[int]:
    """One string at a time: a dictionary of the pairs, asked for each key."""
    count = min(4, len(tokens) // 3)
    known, rest = {}, tokens[:-count]
    while rest:
        if rest[0] == FILLER:
            rest = rest[1:]
        else:
            known[rest[0]] = rest[1] - 16
            rest = rest[2:]
    return [known[key] for key in tokens[-count:]]


def one_by_one(length: int, rng: random.Random) -> list[int]:
    """A string: pairs and fillers in a row, then the questions."""
    count = min(4, length // 3)
    keys = rng.sample(range(16), count)
    pieces = [[key, rng.randrange(16, 24)] for key in keys]
    places = sorted(rng.sample(range(length - 2 * count), count))
    row = [[FILLER] for _ in range(length - 2 * count)]
    for place, piece in zip(places, pieces, strict=True):
        row[place] = piece
    return [token for piece in row for token in piece] + rng.sample(keys, count)


@pytest.mark.parametrize("length", [3, 4, 5, 6, 8, 9, 11, 12, 13, 20, 41, 500])
def test_every_answer_is_the_one_found_one_by_one(length: int):
    problem = open_problem(NAME)
    inputs, targets, mask = drawn(NAME, 64, length, seed=length)
    assert inputs.shape == (64, length) and targets.shape == (64, problem.output_length(length)) and mask.all()
    assert problem.output_length(length) == min(4, length // 3)
    for tokens, target in zip(inputs.tolist(), targets.tolist(), strict=True):
        assert target == answer(tokens)
        count = len(target)
        keys = [token for token in tokens[:-count] if token < 16]
        assert sorted(keys) == sorted(tokens[-count:]) and len({*keys}) == count, "each key once, and asked for once"
        assert sum(token == FILLER for token in tokens) == length - 3 * count
    tokens = assemble(drawn(NAME, 2, length), problem)
    assert tokens.max() == vocabulary_size(problem) - 1 == 25


def test_the_example_of_the_docstring_is_true():
    found = open_problem(NAME).solve(torch.tensor([[3, 17, 24, 9, 20, 9, 3]]))
    assert found.targets.tolist() == [[4, 1]] and found.mask.tolist() == [[True, True]]
    assert open_problem(NAME).level == "regular"


def test_strings_are_drawn_as_one_by_one():
    """Where pairs stand, which key is asked for first, and which values there are, beside a sampler of plain Python."""
    many, length, rng = 12000, 8, random.Random(1)

    def shape(tokens: list[int]) -> tuple:
        given = tokens[:-2]
        first = [at for at, token in enumerate(given) if token < 16]
        return (*first, tokens[-2] == given[first[0]], (given[first[0] + 1] - 16) // 4, given[first[1]] // 8)

    seen = Counter(shape(tokens) for tokens in drawn(NAME, many, length, seed=2).inputs.tolist())
    wanted = Counter(shape(one_by_one(length, rng)) for _ in range(many))
    assert seen.keys() == wanted.keys() and len(seen) == 6 * 2 * 2 * 2
    statistic = sum((seen[each] - wanted[each]) ** 2 / (seen[each] + wanted[each]) for each in seen)
    freedom = len(seen) - 1
    assert statistic < freedom + 6 * (2 * freedom) ** 0.5 + 6
    # Nothing is more likely than anything else.
    assert max(seen.values()) < 1.5 * min(seen.values())


@pytest.mark.parametrize("length", [3, 6, 9, 12, 40])
def test_the_ceilings_are_those_of_all_values_counted(length: int):
    count = min(4, length // 3)
    every = list(itertools.product(range(8), repeat=count))
    best = sum(max(Counter(values).values()) for values in every) / len(every) / count
    ceilings = open_problem(NAME).ceilings(length)
    assert ceilings["without_positions"] == pytest.approx(best, abs=1e-12)
    assert ceilings["by_position"] == open_problem(NAME).chance() == 1 / 8


def test_short_strings_do_not_exist_and_no_protocol_that_ships_asks_for_it():
    with pytest.raises(SpecError, match="has no strings of length 2; ask for 3 or more"):
        drawn(NAME, 2, 2)
    assert all(NAME not in read_protocol(name).tasks for name in protocol_names())


def test_encoders_are_trained_on_it_and_scored(tmp_path: Path):
    (tmp_path / "tiny.yaml").write_text(spec_text(tiny(name="tiny", steps=20, check_every=10)))
    out = tmp_path / "out"
    asked = ["che", "--train", "--encoding", "rope", "--tasks", "associative-recall", "--protocol",
             str(tmp_path / "tiny.yaml"), "--device", "cpu", "--out", str(out), "-q"]  # fmt: skip
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, asked)
    assert result.exit_code == 0, result.output
    rows = read_csv(out / "che.csv", CHE)
    accuracy = rows[rows["metric"] == "accuracy"]
    assert set(accuracy["task"]) == {NAME} and set(accuracy["task_version"]) == {0}
    assert (accuracy["chance"] == 1 / 8).all() and accuracy["value"].between(0, 1).all()
    assert set(accuracy["status"]) == {"ok"} and accuracy["length"].min() >= 3
    cited = CliRunner().invoke(app, ["show", str(out), "--cite"])
    assert "arora2023zoology" in cited.output
