"""Models that guess a generated text as well as can be, or without looking; `py:` opens the factories by name."""

import math
from pathlib import Path

import torch
from torch import nn

FILE = Path(__file__).resolve()
BLANK = ord(" ")
NEVER = -1e9
SYMBOLS = [ord(each) for each in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"]
PLACES = {byte: place for place, byte in enumerate(SYMBOLS)}


def reference(name: str, factory: str) -> str:
    """How `-m` names a factory of this file; NAME renames it."""
    return f"{name}=py:{FILE}:{factory}"


class Guess(nn.Module):
    """Logits of bytes from what is known of each next one."""

    vocab_size = 258

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.window(row) for row in tokens.tolist()])

    def window(self, tokens: list[int]) -> torch.Tensor:
        raise NotImplementedError


class Bayes(Guess):
    """The ratio of counts, one token after the other. BOS, which is no symbol, says nothing."""

    def __init__(self, symbols: int, alpha: float) -> None:
        super().__init__()
        self.symbols, self.alpha = symbols, alpha

    def window(self, tokens: list[int]) -> torch.Tensor:
        counts = torch.full((self.symbols, self.symbols), self.alpha, dtype=torch.float64)
        nothing = torch.full((self.symbols,), self.alpha, dtype=torch.float64)
        rows, last = [], None
        for token in tokens:
            place = PLACES.get(token)
            # What tries a model before it is measured feeds it any token.
            place = place if place is not None and place < self.symbols else None
            if last is not None and place is not None:
                counts[last, place] += 1
            rows.append(nothing if place is None else counts[place].clone())
            last = place
        shares = torch.stack(rows)
        logits = torch.full((len(tokens), self.vocab_size), NEVER, dtype=torch.float64)
        logits[:, SYMBOLS[: self.symbols]] = (shares / shares.sum(dim=1, keepdim=True)).log()
        return logits.float()


class Uniform(Guess):
    """Any of some tokens, whatever was seen."""

    def __init__(self, ids: list[int]) -> None:
        super().__init__()
        self.ids = ids

    def window(self, tokens: list[int]) -> torch.Tensor:
        logits = torch.full((len(tokens), self.vocab_size), NEVER)
        logits[:, self.ids] = 0.0
        return logits


class Copier(Guess):
    """Reads records of two symbols of a name and five of its value, from a window that begins with a blank."""

    def __init__(self) -> None:
        super().__init__()
        self.names = torch.zeros(64, 64, dtype=torch.float64)
        for name in range(1, 4096):
            self.names[name // 64, name % 64] = 0.5 ** math.floor(math.log2(name)) / 12

    def window(self, tokens: list[int]) -> torch.Tensor:
        known: dict[tuple[int, ...], list[int]] = {}
        logits = torch.full((len(tokens), self.vocab_size), NEVER, dtype=torch.float64)
        if tokens[0] != BLANK:
            return logits.float()
        for at in range(len(tokens)):
            start = at // 8 * 8
            record = tokens[start : at + 1]
            name = tuple(record[1:3])
            if len(record) == 8:
                known[name] = record[3:]
                logits[at, BLANK] = 0.0
            elif len(record) >= 3:
                if name in known:
                    logits[at, known[name][len(record) - 3]] = 0.0
                else:
                    logits[at, SYMBOLS] = 0.0
            else:
                share = self.names.sum(dim=1) if len(record) == 1 else self.names[PLACES.get(record[1], 0)]
                logits[at, SYMBOLS] = share.log().clamp_min(NEVER)
        return logits.float()


def bayes(symbols: int = 64, alpha: float = 0.1) -> nn.Module:
    """The best guess of `urn`."""
    return Bayes(symbols, alpha)


def uniform(symbols: int = 64) -> nn.Module:
    """No guess at all."""
    return Uniform(SYMBOLS[:symbols])


def uniform_ids(symbols: int) -> nn.Module:
    """The same for a tokenizer that numbers the symbols from 0."""
    return Uniform(list(range(symbols)))


def copier() -> nn.Module:
    """The best guess of `echo`."""
    return Copier()
