"""The prompts of lm-evaluation-harness' task `niah_single_1`, character for character.

Its prompts are drawn from Python's own `random`, whose state the seed of a run sets before the task is made. So they
are drawn here in the same order from a `random.Random` of that seed: for each length 500 prompts, and before them as
many as it takes to find how much text fits. A prompt is followed by the beginning of its answer; the harness has the
model go on from there and looks for the number, here its likelihood is asked for.

Equal to lm_eval 0.4.13 (its `input`, `outputs` and `gen_prefix`, and so all that a model is fed), under the same
tokenizer, seed, order of lengths, and lists of words: `wonderwords` 2.2 and 3.0 have different ones. `--seed S` of the
harness is `--seed S` here; its `max_seq_lengths` in ascending order are `--lengths`. Tokens are counted as its own
tokenizer call does, control tokens in front included; what a tokenizer puts behind a text is not counted here.

Deviations:
    * Of the 500 prompts of a length as many are scored as are asked for; all are drawn, since later lengths depend on
      them.
    * Its six million words are not made and sorted, only put into the same order.

Source: EleutherAI/lm-evaluation-harness `lm_eval/tasks/ruler/`, after RULER (Hsieh et al. 2024, arXiv 2404.06654).
"""

import bisect
import importlib
import itertools
import random
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, overload

import numpy as np

from lpe_eval.data.tokenizer import Tokenizer
from lpe_eval.errors import LengthError, MissingExtra
from lpe_eval.measure.recall.trial import (
    ANSWERED,
    Found,
    Place,
    Scored,
    Trial,
    Window,
    answers,
    chance_among,
    digest_of,
    unable,
)
from lpe_eval.records import Item

SAMPLES = 500
"""Prompts of a length that the harness draws."""

_ANSWER = 128
"""Tokens of a length that are kept for the answer."""

_HAY = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
_NEEDLE = "One of the special magic numbers for {key} is: {value}."
_PROMPT = (
    "A special magic number is hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the number afterwards.\n{context}\n"
    "What is the special magic number for {key} mentioned in the provided text?"
)
_PREFIX = "The special magic number for {key} mentioned in the provided text is"


class Prompt(NamedTuple):
    """One prompt: what is fed before the beginning of the answer, that beginning, and the number.

    Attributes:
        without: what is fed where the needle's line is left out.
    """

    text: str
    prefix: str
    value: str
    without: str


class PairsOfWords(Sequence[str]):
    """All `adjective-noun`, each once and in alphabetical order, of which hardly any are made.

    Args:
        adjectives, nouns: in any order, perhaps several times.
    """

    def __init__(self, adjectives: Sequence[str], nouns: Sequence[str]) -> None:
        self._second = sorted(set(nouns))
        blocks: list[list[str]] = []
        for first in sorted({f"{each}-" for each in adjectives}):
            # Words of `blue-` and of `blue-eyed-` lie among one another; those of others are a block by themselves.
            if blocks and first.startswith(blocks[-1][0]):
                blocks[-1].append(first)
            else:
                blocks.append([first])
        self._blocks = [
            sorted({first + second for first in block for second in self._second}) if len(block) > 1 else block
            for block in blocks
        ]
        sizes = [len(block) if len(block) > 1 else len(self._second) for block in self._blocks]
        self._ends = list(itertools.accumulate(sizes))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        place = range(len(self))[at]
        number = bisect.bisect_right(self._ends, place)
        block, inside = self._blocks[number], place - (self._ends[number - 1] if number else 0)
        return block[inside] if len(block) > 1 else f"{block[0]}{self._second[inside]}"


def words_of_the_harness() -> Sequence[str]:
    """The words that keys are drawn from.

    Raises:
        MissingExtra: the package that has them is not installed.
    """
    try:
        with warnings.catch_warnings():
            # It opens its lists by a function that Python calls old, and leaves closing them to Python.
            for category in (DeprecationWarning, ResourceWarning):
                warnings.simplefilter("ignore", category)
            package: Any = importlib.import_module("wonderwords")
            # The harness reads the lists in the same way.
            lists = vars(package.RandomWord())["_categories"]
    except ImportError as error:
        raise MissingExtra("--needle niah_single_1", "ruler") from error
    return PairsOfWords(lists["adjectives"], lists["nouns"])


def niah_prompts(
    source: random.Random,
    words: Sequence[str],
    count: Callable[[str], int],
    lengths: Sequence[int],
    samples: int = SAMPLES,
) -> dict[int, list[Prompt]]:
    """The prompts of each length, in the order of lengths; none where the shortest does not fit.

    Args:
        source: seeded as the harness' run is.
        words: keys.
        count: tokens of a text, control tokens in front included.
        lengths: of windows, room for the answer included.
        samples: how many of each length.
    """
    found: dict[int, list[Prompt]] = {}
    for length in lengths:
        unit = 5 if length < 4096 else 25
        lines, total = unit, 0
        while total + _ANSWER < length:
            drawn = _drawn(source, words, lines)
            total = count(drawn.text + drawn.value)
            if total + _ANSWER > length:
                lines -= unit
                break
            if lines > length:
                # A tokenizer that makes no tokens of a line would never come to an end.
                raise LengthError(f"{lines} lines of text come to {total} tokens; the tokenizer counts too few")
            lines += unit
        found[length] = []
        for _ in range(samples):
            # A prompt that is too long is drawn anew with less text, until one fits.
            for fewer in range(max(lines, 1), 0, -unit):
                drawn = _drawn(source, words, fewer)
                if count(drawn.text) + _ANSWER <= length:
                    found[length].append(drawn)
                    break
    return found


def _drawn(source: random.Random, words: Sequence[str], lines: int) -> Prompt:
    """A prompt with so many lines beside the needle's; every draw is one of the harness', in its order."""
    key, value = source.choice(words), str(source.randint(10**6, 10**7 - 1))
    context = [_HAY] * lines
    context.insert(source.sample(range(lines), 1)[0], _NEEDLE.format(key=key, value=value))
    # The harness draws which of its keys to ask for, also where there is one.
    source.sample(range(1), 1)
    without = [line for line in context if line is _HAY]
    texts = [_PROMPT.format(context="\n".join(each), key=key) for each in (context, without)]
    return Prompt(texts[0], _PREFIX.format(key=key), value, texts[1])


def niah_trial(
    task: str, prompts: Sequence[Prompt], length: int, tokenizer: Tokenizer, candidates: int, seed: int, bos: bool
) -> Trial:
    """The trial at a length: each prompt with its number, with other numbers, and without the needle.

    Args:
        task: its name.
        prompts: those that are scored.
        length: of the longest window.
        tokenizer: what makes tokens of them.
        candidates: numbers that the right one is told from, itself among them; whole numbers are scored.
        seed: of the other numbers.
        bos: whether windows begin with BOS.
    """
    if not prompts:
        return unable(task, length, [Place()], f"no prompt of {task} fits into {length} tokens with room for an answer")
    windows: list[Window] = []
    digests, sizes = [], []
    for number, each in enumerate(prompts):
        others = random.Random(f"{seed}/{length}/{number}")
        values = [each.value]
        while len(values) < candidates:
            other = str(others.randint(10**6, 10**7 - 1))
            values += [other] if other not in values else []
        own = [
            _window(tokenizer, f"{each.text} {each.prefix}", value) for value in values
        ]  # fmt: skip
        own.append(_window(tokenizer, f"{each.without} {each.prefix}", each.value))
        longest = max(len(window.tokens) for window in own) - 1 + bos
        if longest > length:
            why = f"a prompt of {task} has {longest} tokens with its answer and does not fit into {length}"
            return unable(task, length, [Place()], why)
        windows += own
        sizes.append(len(own))
        digests.append(digest_of(*(window.tokens for window in own)))
    return Trial(task, length, [Place()], windows, partial(_read, digests, sizes))


def _window(tokenizer: Tokenizer, context: str, value: str) -> Window:
    """A context and a number behind it, whose tokens are asked for.

    Raises:
        LengthError: the tokenizer makes one token of the end of the context and the number.
    """
    before, whole = (tokenizer.encode(text).tokens for text in (context, f"{context} {value}"))
    if len(whole) <= len(before) or not np.array_equal(whole[: len(before)], before):
        raise LengthError(f"the tokenizer {tokenizer.name} does not part a number from the text before it")
    return Window(whole, np.arange(len(before), len(whole)))


def _read(digests: Sequence[str], sizes: Sequence[int], scored: Sequence[Scored], symbols: int) -> list[Found]:
    """Items by metric, one a prompt; `exact_match` is 1 where the model's first guesses spell the number."""
    items: dict[str, list[Item]] = {metric: [] for metric in (*ANSWERED, "exact_match")}
    chance: dict[str, float] = {}
    start = 0
    for number, (digest, size) in enumerate(zip(digests, sizes, strict=True)):
        *values, control = scored[start : start + size]
        start += size
        nats = np.array([value.nats.sum() for value in values])
        chance = chance_among(len(nats))
        found = answers(nats[:1], np.array([control.nats.sum()]), -nats[None])
        found["exact_match"] = np.array([float(np.prod(values[0].top))])
        for metric, value in found.items():
            items[metric].append(Item(f"prompt-{number:03}", digest, float(value[0]), 1))
    return [Found(Place(), items, chance)]


def counted_by(tokenizer: Tokenizer) -> Callable[[str], int]:
    """How many tokens the harness counts for a text: control tokens that the tokenizer puts in front are among them."""
    front = max(len(tokenizer.prefix), int(tokenizer.adds_bos))

    def count(text: str) -> int:
        return front + len(tokenizer.encode(text).tokens)

    return count
