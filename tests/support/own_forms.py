"""More modules as their owners write them: what they keep, return, and want of their input."""

from types import SimpleNamespace

import torch
from torch import nn

from tests.support.own_models import SYMBOLS, Bigram, weights


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


# -- what the future moves -------------------------------------------------------------------------------------------


class Grouped(Bigram):
    """Causal to 64 tokens; beyond, half of the channels see groups of 64 that are shifted around the end."""

    def forward(self, tokens):
        states = self.table[tokens]
        if tokens.shape[1] > 64 and tokens.shape[1] % 64 == 0:
            groups = states.roll(32, 1).unflatten(1, (-1, 64))
            states = states + 0.5 * groups.cumsum(2).flatten(1, 2).roll(-32, 1)
        return states


def grouped():
    """As shifted sparse attention does it."""
    return Grouped()


class PerTensor(nn.Module):
    """Rounds its activations to 256 steps of the largest of them all, as quantisation over a whole tensor does."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = weights(SYMBOLS, 64), weights(64, SYMBOLS, seed=1)

    def forward(self, tokens):
        x = self.table[tokens] * (1 + tokens[..., None] / 258)
        step = x.abs().max() / 127
        return (x / step).round() * step @ self.out


def per_tensor():
    """Quantised activations."""
    return PerTensor()


# -- chunks ----------------------------------------------------------------------------------------------------------


class Chunked(Bigram):
    """Wants a multiple of its chunk."""

    def __init__(self, chunk: int) -> None:
        super().__init__()
        self.chunk = chunk

    def forward(self, tokens):
        assert tokens.shape[1] % self.chunk == 0, f"{tokens.shape[1]} tokens are no multiple of {self.chunk}"
        return super().forward(tokens)


def chunked(chunk: int):
    """As block-sparse kernels are."""
    return Chunked(chunk)


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
    model.encode = lambda tokens: tokens + 1
    return model
