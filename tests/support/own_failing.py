"""Modules that fail somewhere, as their owners write them: what they raise, what the future moves, what they want."""

import time

from torch import nn

from lpe_eval.errors import LengthError
from tests.support.own_models import SYMBOLS, Bigram, Own, weights

# -- what is raised --------------------------------------------------------------------------------------------------


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
