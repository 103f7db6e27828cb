"""Recall of models that are known in closed form: those that know nothing, everything, or what a window holds."""

import itertools
import math

import numpy as np
import pytest
import torch

from lpe_eval.errors import CheckpointError
from lpe_eval.measure.recall.needles import hidden_needles, needle_trial
from lpe_eval.measure.recall.pairs import pairs_trial, token_pairs, written_pairs
from lpe_eval.measure.recall.repeat import passages_of, pieces_needed, random_pieces, repeat_trial, text_pieces
from lpe_eval.measure.recall.scoring import score
from lpe_eval.measure.recall.trial import Trial, answers, chance_among
from tests.support.own_recallers import SURE, Lookup, copier, lookup, uniform
from tests.support.recallers import TOKENIZER, Asked, asked, texts, value

LN = math.log(258)
QUESTION = len('\nMOTABE = "')
WORD = len("motabe_")


def repeats(length: int, bos: bool = False, wanted: int = 256) -> Trial:
    source = torch.Generator().manual_seed(1)
    pieces = random_pieces(np.arange(256), 64, pieces_needed([length], 64, wanted), source)
    return repeat_trial("repeat", pieces, length, wanted, bos)


def needles(length: int, depths: tuple[int, ...] = (0, 50, 100), prompts: int = 4, bos: bool = False) -> Trial:
    hidden = hidden_needles(TOKENIZER, texts(), form="assignment", prompts=prompts, candidates=26, longest=512, seed=0)
    return needle_trial("needle", hidden, length, depths, bos)


def pairs(length: int, form: str = "identifiers", count: int = 4, bos: bool = False) -> Trial:
    if form == "tokens":
        given = token_pairs(np.arange(256), prompts=4, count=count, longest=512, seed=0)
    else:
        given = written_pairs(TOKENIZER, texts(), prompts=4, count=count, longest=512, seed=0)
    return pairs_trial("pairs", given, length, bos)


@pytest.mark.parametrize("bos", [False, True])
def test_a_uniform_model_needs_ln_v_in_both_copies(bos: bool):
    (found,) = asked(uniform(), repeats(128, bos), 256 if bos else None)
    for metric in ("copy_nats", "control_nats"):
        assert value(found, metric) == pytest.approx(LN, abs=1e-6)
    assert value(found, "gain_nats") == 0
    assert value(found, "accuracy") == value(found, "control_accuracy") == pytest.approx(1 / 258, abs=1e-12)
    assert found.chance["accuracy"] == 1 / 258 and found.place == (64, None)


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("length", [2, 64, 128, 256, 512])
def test_a_copier_needs_nothing_for_the_second_copy(length: int, bos: bool):
    trial = repeats(length, bos)
    # A window feeds as many tokens as both passages have, with BOS and without, so half of it is the distance.
    module = copier()
    (found,) = asked(module, trial, 256 if bos else None)
    assert value(found, "copy_nats") == pytest.approx(0, abs=1e-6)
    assert value(found, "accuracy") == 1
    # The control is wrong wherever the other passage has another token, and as sure of itself.
    halves = [window.tokens[: 2 * (length // 2)].reshape(2, -1) for window in trial.windows[len(trial.windows) // 2 :]]
    wrong = np.mean([first != second for first, second in halves])
    assert value(found, "control_nats") == pytest.approx(SURE * wrong, abs=1e-4)


@pytest.mark.parametrize("window", [64, 128])
def test_a_copier_with_a_window_copies_up_to_that_distance_and_not_beyond(window: int):
    for length in (64, 128, 256, 512):
        (found,) = asked(copier(window), repeats(length))
        distance = length // 2
        assert found.place.distance == distance
        if distance <= window:
            assert value(found, "copy_nats") == pytest.approx(0, abs=1e-6)
            assert value(found, "accuracy") == 1
        else:
            assert value(found, "copy_nats") == value(found, "control_nats") == pytest.approx(LN, abs=1e-6)
            assert value(found, "gain_nats") == 0
            assert value(found, "accuracy") == pytest.approx(1 / 258, abs=1e-12)
    # One token less in sight, and nothing is left of it.
    (found,) = asked(copier(window - 1), repeats(2 * window))
    assert value(found, "gain_nats") == 0


def test_every_distance_scores_the_same_pieces():
    source = torch.Generator().manual_seed(3)
    pieces = text_pieces(texts(), 64, pieces_needed([128, 256, 512], 64, 512), source)
    told = []
    for length in (128, 256, 512):
        trial = repeat_trial("repeat", pieces, length, 512, False)
        count, each = passages_of(length, 64, 512)
        assert (count, each) == (512 // (length // 2), length // 128)
        copies = trial.windows[:count]
        scored = np.concatenate([window.tokens[window.asked] for window in copies])
        told.append(scored.tolist())
        for window, control in zip(copies, trial.windows[count:], strict=True):
            assert len(window.tokens) == length + 1
            assert np.array_equal(window.tokens[window.asked - length // 2], window.tokens[window.asked])
            assert np.array_equal(control.tokens[control.asked], window.tokens[window.asked])
            assert not np.array_equal(control.tokens[: length // 2], window.tokens[: length // 2])
        (found,) = asked(uniform(), trial)
        assert [item.item for item in found.items["gain_nats"]] == [f"piece-{at:04}" for at in range(8)]
        assert {item.n for item in found.items["gain_nats"]} == {64}
    assert told[0] == told[1] == told[2]


def test_a_uniform_model_ranks_a_value_in_the_middle_and_gains_nothing():
    for trial, candidates in ((needles(256), 26), (pairs(256), 4), (pairs(64, "tokens"), 4)):
        for found in asked(uniform(), trial):
            chance = chance_among(candidates)
            assert value(found, "value_nats") == pytest.approx(LN, abs=1e-6)
            assert value(found, "gain_nats") == 0
            assert value(found, "accuracy") == pytest.approx(1 / candidates, abs=1e-12)
            assert value(found, "rank") == (candidates + 1) / 2
            assert value(found, "choice_nats") == pytest.approx(math.log(candidates), abs=1e-12)
            assert found.chance == chance


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("window", [100, 200, None])
def test_a_lookup_finds_needles_up_to_its_window_and_guesses_beyond(window: int | None, bos: bool):
    reached = set()
    for length in (64, 128, 256, 512):
        for found in asked(lookup(QUESTION, window), needles(length, bos=bos), 256 if bos else None)[:-1]:
            distance = found.place.distance
            assert distance is not None
            inside = window is None or distance <= window
            reached.add(inside)
            assert value(found, "value_nats") == pytest.approx(0 if inside else LN, abs=1e-6)
            assert value(found, "gain_nats") == pytest.approx(LN if inside else 0, abs=1e-6)
            assert value(found, "accuracy") == pytest.approx(1 if inside else 1 / 26, abs=1e-12)
            assert value(found, "rank") == (1 if inside else 13.5)
    assert reached == ({True} if window is None else {True, False})


def test_needles_stand_where_they_should_and_all_else_is_the_same():
    depths = (0, 25, 50, 75, 100)
    trial = needles(256, depths)
    distances = [place.distance for place in trial.places[:-1]]
    line = len('\nMOTABE = "q"\n')
    assert distances[0] == 256 - QUESTION and distances[-1] == line
    assert trial.places[-1] == (None, None)
    for number in range(4):
        control, *prompts = (window.tokens for window in trial.windows[6 * number : 6 * number + 6])
        assert len(control) == 257
        for tokens, distance in zip(prompts, distances, strict=True):
            assert distance is not None
            apart = np.flatnonzero(tokens != control)
            start = 256 - distance - QUESTION
            assert start <= apart.min() and apart.max() < start + line
            needle = bytes(tokens[start : start + line].tolist()).decode()
            question = bytes(tokens[-QUESTION - 1 :].tolist()).decode()
            assert needle.startswith(question) and needle[-2:] == '"\n'
            assert tokens[256 - distance] == tokens[256]
    # The parts of a depth are those of the whole.
    gaps = [first - second for first, second in itertools.pairwise(each for each in distances if each is not None)]
    assert max(gaps) - min(gaps) <= 1


def test_the_row_of_all_depths_is_their_mean():
    found = asked(lookup(QUESTION, 100), needles(256))
    for metric in ("value_nats", "gain_nats", "accuracy", "rank"):
        each = [value(one, metric) for one in found[:-1]]
        assert value(found[-1], metric) == pytest.approx(sum(each) / len(each), abs=1e-12)
    assert [item.n for item in found[-1].items["accuracy"]] == [3] * 4


@pytest.mark.parametrize("form", ["identifiers", "tokens"])
@pytest.mark.parametrize("bos", [False, True])
def test_a_lookup_knows_every_pair_and_takes_the_right_key(form: str, bos: bool):
    order = WORD if form == "identifiers" else 1
    for length in (128, 256, 512):
        (found,) = asked(lookup(order), pairs(length, form, bos=bos), 256 if bos else None)
        assert value(found, "accuracy") == 1 and value(found, "rank") == 1
        assert value(found, "value_nats") == pytest.approx(0, abs=1e-6)
        assert value(found, "gain_nats") == pytest.approx(LN, abs=1e-6)
        # Pairs that lie farther back than it sees are guessed.
        (found,) = asked(lookup(order, 32), pairs(length, form, bos=bos), 256 if bos else None)
        assert value(found, "accuracy") == pytest.approx(1 / 4, abs=1e-12)
        assert value(found, "gain_nats") == 0


@pytest.mark.parametrize("form", ["identifiers", "tokens"])
def test_no_key_of_a_prompt_stands_in_its_text(form: str):
    trial = pairs(512, form)
    for window, control in zip(trial.windows[::2], trial.windows[1::2], strict=True):
        tokens, asks = window.tokens, window.asked
        assert window.candidates is not None and len({*window.candidates[0].tolist()}) == 4
        assert (window.candidates[:, 0] == tokens[asks]).all()
        assert np.array_equal(control.tokens[asks], tokens[asks])
        size, behind = (6, 7) if form == "identifiers" else (1, 1)
        keys = [tokens[at - behind :][:size].tolist() for at in asks]
        assert len({tuple(key) for key in keys}) == 4
        for key in keys:
            held = [at for at in range(len(tokens) - size + 1) if tokens[at : at + size].tolist() == key]
            assert len(held) == 2, "once with its value and once in the question"
            assert held[0] < held[1] and tokens[held[0] + behind] == tokens[held[1] + behind]
            without = control.tokens
            assert [at for at in range(len(without) - size + 1) if without[at : at + size].tolist() == key] == held[1:]


def test_ranks_of_equal_candidates_are_those_of_all_their_orders():
    draw = np.random.default_rng(0)
    choices = draw.integers(0, 3, (200, 5)).astype(float)
    found = answers(np.zeros(200), np.ones(200), choices)
    for row, (rank, first) in zip(choices, zip(found["rank"], found["accuracy"], strict=True), strict=True):
        # Every order of equal candidates is as likely: the value's place, one at a time.
        above, level = sum(row[1:] > row[0]), sum(row[1:] == row[0])
        places = [above + 1 + before for before in range(level + 1)]
        assert rank == pytest.approx(sum(places) / len(places))
        assert first == pytest.approx(sum(place == 1 for place in places) / len(places))
    logs = torch.from_numpy(choices)
    assert found["choice_nats"] == pytest.approx(-logs.log_softmax(1)[:, 0].numpy())


class LittleMemory(Lookup):
    """Holds two texts at once, and counts how many it was given."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        given.append(len(tokens))
        if len(tokens) > 2:
            raise MemoryError("no room for so many")
        return super().forward(tokens)


given: list[int] = []


def test_batches_are_halved_where_memory_runs_out_and_nothing_else_changes():
    trial = needles(64)
    whole = asked(lookup(QUESTION), trial, batch_tokens=1)
    given.clear()
    assert asked(LittleMemory(QUESTION), trial, batch_tokens=16 * 64) == whole
    # Sixteen windows: of four prompts three depths and a control each.
    assert given == [16, 8, 4, *[2] * 8]


def test_what_a_model_does_not_know_and_what_has_no_number_is_not_hidden():
    trial = repeats(64)
    with pytest.raises(CheckpointError, match="holds the token 255 and the model has 64 symbols"):
        score(Asked(uniform(), 64), trial.windows, bos_id=None, batch_tokens=64, seed=0, advance=lambda tokens: None)
    broken = uniform()
    broken.sharp = math.nan
    (found,) = asked(broken, trial)
    assert math.isnan(value(found, "copy_nats")) and value(found, "accuracy") == 0
