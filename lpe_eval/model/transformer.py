"""The reference transformer, causal or bidirectional; it never asks which encoding it holds."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lpe_eval.model.attention import AttentionPath, choose
from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding, Geometry
from lpe_eval.spec.model_spec import ModelSpec


class Transformer(nn.Module):
    """A stack of attention and MLP layers around one encoding for each layer.

    Args:
        spec: shape and encoding.
        attention: name of the attention path, or "auto".

    Raises:
        SpecError: the encoding does not exist or does not fit the shape.
    """

    def __init__(self, spec: ModelSpec, attention: str = "auto") -> None:
        super().__init__()
        self.spec = spec
        self.attention = attention
        geometry = Geometry(spec.heads, spec.width // spec.heads, spec.width, spec.train_length, spec.causal)
        self.layer_encodings: list[Encoding] = build_encodings(spec.encoding, geometry, spec.layers)
        self.encodings = nn.ModuleList(dict.fromkeys(self.layer_encodings))
        self.embedding = nn.Embedding(spec.vocab_size, spec.width)
        self.layers = nn.ModuleList(Layer(spec) for _ in range(spec.layers))
        self.final_norm = nn.LayerNorm(spec.width) if spec.norm == "pre" else nn.Identity()
        self.head = None if spec.tied_embeddings else nn.Linear(spec.width, spec.vocab_size, bias=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draws all weights: N(0, 0.02), the two projections into the residual stream divided by sqrt(2 layers)."""
        matrices = [self.embedding.weight, *([] if self.head is None else [self.head.weight])]
        for matrix in matrices:
            nn.init.normal_(matrix, std=0.02, generator=generator)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            layer.initialise(generator, into_residual=0.02 / (2 * len(self.layers)) ** 0.5)
        initialise(self.layer_encodings, generator)

    def put(self, device: torch.device, dtype: torch.dtype) -> None:
        """Moves the model; the encodings' own numbers stay float32, so that distances and slopes are exact."""
        self.to(device, dtype)
        self.encodings.float()

    def path_names(self) -> list[str]:
        """The attention paths in use, in layer order and each once."""
        device = self.embedding.weight.device
        return list(dict.fromkeys(choose(self.attention, each, device)[0] for each in self.layer_encodings))

    def forward(
        self, tokens: Int[Tensor, "b t"], generator: torch.Generator, rows: int | None = None
    ) -> Float[Tensor, "b r e"]:
        """Final hidden states of the last `rows` tokens (default: all), ready for `logits`.

        Only those rows pass through the last layer's queries and MLP.

        Args:
            tokens: token ids.
            generator: source of sampled positions; untouched by encodings that sample nothing.
            rows: how many trailing tokens are wanted.

        Raises:
            LengthError: the encoding has no position for some of the tokens.
        """
        length, device = tokens.shape[1], tokens.device
        first = self.layer_encodings[0]
        embedded = self.embedding(tokens)
        x = first.embed(embedded, first.positions(length, device, generator)).to(embedded.dtype)
        for number, (layer, encoding) in enumerate(zip(self.layers, self.layer_encodings, strict=True)):
            at = encoding.positions(length, device, generator)
            wanted = rows if rows is not None and number == len(self.layers) - 1 else length
            x = layer(x, encoding, at, choose(self.attention, encoding, device)[1], wanted)
        return self.final_norm(x)

    def logits(self, hidden: Float[Tensor, "*n e"]) -> Float[Tensor, "*n v"]:
        """Unnormalised scores of every symbol."""
        return F.linear(hidden, self.embedding.weight if self.head is None else self.head.weight)


class Layer(nn.Module):
    """Attention and an MLP, each with a residual connection and a norm before or after it."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.causal = spec.causal
        self.pre_norm = spec.norm == "pre"
        self.activation = F.gelu if spec.activation == "gelu" else F.relu
        self.attention_norm = nn.LayerNorm(spec.width)
        self.query_key_value = nn.Linear(spec.width, 3 * spec.width)
        self.attention_out = nn.Linear(spec.width, spec.width)
        self.mlp_norm = nn.LayerNorm(spec.width)
        self.mlp_in = nn.Linear(spec.width, spec.mlp_width)
        self.mlp_out = nn.Linear(spec.mlp_width, spec.width)

    def initialise(self, generator: torch.Generator, into_residual: float) -> None:
        """Draws the weights; biases start at zero."""
        for linear in (self.query_key_value, self.mlp_in):
            nn.init.normal_(linear.weight, std=0.02, generator=generator)
            nn.init.zeros_(linear.bias)
        for linear in (self.attention_out, self.mlp_out):
            nn.init.normal_(linear.weight, std=into_residual, generator=generator)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        x: Float[Tensor, "b t e"],
        encoding: Encoding,
        at: Int[Tensor, " t"],
        path: type[AttentionPath],
        rows: int,
    ) -> Float[Tensor, "b r e"]:
        """The last `rows` tokens after this layer."""
        skip = x.shape[1] - rows
        if self.pre_norm:
            y = x[:, skip:] + self._attend(self.attention_norm(x), encoding, at, path, rows)
            return y + self._mlp(self.mlp_norm(y))
        y = self.attention_norm(x[:, skip:] + self._attend(x, encoding, at, path, rows))
        return self.mlp_norm(y + self._mlp(y))

    def _attend(
        self,
        x: Float[Tensor, "b t e"],
        encoding: Encoding,
        at: Int[Tensor, " t"],
        path: type[AttentionPath],
        rows: int,
    ) -> Float[Tensor, "b r e"]:
        q, k, v = self.query_key_value(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (turned.to(v.dtype) for turned in encoding.rotate(q, k, at))
        context = path.attend(q[:, :, x.shape[1] - rows :], k, v, encoding, at, self.causal)
        return self.attention_out(context.transpose(1, 2).flatten(2))

    def _mlp(self, x: Float[Tensor, "b r e"]) -> Float[Tensor, "b r e"]:
        return self.mlp_out(self.activation(self.mlp_in(x)))
