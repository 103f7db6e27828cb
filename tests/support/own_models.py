"""Modules as their owners write them; `py:` opens the factories by name from this very file."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

SYMBOLS = 258
FILE = Path(__file__).resolve()


FAILING = (
    *("raises", "raises_at_once", "raising_head", "small_memory", "slow"),
    *("grouped", "per_tensor", "chunked"),
)


def reference(factory: str) -> str:
    """How `-m` names a factory of this file, or of the one beside it."""
    name = factory.partition("?")[0]
    return f"py:{FILE.with_name('own_failing.py') if name in FAILING else FILE}:{factory}"


class Own(Exception):
    """A class of error that nobody else knows."""


def weights(*shape: int, seed: int = 0, scale: float = 0.3) -> nn.Parameter:
    """The same numbers each time."""
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale)


class Bigram(nn.Module):
    """Logits of the next token from this one alone."""

    def __init__(self, symbols: int = SYMBOLS) -> None:
        super().__init__()
        self.table = weights(symbols, symbols, scale=1.0)

    def forward(self, tokens) -> Any:
        return self.table[tokens]


def bigram():
    """A model with nothing special."""
    return Bigram()


# -- buffers ---------------------------------------------------------------------------------------------------------


class Rope(nn.Module):
    """One layer of attention whose queries and keys are turned; `kind` says how the angles are kept."""

    turns: torch.Tensor
    added: torch.Tensor

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


# -- extra state -----------------------------------------------------------------------------------------------------


class Extra(Bigram):
    """Saves more than tensors."""

    def __init__(self, state) -> None:
        super().__init__()
        self.state = state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


def extra(scale: float = 1.0, kind: str = "dict"):
    """With an extra state of some kind."""
    states = {
        "dict": {"scale": scale, "names": ["a", None], "inner": {"t": torch.tensor(scale)}},
        "tensor": torch.tensor([scale]),
        "bytes": str(scale).encode(),
        "object": SimpleNamespace(scale=scale),
    }
    return Extra(states[kind])


# -- what is returned ------------------------------------------------------------------------------------------------


class Returns(Bigram):
    """Its logits, in some form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        if form in ("two widths, told", "states first"):
            self.vocab_size = SYMBOLS

    def forward(self, tokens):
        logits = self.table[tokens]
        states = logits[..., :64]
        return {
            "pair": (logits, None),
            "loss first": (logits.mean(), logits),
            "list": [logits, {"cache": 1}],
            "nested": ((logits, [states[..., 0]]), None),
            "attribute": SimpleNamespace(logits=logits, hidden_states=states),
            "key": {"hidden": states, "logits": logits},
            "mapping": {"loss": None, "out": logits},
            "two widths": (states, logits),
            "states first": (states, logits),
            "two widths, told": (logits, states),
            "nothing": (None, logits.mean()),
        }[self.form]


def returns(form: str):
    """One of many forms."""
    return Returns(form)


class LastOnly(Bigram):
    """nanoGPT's habit: all logits with targets, the last token's without."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, tokens, targets=None):
        logits = self.table[tokens]
        if targets is None:
            last = logits[:, [-1]]
            return last if self.form == "llama2.c" else last[:, 0] if self.form == "flat" else (last, None)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
        if self.form == "other":
            logits = logits + 1.5 * torch.arange(SYMBOLS)
        if self.form == "llama2.c":
            return logits
        return (logits.flatten(0, 1) if self.form == "flat" else logits), loss


def last_only(form: str = "nanoGPT"):
    """As nanoGPT, llama2.c and their children are."""
    return LastOnly(form)


class LastAlone(Bigram):
    """The last token's logits, and no way to get others."""

    def forward(self, tokens):
        return self.table[tokens][:, -1]


def last_alone():
    """A model that only generates."""
    return LastAlone()


# -- encode ----------------------------------------------------------------------------------------------------------

ALPHABET = "abcdefghijklmnopqrstuvwxyz \n"


class Characters(Bigram):
    """A model of characters that brings its own alphabet."""

    def __init__(self) -> None:
        super().__init__(len(ALPHABET))

    def encode(self, text):
        return [ALPHABET.index(each) for each in text]


def characters():
    """`encode` is a method."""
    return Characters()


class NoLetters(Characters):
    """Cannot encode what it is given."""

    def encode(self, text):
        raise Own("no letters")


def no_letters():
    """A tokenizer that raises."""
    return NoLetters()


def pair():
    """`encode` comes beside the model."""
    return Bigram(len(ALPHABET)), lambda text: torch.tensor([ALPHABET.index(each) for each in text])


def other_encode():
    """A model that means something else by `encode`."""
    model = Bigram()
    model.encode = lambda tokens: tokens + 1  # pyright: ignore[reportArgumentType]
    return model


class Remembers(Bigram):
    """Its logits are divided by the longest text so far, as dynamic NTK keeps its frequencies."""

    longest = 8

    def forward(self, tokens):
        self.longest = max(self.longest, tokens.shape[1])
        return super().forward(tokens) * (8 / self.longest)


def remembers():
    return Remembers()
