"""What a module of `own_recallers` says of prompts of recall, through the real trials and the real scoring."""

import numpy as np
import torch
from torch import nn

from lpe_eval.data.selection import EncodedDocument
from lpe_eval.data.tokenizers.bytes import Bytes
from lpe_eval.measure.recall.scoring import score
from lpe_eval.measure.recall.trial import Found, Trial
from tests.support.closed_form import ClosedForm, document


class Asked(ClosedForm):
    """A module behind the contract of a language model."""

    def __init__(self, module: nn.Module, symbols: int = 258) -> None:
        super().__init__(symbols)
        self.module = module

    def all_logits(self, tokens):
        return self.module(tokens)


def asked(module: nn.Module, trial: Trial, bos_id: int | None = None, batch_tokens: int = 2048) -> list[Found]:
    """What is found at each place of a trial."""
    scored = score(
        Asked(module), trial.windows, bos_id=bos_id, batch_tokens=batch_tokens, seed=0, advance=lambda tokens: None
    )
    return trial.read(scored, 258)


def value(found: Found, metric: str) -> float:
    """The value of a metric: totals over counts."""
    items = found.items[metric]
    return sum(item.total for item in items) / sum(item.n for item in items)


def texts(count: int = 3, size: int = 2000, seed: int = 0) -> list[EncodedDocument]:
    """Documents of lower-case words, in bytes."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for number in range(count):
        letters = torch.randint(97, 123, (size,), generator=draw).numpy().astype(np.int64)
        letters[:: 5 + number] = 32
        found.append(document(f"text-{number}", letters))
    return found


TOKENIZER = Bytes()
