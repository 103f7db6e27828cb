"""What a test of recall is made of: windows of tokens, which of their tokens are asked for, and how answers are read.

A prompt is a text with an answer. Whatever a test is, its prompts are windows of one length that are fed in one pass,
and what is read from the logits of a pass is the same for all: how likely each asked token is, whether it is the
likeliest, and how it stands among the candidates that it is to be told from.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from lpe_eval.records import Item

Tokens = NDArray[np.int64]


class Window(NamedTuple):
    """One text that is fed, and which of its tokens are asked for.

    Attributes:
        tokens: without BOS. The last is never fed: it is what comes after the window.
        asked: places in `tokens`, ascending, of the targets that are scored.
        candidates: for each of them the ids that it is to be told from, itself first; None where there are none.
    """

    tokens: Tokens
    asked: Tokens
    candidates: Tokens | None = None


class Scored(NamedTuple):
    """What a model says of the asked tokens of a window.

    Attributes:
        nats: of each, under the whole vocabulary.
        top: 1 where it is the likeliest of all symbols, a share of 1 where several are, else 0.
        choices: log-probabilities of its candidates, itself first.
    """

    nats: Float[np.ndarray, " n"]
    top: Float[np.ndarray, " n"]
    choices: Float[np.ndarray, "n c"] | None = None


class Place(NamedTuple):
    """Where an answer stands: tokens from what is recalled to where it is asked for, and how deep it is hidden.

    None where the answers of a cell have several.
    """

    distance: int | None = None
    depth: int | None = None


class Found(NamedTuple):
    """What was found at one place: items by metric, and the value of each metric that needs no recall."""

    place: Place
    items: Mapping[str, Sequence[Item]]
    chance: Mapping[str, float]


class Trial(NamedTuple):
    """A test at a length, ready to be asked.

    Attributes:
        task: what it is called in tables.
        length: tokens of the longest window.
        places: of its cells, in the order in which `read` gives them.
        windows: all that is fed.
        read: takes the scores of all windows, in their order, and the number of symbols the model knows.
        why_not: why there are no windows: what was asked for does not fit into the length.
    """

    task: str
    length: int
    places: Sequence[Place]
    windows: Sequence[Window]
    read: Callable[[Sequence[Scored], int], list[Found]]
    why_not: str = ""


def unable(task: str, length: int, places: Sequence[Place], why: str) -> Trial:
    """A trial that cannot be made."""
    return Trial(task, length, places, [], lambda scored, symbols: [], why)


ANSWERED = ("value_nats", "gain_nats", "accuracy", "rank", "choice_nats")
"""The metrics of a value that is told from candidates."""


def answers(
    nats: Float[np.ndarray, " n"], control: Float[np.ndarray, " n"], choices: Float[np.ndarray, "n c"]
) -> dict[str, Float[np.ndarray, " n"]]:
    """The metrics of `ANSWERED` for each of some values.

    A value is *first* where no other candidate is as likely; where m others are just as likely, it is first in one of
    m + 1 orders, and its rank is the middle one of theirs. So a model that knows nothing comes to chance exactly.

    Args:
        nats: of each value, asked for in its prompt.
        control: of the same value, in the same prompt without what gives it away.
        choices: log-probability of each candidate, the value first.
    """
    own, others = choices[:, :1], choices[:, 1:]
    above, level = (others > own).sum(1), (others == own).sum(1)
    with np.errstate(over="ignore", invalid="ignore"):
        most = choices.max(1)
        all_of_them = most + np.log(np.exp(choices - most[:, None]).sum(1))
        known = np.isfinite(choices).all(1)
        return {
            "value_nats": nats,
            "gain_nats": control - nats,
            "accuracy": np.where(known, (above == 0) / (level + 1.0), math.nan),
            "rank": np.where(known, 1.0 + above + level / 2.0, math.nan),
            "choice_nats": all_of_them - choices[:, 0],
        }


def chance_among(candidates: int) -> dict[str, float]:
    """What a guess gives where each of so many candidates is as likely, and nothing is recalled."""
    return {"gain_nats": 0.0, "accuracy": 1 / candidates, "rank": (candidates + 1) / 2,
            "choice_nats": math.log(candidates)}  # fmt: skip


def digest_of(*texts: Tokens) -> str:
    """SHA-256 of some tokens and their sizes: what tells a prompt from all others."""
    whole = hashlib.sha256()
    for tokens in texts:
        whole.update(f"{len(tokens)}:".encode() + np.ascontiguousarray(tokens, dtype=np.int64).tobytes())
    return whole.hexdigest()


def source_of(*parts: str | int) -> torch.Generator:
    """A source of random numbers that belongs to what is named, whatever else is drawn."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def below(bound: int, source: torch.Generator) -> int:
    """A whole number from 0 to bound - 1."""
    return int(torch.randint(bound, (), generator=source))


def shuffled(count: int, source: torch.Generator) -> list[int]:
    """0 to count - 1 in some order."""
    return torch.randperm(count, generator=source).tolist()


def joined(parts: Iterable[Tokens | Sequence[int]]) -> Tokens:
    """Some runs of tokens, one after the other."""
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])


def occurs(part: Tokens, text: Tokens) -> bool:
    """Whether the tokens of `part` stand somewhere in `text`, one after the other."""
    if not 0 < len(part) <= len(text):
        return False
    at = np.flatnonzero(text[: len(text) - len(part) + 1] == part[0])
    return any(np.array_equal(text[start : start + len(part)], part) for start in at)
