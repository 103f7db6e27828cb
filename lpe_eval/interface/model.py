"""One opened checkpoint: what it is, and what it loses on a text."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from lpe_eval.data.batch import batch_of
from lpe_eval.data.selection import EncodedDocument
from lpe_eval.data.tokenizer import open_tokenizer
from lpe_eval.data.windows import Window
from lpe_eval.errors import DataError
from lpe_eval.measure.score import target_losses
from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.language_model import ModelFacts


class Model:
    """A checkpoint on its device; `lpe_eval.open` makes one.

    Args:
        reference: as `-m` takes it.
        options: how it is opened.

    Raises:
        CheckpointError: it cannot be opened exactly as it is.
        UnknownName: there is no such checkpoint.
    """

    def __init__(self, reference: str, options: LoadOptions) -> None:
        self.reference = reference
        self._trusts = options.trust_remote_code
        self._model = locate(reference).load(options)

    @property
    def facts(self) -> ModelFacts:
        """Its name, format, encoding, training length, vocabulary, tokenizer, size and digest."""
        return self._model.facts

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its numbers should know of how it is run."""
        return tuple(self._model.notes())

    def losses(self, text: str | Sequence[int]) -> Float[np.ndarray, " t"]:
        """Nats of each token of a text, given all before it, in one window.

        Args:
            text: what is scored, or its token ids. BOS stands before it where the tokenizer puts it there; without BOS
                the first token has nothing before it, and no loss.

        Raises:
            DataError: no token has a loss.
            LengthError: the model has no position for some of the tokens.
        """
        tokens, bos_id = self._tokens(text)
        if len(tokens) + (bos_id is not None) < 2:
            raise DataError("a text of fewer than two tokens has no loss; give a longer one")
        document = EncodedDocument("text", "", tokens, np.zeros_like(tokens))
        with_bos = bos_id is not None
        window = Window(0, 0, len(tokens), 0 if with_bos else 1, with_bos)
        batch = batch_of([window], [document], bos_id, self._model.device)
        found = target_losses(self._model, batch, torch.Generator().manual_seed(0))
        return found.flatten().cpu().double().numpy()

    def _tokens(self, text: str | Sequence[int]) -> tuple[NDArray[np.int64], int | None]:
        if not isinstance(text, str):
            return np.asarray(text, dtype=np.int64), None
        if not self.facts.tokenizer:
            raise DataError(f"{self.reference} names no tokenizer; give token ids, or open it with tokenizer=...")
        tokenizer = open_tokenizer(self.facts.tokenizer, self._trusts)
        return tokenizer.encode(text).tokens, tokenizer.bos_id if tokenizer.adds_bos else None

    def __repr__(self) -> str:
        facts = self.facts
        trained = "" if facts.train_length is None else f", trained on {facts.train_length} tokens"
        return f"Model({self.reference!r}: {facts.encoding}{trained}, {facts.n_parameters:,} parameters)"
