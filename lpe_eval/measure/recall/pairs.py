"""Pairs: keys with values at the beginning, text, and every key asked for at the end, in another order.

    batoku_q = 0                   the pairs: the letter behind a word is its value
    mifura_r = 0
    ... text ...
    mifura_r = 0                   the questions with their answers; the letter of each is asked for
    batoku_q

A value is told from those of the other pairs, so that it takes the right key and not just any value. `value_nats` is
its loss, `gain_nats` how much less it is than where the text goes on in place of the pairs, `accuracy`, `rank` and
`choice_nats` are among the values of the prompt. It is multi-query associative recall (Arora et al. 2023, arXiv
2312.04927; HazyResearch/zoology `data/multiquery_ar.py`) for models that were trained on text.

`tokens` writes a key and its value as two tokens next to each other, drawn from those that occur in the text, with
other ones of them in between, as in zoology's data. Deviations there and here:
    * Theirs draws keys with numpy and what lies between with torch, of which it seeds one; here one source draws all.
    * What lies between may be a key of theirs, which then stands there without its value; here it never is.
    * Theirs asks soon more often than late (a power law); here all questions stand at the end, so that every answer is
      about as far away as the window is long.
    * An answer stands behind each question, also theirs; the next question is asked after it.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from lpe_eval.data.selection import EncodedDocument
from lpe_eval.data.tokenizer import Tokenizer
from lpe_eval.errors import DataError, LengthError
from lpe_eval.measure.recall.needles import text_at
from lpe_eval.measure.recall.trial import (
    ANSWERED,
    Found,
    Place,
    Scored,
    Tokens,
    Trial,
    Window,
    answers,
    below,
    chance_among,
    digest_of,
    joined,
    occurs,
    shuffled,
    source_of,
    unable,
)
from lpe_eval.measure.recall.wording import LETTERS, new_key, written
from lpe_eval.records import Item

_TRIES = 1000


class Pair(NamedTuple):
    """A key up to its value, the value, and the rest of the line."""

    before: Tokens
    value: int
    after: Tokens

    @property
    def line(self) -> Tokens:
        """All of it."""
        return joined([self.before, [self.value], self.after])


class Given(NamedTuple):
    """The pairs of a prompt, for windows of any length.

    Attributes:
        pairs: in the order in which they are given.
        order: in which they are asked for.
        text: as much as the longest window needs.
        gap: stands before the pairs and before the questions.
    """

    pairs: Sequence[Pair]
    order: Sequence[int]
    text: Tokens
    gap: Tokens


def written_pairs(
    tokenizer: Tokenizer,
    documents: Sequence[EncodedDocument],
    *,
    prompts: int,
    count: int,
    longest: int,
    seed: int,
) -> list[Given]:
    """Pairs of words and letters, in real text.

    Raises:
        LengthError: the tokenizer cannot write them.
        DataError: too many words that nobody uses occur in the text.
    """
    found = []
    gap = tokenizer.encode("\n").tokens
    for number in range(prompts):
        source = source_of("pairs", seed, number)
        text = text_at(documents, number, longest + 1, below(1 << 30, source) / (1 << 30))
        letters = [LETTERS[at] for at in shuffled(len(LETTERS), source)[:count]]
        keys: dict[str, Pair] = {}
        for _ in range(_TRIES):
            key = new_key(source)
            line = written(tokenizer, "identifiers", key, letters)
            if key not in keys and not occurs(line.name, text):
                keys[key] = Pair(line.before, int(line.letters[len(keys)]), line.after)
            if len(keys) == count:
                break
        else:
            raise DataError(f"of {_TRIES} words that nobody uses, too many occur in the text; take other text")
        found.append(Given(list(keys.values()), shuffled(count, source), text, gap))
    return found


def token_pairs(symbols: Tokens, *, prompts: int, count: int, longest: int, seed: int) -> list[Given]:
    """Pairs of two tokens, and others of `symbols` in between that are neither key nor value.

    Raises:
        LengthError: there are too few symbols.
    """
    if len(symbols) < 2 * count + 1:
        raise LengthError(f"{count} pairs need more than {2 * count} different tokens, and the text has {len(symbols)}")
    found = []
    none = np.empty(0, dtype=np.int64)
    for number in range(prompts):
        source = source_of("pairs of tokens", seed, number)
        mixed = symbols[shuffled(len(symbols), source)]
        pairs = [Pair(mixed[at : at + 1], int(mixed[count + at]), none) for at in range(count)]
        others = mixed[2 * count :]
        text = others[torch.randint(len(others), (longest + 1,), generator=source).numpy()]
        found.append(Given(pairs, shuffled(count, source), text, none))
    return found


def pairs_trial(task: str, given: Sequence[Given], length: int, bos: bool) -> Trial:
    """The trial at a length.

    Args:
        task: its name.
        given: the pairs of all prompts.
        length: of a window.
        bos: whether windows begin with BOS.
    """
    size = length + 1 - bos
    windows, digests = [], []
    for each in given:
        asked = [each.pairs[at] for at in each.order]
        block = joined([each.gap, *(pair.line for pair in each.pairs)])
        # What comes after the last value is no part of the window.
        questions = joined([each.gap, *(pair.line for pair in asked[:-1]), asked[-1].before, [asked[-1].value]])
        room = size - len(block) - len(questions)
        if room < 0:
            why = f"{len(asked)} pairs and their questions do not fit into {length} tokens, but into {length - room}"
            return unable(task, length, [Place()], why)
        text = each.text[: size - len(questions)]
        texts = [joined([block, text[len(block) :], questions]), joined([text, questions])]
        ends = np.cumsum(np.array([len(pair.line) for pair in asked], dtype=np.int64))
        places = len(text) + len(each.gap) + ends - np.array([len(pair.after) + 1 for pair in asked], dtype=np.int64)
        values = [pair.value for pair in asked]
        candidates = np.array([[own, *(other for other in values if other != own)] for own in values])
        windows += [Window(tokens, places, candidates) for tokens in texts]
        digests.append(digest_of(*texts, places))
    return Trial(task, length, [Place()], windows, partial(_read, digests))


def _read(digests: Sequence[str], scored: Sequence[Scored], symbols: int) -> list[Found]:
    """Items by metric, one a prompt."""
    items: dict[str, list[Item]] = {metric: [] for metric in ANSWERED}
    chance: dict[str, float] = {}
    for number, (digest, prompt, control) in enumerate(zip(digests, scored[::2], scored[1::2], strict=True)):
        assert prompt.choices is not None
        chance = chance_among(prompt.choices.shape[1])
        for metric, values in answers(prompt.nats, control.nats, prompt.choices).items():
            items[metric].append(Item(f"prompt-{number:03}", digest, float(values.sum()), len(values)))
    return [Found(Place(), items, chance)]
