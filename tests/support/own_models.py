"""Modules as their owners write them; `py:` opens the factories by name from this very file."""

import time
from pathlib import Path

import torch
from torch import nn

from lpe_eval.errors import LengthError

SYMBOLS = 258
FILE = Path(__file__).resolve()


def reference(factory: str) -> str:
    """How `-m` names a factory of this file or of `own_forms.py`."""
    file = FILE if factory.partition("?")[0] in globals() else FILE.with_name("own_forms.py")
    return f"py:{file}:{factory}"


def weights(*shape: int, seed: int = 0, scale: float = 0.3) -> nn.Parameter:
    """The same numbers each time."""
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale)


class Bigram(nn.Module):
    """Logits of the next token from this one alone."""

    def __init__(self, symbols: int = SYMBOLS) -> None:
        super().__init__()
        self.table = weights(symbols, symbols, scale=1.0)

    def forward(self, tokens):
        return self.table[tokens]


def bigram():
    """A model with nothing special."""
    return Bigram()


# -- buffers ---------------------------------------------------------------------------------------------------------


class Rope(nn.Module):
    """One layer of attention whose queries and keys are turned; `kind` says how the angles are kept."""

    def __init__(self, kind: str, added: bool = False) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = weights(SYMBOLS, 32), weights(32, 96, seed=1), nn.Linear(32, SYMBOLS)
        self.out.weight.data, self.out.bias.data = weights(SYMBOLS, 32, seed=2).data, torch.zeros(SYMBOLS)
        inverse = 10000.0 ** -(torch.arange(0, 16, 2) / 16)
        angle = torch.outer(torch.arange(4096.0), inverse)
        self.kind = kind
        held = torch.polar(torch.ones_like(angle), angle) if kind.startswith("complex") else inverse
        held = held.half() if kind == "half buffer" else held.double() if kind == "double buffer" else held
        if kind.endswith("buffer"):
            self.register_buffer("turns", held, persistent=False)
        else:
            self.turns = held
        if added:
            self.register_buffer("added", weights(4096, 32, seed=3).data)
        self.has_added = added

    def turn(self, x):
        length = x.shape[1]
        if self.kind.startswith("complex"):
            turns = self.turns[:length]
        else:
            angle = torch.outer(torch.arange(length).to(self.turns.dtype), self.turns).float()
            turns = torch.polar(torch.ones_like(angle), angle)
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * turns.repeat(1, 2)).flatten(-2).type_as(x)

    def forward(self, tokens):
        x = self.embed[tokens]
        if self.has_added:
            x = x + self.added[: tokens.shape[1]]
        q, k, v = (x @ self.qkv).chunk(3, -1)
        q, k = self.turn(q), self.turn(k)
        mixed = nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], is_causal=True)
        return self.out(mixed[:, 0])


def rope(kind: str, added: bool = False):
    """RoPE with its angles in a buffer or an attribute."""
    return Rope(kind, added)


# -- what is raised --------------------------------------------------------------------------------------------------


class Own(Exception):
    """A class of error that nobody else knows."""


RAISED = {
    "runtime": RuntimeError("the kernel needs something that is not there"),
    "empty": AssertionError(),
    "own": Own("two\nlines"),
    "exit": SystemExit(0),
    "key": KeyError("position"),
    "length": LengthError("no more than 100 tokens"),
}


class Raises(Bigram):
    """Raises something beyond so many tokens."""

    def __init__(self, what: str, beyond: int) -> None:
        super().__init__()
        self.what, self.beyond = what, beyond

    def forward(self, tokens):
        if tokens.shape[1] > self.beyond:
            raise RAISED[self.what]
        return super().forward(tokens)


def raises(what: str, beyond: int = 100):
    """In the forward pass."""
    return Raises(what, beyond)


def raises_at_once(what: str):
    """In the factory."""
    raise RAISED[what]


class RaisingHead(Bigram):
    """Raises in the head, of many states."""

    def hidden(self, tokens):
        return self.table[tokens]

    def head(self, states):
        if len(states) > 200:
            raise SystemExit("no more")
        return states


def raising_head():
    """In the head."""
    return RaisingHead()


class SmallMemory(Bigram):
    """Has no memory for more than one window, in words that are given."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def forward(self, tokens):
        if tokens.shape[0] > 1 and tokens.shape[1] > 50:
            raise RuntimeError(f"CUDA error: {self.words} when calling `cublasCreate(handle)`")
        return super().forward(tokens)


def small_memory(words: str):
    """As cuBLAS says it."""
    return SmallMemory(words)


class Slow(Bigram):
    """Takes no time for a window, and twenty milliseconds for each of two or more."""

    def forward(self, tokens):
        time.sleep(0.0 if len(tokens) == 1 else 0.02 * len(tokens))
        return super().forward(tokens)


def slow():
    """Slower in batches."""
    return Slow()


# -- extra state -----------------------------------------------------------------------------------------------------
