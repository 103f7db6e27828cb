"""Prompts of recall: those of lm-evaluation-harness character for character, keys and values under tokenizers, and what
does not fit."""

import hashlib
import itertools
import json
import random
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lpe_eval.data.tokenizer import EncodedText, Tokenizer, open_tokenizer
from lpe_eval.errors import DataError, LengthError
from lpe_eval.measure.recall.needles import hidden_needles, needle_trial
from lpe_eval.measure.recall.niah import (
    PairsOfWords,
    Prompt,
    counted_by,
    niah_prompts,
    niah_trial,
    words_of_the_harness,
)
from lpe_eval.measure.recall.pairs import pairs_trial, token_pairs, written_pairs
from lpe_eval.measure.recall.repeat import text_pieces
from lpe_eval.measure.recall.trial import occurs, source_of
from lpe_eval.measure.recall.wording import FORMS, LETTERS, written
from tests.support.closed_form import document
from tests.support.own_recallers import Recaller, uniform
from tests.support.recallers import TOKENIZER, asked, texts, value

GOLDEN = Path(__file__).parents[1] / "golden" / "recall"
OFFICIAL = json.loads((GOLDEN / "niah_single_1.json").read_text(encoding="utf-8"))
CASES = OFFICIAL["cases"]


class Words(Sequence[str]):
    """The words that the golden prompts were drawn from, as far as they were drawn; the others are empty."""

    def __len__(self) -> int:
        return OFFICIAL["n_words"]

    def __getitem__(self, at):
        return OFFICIAL["words"].get(str(at), "")


def tokenizer_of(case: dict) -> Tokenizer:
    return TOKENIZER if case["tokenizer"] == "bytes" else open_tokenizer(f"hf:{GOLDEN / 'bpe'}")


def as_the_harness_has_it(prompt: Prompt) -> str:
    return f"{prompt.text}\n|{prompt.prefix}\n|{prompt.value}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['tokenizer']}-{case['seed']}-{case['length']}")
def test_prompts_are_those_of_the_harness_character_for_character(case: dict):
    count = counted_by(tokenizer_of(case))
    made = niah_prompts(random.Random(case["seed"]), Words(), count, case["lengths"], case["samples"])[case["length"]]
    ours = [as_the_harness_has_it(each) for each in made]
    assert len(ours) == case["made"]
    if "first" in case:
        first = case["first"]
        assert made[0][:3] == (first["input"], first["gen_prefix"], first["outputs"][0])
        assert count(made[0].text) + 128 == first["length"]
    assert [hashlib.sha256(each.encode()).hexdigest()[:16] for each in ours[:3]] == case["sha256"]
    assert hashlib.sha256("\n\n".join(ours).encode()).hexdigest() == case["sha256_of_all"]
    if "fed" in case:
        # Of a whole run of the harness: the text that a model is fed, the beginning of its answer included.
        fed = "\n\n".join(f"{each.text} {each.prefix}" for each in made)
        assert hashlib.sha256(fed.encode()).hexdigest() == case["fed"]


def test_a_whole_run_of_the_harness_is_among_the_golden_prompts():
    assert [(case["length"], case["samples"]) for case in CASES if "fed" in case] == [(1024, 500), (2048, 500)]


def test_without_its_needle_a_prompt_has_the_other_lines_and_nothing_else():
    for prompt in niah_prompts(random.Random(0), Words(), counted_by(TOKENIZER), (1024, 2048), 4)[1024]:
        lines, others = prompt.text.split("\n"), prompt.without.split("\n")
        (needle,) = [line for line in lines if line not in others]
        assert prompt.value in needle and others == [line for line in lines if line != needle]


def test_pairs_of_words_are_in_the_order_of_all_of_them():
    draw = random.Random(3)
    for _ in range(200):
        letters = "ab-c"
        adjectives, nouns = (
            ["".join(draw.choice(letters) for _ in range(draw.randint(1, 3))) for _ in range(draw.randint(1, 6))]
            for _ in range(2)
        )
        every = sorted({f"{first}-{second}" for first in adjectives for second in nouns})
        found = PairsOfWords(adjectives, nouns)
        assert list(found) == every and len(found) == len(every), (adjectives, nouns)
        assert found[-1] == every[-1] and found[1:4] == every[1:4]


def test_the_words_of_the_harness_are_those_of_the_golden_prompts():
    pytest.importorskip("wonderwords")
    words = words_of_the_harness()
    assert all(first < second for first, second in itertools.pairwise(words[:5000]))
    # Another version of the package has other lists, and its harness has other prompts.
    if metadata.version("wonderwords") == OFFICIAL["wonderwords"]:
        assert len(words) == OFFICIAL["n_words"]
        assert {at: words[int(at)] for at in OFFICIAL["words"]} == OFFICIAL["words"]


def test_a_number_is_scored_as_a_whole_and_told_from_others():
    prompts = niah_prompts(random.Random(0), Words(), counted_by(TOKENIZER), (1024, 2048), 500)[1024][:2]
    trial = niah_trial("niah_single_1", prompts, 1024, TOKENIZER, 5, 0, False)
    assert len(trial.windows) == 2 * (5 + 1)
    for start in (0, 6):
        told = [bytes(window.tokens[window.asked].tolist()).decode() for window in trial.windows[start : start + 6]]
        assert told[0] == told[5] == f" {prompts[start // 6].value}"
        assert len({*told[:5]}) == 5 and all(each[1:].isdecimal() and len(each) == 8 for each in told)
    (found,) = asked(uniform(), trial)
    assert value(found, "value_nats") == pytest.approx(8 * np.log(258), abs=1e-5)
    assert value(found, "gain_nats") == pytest.approx(0, abs=1e-5)
    assert value(found, "exact_match") == pytest.approx(258.0**-8)
    (found,) = asked(ReadsTheNeedle(), trial)
    # Of eight tokens of another number, the space is right and of each digit one in ten.
    assert value(found, "accuracy") == value(found, "exact_match") == value(found, "rank") == 1
    assert value(found, "value_nats") == value(found, "choice_nats") == pytest.approx(0, abs=1e-6)
    assert value(found, "gain_nats") == pytest.approx(8 * np.log(258), abs=1e-5)


def test_what_does_not_fit_is_said_and_never_cut():
    none = niah_prompts(random.Random(0), Words(), lambda text: len(text), (300,), 1)[300]
    assert niah_trial("niah_single_1", none, 300, TOKENIZER, 5, 0, False).why_not.startswith("no prompt of niah")
    hidden = hidden_needles(TOKENIZER, texts(), form="assignment", prompts=2, candidates=26, longest=64, seed=0)
    trial = needle_trial("needle", hidden, 20, (0, 100), False)
    assert trial.why_not == "a needle and its question do not fit into 20 tokens, but into 25"
    assert not trial.windows and [place.depth for place in trial.places] == [0, 100, None]
    assert not needle_trial("needle", hidden, 25, (0, 100), False).why_not
    given = written_pairs(TOKENIZER, texts(), prompts=2, count=4, longest=128, seed=0)
    assert pairs_trial("pairs", given, 64, False).why_not == (
        "4 pairs and their questions do not fit into 64 tokens, but into 100"
    )
    # A line has 13 bytes and the last question 8, of which the value is not fed.
    (window, _, *_) = pairs_trial("pairs", given, 100, False).windows
    assert len(window.tokens) - 1 == (1 + 4 * 13) + (1 + 3 * 13 + 8) - 1 == 100
    with pytest.raises(LengthError, match="4 pairs need more than 8 different tokens, and the text has 8"):
        token_pairs(np.arange(8), prompts=1, count=4, longest=64, seed=0)
    with pytest.raises(DataError, match="repeat needs 1000 pieces of 64 tokens, and the text has 93"):
        text_pieces(texts(), 64, 1000, source_of("pieces"))


class ReadsTheNeedle(Recaller):
    """Knows that what follows `text is` is what followed `is:` before."""

    def sources(self, tokens: Tensor) -> Tensor:
        found = super().sources(tokens)
        for row, text in enumerate(bytes(each) for each in tokens.tolist()):
            needle, asked_at = text.find(b"is: "), text.rfind(b"text is") + len(b"text is") - 1
            if needle >= 0:
                # The space behind the colon is the space behind `is`.
                found[row, asked_at:] = torch.arange(needle + 3, needle + 3 + len(text) - asked_at)
        return found


class Merging(Tokenizer):
    """Bytes, but a letter is one token with the character before it, where that is one of some."""

    name, vocab_size, bos_id, eos_id, adds_bos, fingerprint = "merging", 1 << 16, None, None, False, "merging"

    def __init__(self, merged: str) -> None:
        self.merged = merged

    @classmethod
    def open(cls, argument: str) -> "Merging":
        return cls(argument)

    def encode(self, text: str) -> EncodedText:
        found: list[int] = []
        for before, letter in zip(" " + text, text, strict=False):
            if found and before in self.merged and letter in LETTERS:
                found[-1] = 256 * (1 + ord(before) % 8) + ord(letter)
            else:
                found.append(ord(letter))
        return EncodedText(np.array(found, dtype=np.int64), np.ones(len(found), dtype=np.int64))


@pytest.mark.parametrize("form", FORMS)
def test_a_value_is_one_token_also_where_it_swallows_what_stands_before_it(form: str):
    for merged in ("", " ", "_"):
        tokenizer = Merging(merged)
        line = written(tokenizer, form, "motabe", LETTERS)
        assert len(line.letters) == len({*line.letters.tolist()}) == 26
        for letter, token in zip(LETTERS, line.letters, strict=True):
            whole = [*line.before, token, *line.after]
            ways = {"".join(way[:3]).format(key="MOTABE" if way.upper else "motabe", letter=letter)
                    for way in FORMS[form]}  # fmt: skip
            assert whole in [tokenizer.encode(way).tokens.tolist() for way in ways]


def test_a_tokenizer_without_single_letters_is_told_in_a_sentence():
    class Pairs(Merging):
        def encode(self, text: str) -> EncodedText:
            return Tokenizer_of_pairs(text)

    def Tokenizer_of_pairs(text: str) -> EncodedText:  # noqa: N802
        found = [ord(each) for each in text for _ in range(2)]
        return EncodedText(np.array(found, dtype=np.int64), np.ones(len(found), dtype=np.int64))

    with pytest.raises(LengthError, match="has no single tokens for letters where assignment has its values"):
        written(Pairs(""), "assignment", "motabe", LETTERS)
    ids = open_tokenizer("ids")
    with pytest.raises(LengthError, match="token ids without a tokenizer, so nothing can be written"):
        written(ids, "assignment", "motabe", LETTERS)


def test_the_same_seed_hides_the_same_needles_and_another_one_others():
    def made(seed: int, longest: int = 256) -> list[list[int]]:
        hidden = hidden_needles(
            TOKENIZER, texts(), form="assignment", prompts=3, candidates=26, longest=longest, seed=seed
        )
        return [window.tokens.tolist() for window in needle_trial("needle", hidden, 128, (0,), False).windows]

    assert made(0) == made(0) != made(1)
    keys = {bytes(tokens[-12:-5]) for tokens in made(0)}
    assert len(keys) == 3


def test_a_word_that_occurs_in_the_text_is_no_key():
    assert occurs(np.array([2, 3]), np.array([1, 2, 3])) and not occurs(np.array([3, 2]), np.array([1, 2, 3]))
    assert not occurs(np.array([2, 3]), np.array([2])) and not occurs(np.array([], dtype=np.int64), np.array([2]))
    # The first words that are drawn stand in the text, which is found by drawing them without it.
    shape = {"form": "assignment", "prompts": 1, "candidates": 2, "longest": 200, "seed": 0}
    (first,) = hidden_needles(TOKENIZER, texts(), **shape)
    assert not occurs(first.line.name, texts()[0].tokens)
    held = [
        document("held", np.concatenate([each.tokens[:190], first.line.name, each.tokens])[:201]) for each in texts()
    ]
    (second,) = hidden_needles(TOKENIZER, held, **shape)
    assert occurs(first.line.name, second.text) and not occurs(second.line.name, second.text)
    assert second.values.tolist() == first.values.tolist()
