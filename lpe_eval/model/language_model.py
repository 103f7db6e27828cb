"""What a measurement needs of a model: hidden states, a head, and the facts a result carries."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.errors import CheckpointError


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


class LastQuery(NamedTuple):
    """What the logits of a text's last query are made of in one layer, for the keys that it sees.

    `content + added` is what goes into the softmax. `content` is what the same query and keys would give if every key
    stood where the query stands, without a bias: q . k / sqrt(d), with whatever constant the encoding puts there.

    Attributes:
        layer: its number, from 0.
        distance: tokens between the query and each key, 0 for its own.
        content: see above; at least float32.
        added: what position adds, in nats.
        static: the bias, which no token moves; None where there is none.
        of_mean_key: what position would add to the mean of these keys at each distance, of an encoding that turns or
            scales queries and keys; None of others.
        decay: the mean over pairs of channels of cos(distance * frequency), of an encoding that only turns them; None
            of others.
        fixed: whether `added` is `static` whatever the text.
    """

    layer: int
    distance: Int[Tensor, " k"]
    content: Float[Tensor, "h k"]
    added: Float[Tensor, "h k"]
    static: Float[Tensor, "h k"] | None = None
    of_mean_key: Float[Tensor, "h k"] | None = None
    decay: Float[Tensor, " k"] | None = None
    fixed: bool = False


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

    def last_query(
        self, tokens: Int[Tensor, "1 t"], generator: torch.Generator, take: Callable[[LastQuery], None]
    ) -> None:
        """Runs one text, and hands to `take` what the logits of its last query are made of, layer by layer.

        Raises:
            LengthError: the model has no position for some of the tokens.
            CheckpointError: what position adds cannot be told from the rest.
        """
        raise CheckpointError(
            f"{self.facts.name} is opened as {self.facts.format}, and what happens between its queries and keys is "
            "known to its own code alone; what position adds is read in native, GPT-NeoX and fairseq checkpoints and "
            "in Hugging Face models with RoPE"
        )

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
