"""Language models whose loss on any text is known without running them.

They stand behind the same contract as a real checkpoint, so the windows, the shift by one, the batching and
the summing between them and a result are the real ones.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.data.selection import EncodedDocument
from lpe_eval.model.language_model import LanguageModel, ModelFacts


class ClosedForm(LanguageModel):
    """Hidden states are logits, and the head passes them on."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, vocab_size: int) -> None:
        self.facts = ModelFacts("closed-form", "test", "none", None, vocab_size, "bytes", 0, "0" * 64)

    @property
    def attention(self) -> str:
        return "none"

    def hidden(self, tokens: Int[Tensor, "b t"], rows: int, generator: torch.Generator) -> Float[Tensor, "b r e"]:
        return self.all_logits(tokens)[:, tokens.shape[1] - rows :]

    def logits(self, hidden: Float[Tensor, "n e"]) -> Float[Tensor, "n v"]:
        return hidden

    def all_logits(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        raise AssertionError("each model says its own logits")


class Uniform(ClosedForm):
    """Every symbol is as likely as any other: ln v nats for each target."""

    def all_logits(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        return torch.zeros(*tokens.shape, self.facts.vocab_size)


class Bigram(ClosedForm):
    """Knows the table of transition probabilities: -ln table[previous, target] nats."""

    def __init__(self, table: Float[Tensor, "v v"]) -> None:
        super().__init__(len(table))
        self.table = table

    def all_logits(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        return self.table.log()[tokens]


class CountsContext(ClosedForm):
    """Spends c / 1000 nats on a target that has c tokens of context, whatever the target is.

    Every symbol but one gets the same logit, so that the wanted probability falls on all v - 1
    symbols of a text that never uses the last one.
    """

    def all_logits(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        context = torch.arange(1, tokens.shape[1] + 1, dtype=torch.float64)
        nats = context_nats(context) + math.log(self.facts.vocab_size - 1)
        each = torch.exp(-nats)
        rest = 1 - each * (self.facts.vocab_size - 1)
        logits = torch.empty(tokens.shape[1], self.facts.vocab_size, dtype=torch.float64)
        logits[:] = each.log()[:, None]
        logits[:, -1] = rest.log()
        return logits.float().expand(len(tokens), -1, -1)


def context_nats(context: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """What CountsContext spends beyond ln(v - 1)."""
    return context / 1000


class Copier(ClosedForm):
    """Knows the token that followed the last two where they came before, at most `window` tokens ago; else nothing."""

    def __init__(self, vocab_size: int, window: int) -> None:
        super().__init__(vocab_size)
        self.window = window

    def all_logits(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        count = tokens.shape[1]
        logits = torch.zeros(*tokens.shape, self.facts.vocab_size)
        pairs = tokens[:, 1:] * self.facts.vocab_size + tokens[:, :-1]
        for row, own in enumerate(pairs.tolist()):
            seen: dict[int, int] = {}
            for place, pair in enumerate(own, 1):
                before = seen.get(pair, -count - self.window)
                # The token that is copied lies this far before the one that is predicted.
                if place - before <= self.window:
                    logits[row, place, tokens[row, before + 1]] = 60.0
                seen[pair] = place
        return logits


class SeesFuture(ClosedForm):
    """Claims to be causal and gives the next token of the window almost all probability."""

    def all_logits(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        following = torch.roll(tokens, -1, dims=1)
        return 10.0 * torch.nn.functional.one_hot(following, self.facts.vocab_size).float()


def document(name: str, tokens: list[int] | np.ndarray) -> EncodedDocument:
    """A document of the given tokens, one byte each."""
    ids = np.asarray(tokens, dtype=np.int64)
    return EncodedDocument(name, name * 8, ids, np.ones_like(ids))
