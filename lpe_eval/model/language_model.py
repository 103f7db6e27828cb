"""What a measurement needs of a model: hidden states, a head, and the facts a result carries."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class ModelFacts(NamedTuple):
    """What is known of a checkpoint once it is open.

    Attributes:
        name: display name in tables.
        format: the checkpoint format that opened it.
        encoding: label of its positional encoding.
        train_length: tokens per training window; None where the checkpoint does not say.
        vocab_size: number of symbols the head scores.
        tokenizer: what `open_tokenizer` takes.
        n_parameters: trainable numbers.
        digest: sha256 over weights and config.
        causal: whether it claims not to see the future.
        prefix_stable: whether a prefix scores as it does alone.
    """

    name: str
    format: str
    encoding: str
    train_length: int | None
    vocab_size: int
    tokenizer: str
    n_parameters: int
    digest: str
    causal: bool = True
    prefix_stable: bool = True


class PositionTensor(NamedTuple):
    """Numbers by which a model knows positions."""

    where: str
    """Which part of the model holds them."""
    name: str
    tensor: Tensor


class LanguageModel(ABC):
    """A model on its device, ready to be measured.

    Splitting hidden states from the head lets the scorer make logits only for scored tokens, in
    chunks. A model without a separable head returns logits as hidden states and passes them on.
    """

    mapped: Mapping[str, str] = {}
    """For another program's checkpoint, each of its keys and what it became here; empty where keys stay as they are."""

    facts: ModelFacts
    device: torch.device
    dtype: torch.dtype

    @property
    @abstractmethod
    def attention(self) -> str:
        """The attention path in use, recorded in every row."""

    @abstractmethod
    def hidden(self, tokens: Int[Tensor, "b t"], rows: int, generator: torch.Generator) -> Float[Tensor, "b r e"]:
        """Hidden states of the last `rows` tokens.

        Raises:
            LengthError: the model has no position for some of the tokens.
        """

    @abstractmethod
    def logits(self, hidden: Float[Tensor, "n e"]) -> Float[Tensor, "n v"]:
        """Scores of every symbol for each hidden state."""

    def least_bytes(self, length: int) -> int:
        """Memory that one text of so many tokens takes at least, beside the weights; 0 where nobody has counted."""
        return 0

    def architecture(self) -> list[tuple[str, str]]:
        """Its architecture and shape for a reader: what is told, and what it is."""
        return [("architecture", type(self).__name__)]

    def method(self) -> list[tuple[str, str]]:
        """What its encoding is beyond its name, for a reader: what is told, and what it is."""
        return []

    def notes(self) -> Sequence[str]:
        """What a reader of its numbers should know of how it is run; sentences that begin with "it" or "its"."""
        return ()

    def position_tensors(self) -> Iterator[PositionTensor]:
        """The numbers of its encoding, as they are stored."""
        return iter(())

    def recorded(self) -> Mapping[str, Any]:
        """What else the provenance of a run says of it, such as an adapter; empty where its digest says all."""
        return {}


def shape_in_words(layers: int, width: int, heads: int, head: int | None = None) -> str:
    """A shape for a reader: `4 layers, width 128, 4 heads of 32`; a head is the width's share unless told."""
    return f"{layers} layers, width {width}, {heads} heads of {head or width // max(1, heads)}"
