"""Modules whose recall is known; `py:` opens the factories by name from this very file, and tests call them too."""

from pathlib import Path

import torch
from torch import Tensor, nn

from lpe_eval.errors import LengthError

SYMBOLS = 258
FILE = Path(__file__).resolve()
SURE = 40.0
"""A logit beside zeros: e^-40 is nothing beside 258 symbols."""


class Recaller(nn.Module):
    """Says what it recalls with all certainty, and nothing where it recalls nothing.

    A window is as many tokens as it sees; the one that follows has its source so far behind it at most.
    """

    tokenizer = "bytes"
    train_length = 128

    def __init__(self, window: int | None = None, longest: int | None = None, sharp: float = SURE) -> None:
        super().__init__()
        self.window, self.longest, self.sharp = window, longest, float(sharp)
        self.encoding = f"window {window}"

    def forward(self, tokens: Tensor) -> Tensor:
        if self.longest is not None and tokens.shape[1] > self.longest:
            raise LengthError(f"{self.longest} positions, and {tokens.shape[1]} tokens")
        sources = self.sources(tokens)
        # What follows token t has its source at s: so far behind it is t + 1 - s.
        far = torch.arange(1, tokens.shape[1] + 1) - sources
        known = (sources >= 0) & ((far <= self.window) if self.window is not None else True)
        said = tokens.gather(1, sources.clamp(min=0))
        return self.sharp * nn.functional.one_hot(said, SYMBOLS) * known[..., None]

    def sources(self, tokens: Tensor) -> Tensor:
        """[b, t]: the place of what each token is followed by; -1 where it recalls nothing."""
        return torch.full_like(tokens, -1)


class Copier(Recaller):
    """Knows that the second half of a text repeats the first."""

    def sources(self, tokens: Tensor) -> Tensor:
        following = torch.arange(1, tokens.shape[1] + 1)
        return (following - tokens.shape[1] // 2).clamp(min=-1).expand_as(tokens)


class Lookup(Recaller):
    """Knows what came after the last so many tokens when they stood there before; the latest time counts."""

    def __init__(self, order: int, window: int | None = None, longest: int | None = None) -> None:
        super().__init__(window, longest)
        self.order = order

    def sources(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        same = torch.ones(len(tokens), length, length, dtype=torch.bool)
        for back in range(self.order):
            moved = nn.functional.pad(tokens, (back, 0), value=-1 - back)[:, :length]
            same &= (moved[:, :, None] == moved[:, None]) & (moved[:, :, None] >= 0)
        places = torch.arange(length)
        earlier = same & (places < places[:, None])
        return torch.where(earlier, places + 1, -1).amax(-1)


def uniform(longest: int | None = None):
    """Every symbol is as likely as any other."""
    return Recaller(longest=longest)


def copier(window: int | None = None, longest: int | None = None, sharp: float = SURE):
    """Copies the first half of a text."""
    return Copier(window, longest, sharp)


def lookup(order: int, window: int | None = None, longest: int | None = None):
    """Looks up what came after the last tokens before."""
    return Lookup(order, window, longest)


class SeesTheEnd(Recaller):
    """Its logits depend on the last token of a text."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens) + nn.functional.one_hot(tokens[:, -1:], SYMBOLS)


def sees_the_end():
    """Sees the future."""
    return SeesTheEnd()


class Breaks(Recaller):
    """Raises something at one length."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.shape[1] == self.at:
            raise SystemExit("no more")
        return super().forward(tokens)


def breaks(at: int):
    """Raises at one length, and not an exception but an exit."""
    return Breaks(at)
