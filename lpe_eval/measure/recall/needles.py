"""Needle: a key with a value stands somewhere in real text and is asked for at the end. How likely is the value?

    ... text ...
    MOTABE = "q"                   the needle, at a depth of the text
    ... text ...
    MOTABE = "                     the question; the next token is asked for

The value is told from 25 other letters. `value_nats` is its loss, `gain_nats` how much less it is than in the same
prompt whose text goes on where the needle stood, `accuracy` how often no other letter is as likely, `rank` its mean
rank, and `choice_nats` its loss among the letters alone. After `niah_single_1` of RULER (Hsieh et al. 2024, arXiv
2404.06654), whose own prompts are in `niah.py`.

Choices:
    * Every depth has the same text, key and value, so one prompt without a needle serves all of them.
    * At a depth, every prompt has the same distance from value to question: the longest that all prompts of a length
      allow at 0 %, the shortest at 100 %, and in between by parts.
    * A line is broken where the needle stands: it is put at a place, not between two lines.
    * Text in which the key occurs anyhow gets another key.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from lpe_eval.data.selection import EncodedDocument
from lpe_eval.data.tokenizer import Tokenizer
from lpe_eval.errors import DataError
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
from lpe_eval.measure.recall.wording import LETTERS, Written, new_key, written
from lpe_eval.records import Item

_TRIES = 100


class Hidden(NamedTuple):
    """A needle and the text around it, for windows of any length.

    Attributes:
        line: of the key, and of all letters.
        values: ids of the letters that the value is told from, the value first.
        text: as much as the longest window needs.
    """

    line: Written
    values: Tokens
    text: Tokens


def text_at(documents: Sequence[EncodedDocument], number: int, size: int, draw: float) -> Tokens:
    """Text of some tokens from a document; prompts take the documents in turn.

    Args:
        documents: each has at least `size` tokens.
        number: of the prompt.
        size: how many tokens.
        draw: from 0 to 1, which of the places where that many tokens are left.
    """
    tokens = documents[number % len(documents)].tokens
    return tokens[int(draw * (len(tokens) - size + 1)) :][:size]


def hidden_needles(
    tokenizer: Tokenizer,
    documents: Sequence[EncodedDocument],
    *,
    form: str,
    prompts: int,
    candidates: int,
    longest: int,
    seed: int,
) -> list[Hidden]:
    """The needles of all prompts; they do not depend on the length.

    Raises:
        LengthError: the tokenizer cannot write them.
        DataError: every key occurs in the text.
    """
    found = []
    for number in range(prompts):
        source = source_of("needle", seed, number)
        text = text_at(documents, number, longest + 1, below(1 << 30, source) / (1 << 30))
        letters = [LETTERS[at] for at in shuffled(len(LETTERS), source)[:candidates]]
        for _ in range(_TRIES):
            line = written(tokenizer, form, new_key(source), letters)
            if not occurs(line.name, text):
                break
        else:
            raise DataError(f"{_TRIES} words that nobody uses all occur in the text; take other text")
        found.append(Hidden(line, line.letters, text))
    return found


def needle_trial(task: str, hidden: Sequence[Hidden], length: int, depths: Sequence[int], bos: bool) -> Trial:
    """The trial at a length.

    Args:
        task: its name.
        hidden: needles of all prompts.
        length: of a window.
        depths: in per cent, where needles are hidden.
        bos: whether windows begin with BOS.
    """
    size = length + 1 - bos
    nearest = max(len(each.line.before) + 1 + len(each.line.after) for each in hidden)
    farthest = min(size - 1 - len(each.line.before) for each in hidden)
    if farthest < nearest:
        least = length + nearest - farthest
        places = [*(Place(None, depth) for depth in depths), Place()]
        why = f"a needle and its question do not fit into {length} tokens, but into {least}"
        return unable(task, length, places, why)
    distances = [farthest - round(depth / 100 * (farthest - nearest)) for depth in depths]
    windows, digests = [], []
    for each in hidden:
        asked, candidates = np.array([size - 1]), each.values[None]
        question = joined([each.line.before, each.values[:1]])
        text = each.text[: size - len(question)]
        control = joined([text, question])
        needle = joined([each.line.before, each.values[:1], each.line.after])
        prompts = []
        for distance in distances:
            start = size - 1 - distance - len(each.line.before)
            prompts.append(joined([text[:start], needle, text[start + len(needle) :], question]))
        windows += [Window(tokens, asked, candidates) for tokens in (control, *prompts)]
        digests.append([digest_of(control, *some, each.values) for some in (*([one] for one in prompts), prompts)])
    places = [*(Place(*each) for each in zip(distances, depths, strict=True)), Place()]
    return Trial(task, length, places, windows, partial(_read, places, digests))


def _read(
    places: Sequence[Place], digests: Sequence[Sequence[str]], scored: Sequence[Scored], symbols: int
) -> list[Found]:
    """Items by metric for each depth, one a prompt, and for all depths together."""
    each = len(places)
    items: list[dict[str, list[Item]]] = [{metric: [] for metric in ANSWERED} for _ in places]
    chance: dict[str, float] = {}
    for number, own in enumerate(digests):
        control, *prompts = scored[number * each : (number + 1) * each]
        choices = np.concatenate([_choices(prompt) for prompt in prompts])
        nats = np.concatenate([prompt.nats for prompt in prompts])
        chance = chance_among(choices.shape[1])
        for metric, values in answers(nats, np.repeat(control.nats, len(nats)), choices).items():
            name = f"prompt-{number:03}"
            for place, digest, value in zip(items, own, (*values, values.sum()), strict=True):
                place[metric].append(Item(name, digest, float(value), 1 if place is not items[-1] else len(values)))
    return [Found(place, found, chance) for place, found in zip(places, items, strict=True)]


def _choices(scored: Scored) -> np.ndarray:
    assert scored.choices is not None
    return scored.choices
