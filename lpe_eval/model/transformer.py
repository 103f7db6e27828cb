"""The reference transformer, causal or bidirectional; it never asks which encoding it holds.

Bidirectional, post-norm and with ReLU, scaled embeddings, no attention biases and a biased head of its own,
it is the encoder of the Chomsky-hierarchy evaluation: google-deepmind/randomized_positional_encodings at
e8c6474, `models/transformer.py`, whose logits it reproduces for NONE, SIN_COS, ALIBI, ROTARY, RELATIVE and
LEARNT; with a causal mask too, but for ALIBI and RELATIVE.

Deviations from that code, all deliberate:
    * Dropout acts in training mode only. The released code also drops when it evaluates.
    * RELATIVE with a causal mask feeds the sinusoid with T - 1 - (i - j) there, so that a token's logits
      depend on how much text follows it. Here the distance is i - j with and without a mask.
    * ALIBI with a causal mask keeps the half slope there that tells the past from the future; see `alibi.py`.
    * Tokens are looked up in a table, which is the product of one-hot rows and a matrix.
"""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lpe_eval.model.adaptive import AdaptiveEmbedding, AdaptiveHead
from lpe_eval.model.attention import AttentionPath, choose
from lpe_eval.model.build import build_encodings, initialise
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.falling_back import attended
from lpe_eval.model.mask import Mask
from lpe_eval.model.scores import Geometry
from lpe_eval.spec.model_spec import ModelSpec

_ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "gelu_tanh": partial(F.gelu, approximate="tanh")}


class Transformer(nn.Module):
    """A stack of attention and MLP layers around one encoding and one mask for each layer.

    Args:
        spec: shape and encoding.
        attention: name of the attention path, or "auto".

    Raises:
        SpecError: the encoding does not exist or does not fit the shape.
    """

    def __init__(self, spec: ModelSpec, attention: str = "auto") -> None:
        super().__init__()
        self.spec, self.runs = spec, 1
        self.attention: str | type[AttentionPath] = attention
        geometry = Geometry(spec.heads, spec.width // spec.heads, spec.width, spec.train_length, spec.causal)
        self.layer_encodings: list[Encoding] = build_encodings(spec.encoding, geometry, spec.layers)
        self.encodings = nn.ModuleList(dict.fromkeys(self.layer_encodings))
        self.embedding = _embedding(spec)
        self.layers = nn.ModuleList(Layer(spec, mask) for mask in masks_of(spec))
        normalised = spec.norm == "pre" and spec.final_norm
        self.final_norm = nn.LayerNorm(spec.width, spec.norm_eps) if normalised else nn.Identity()
        self.head = _head(spec, self.embedding)

    def initialise(self, generator: torch.Generator) -> None:
        """Draws all weights; biases start at zero, and norms at one.

        `initial_weights` "normal": N(0, 0.02), the two projections into the residual stream divided by
        sqrt(2 layers). "fan_in": a normal distribution cut at two deviations, of deviation 0.02 for the
        embedding and 1 / sqrt(fan in) for all else, as DeepMind's encoder has it from Haiku (which does not
        make up for the cut either: the deviation of what is drawn is 0.88 of that).
        """
        by_fan_in, depth = self.spec.initial_weights == "fan_in", 2 * len(self.layers)
        outer = [*self.embedding.parameters(), *([] if self.head is None else self.head.parameters())]
        for matrix in dict.fromkeys(outer):
            if matrix.dim() < 2:
                nn.init.zeros_(matrix)
            elif by_fan_in:
                of_head = isinstance(self.head, nn.Linear) and matrix is self.head.weight
                _cut_normal(matrix, matrix.shape[1] ** -0.5 if of_head else 0.02, generator)
            else:
                nn.init.normal_(matrix, std=0.02, generator=generator)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            layer.initialise(generator, None if by_fan_in else 0.02 / depth**0.5)
        initialise(self.layer_encodings, generator)

    def put(self, device: torch.device, dtype: torch.dtype) -> None:
        """Moves the model; the encodings' own numbers stay float32, so that distances and slopes are exact."""
        self.to(device, dtype)
        self.encodings.float()

    def path_names(self) -> list[str]:
        """The attention paths in use, in layer order and each once."""
        device = next(self.layers.parameters()).device
        return list(dict.fromkeys(choose(self.attention, each, device)[0] for each in self.layer_encodings))

    def forward(
        self, tokens: Int[Tensor, "b t"], generator: torch.Generator, rows: int | None = None
    ) -> Float[Tensor, "b r e"]:
        """Final hidden states of the last `rows` tokens (default: all), ready for `logits`.

        Only those rows pass through the last layer's queries and MLP.

        Args:
            tokens: token ids.
            generator: source of sampled positions and, in training mode, of dropout; untouched by encodings
                that sample nothing and models that drop nothing. On the CPU or on the model's device, where
                dropout is drawn faster.
            rows: how many trailing tokens are wanted.

        Raises:
            LengthError: the encoding has no position for some of the tokens.
        """
        length, device = tokens.shape[1], tokens.device
        first = self.layer_encodings[0]
        embedded = self.embedding(tokens)
        if self.spec.embedding_scale != 1:
            embedded = embedded * self.spec.embedding_scale
        x = first.embed(embedded, first.positions(length, device, generator)).to(embedded.dtype)
        if self.spec.dropout and self.training and first.embeds:
            x = dropped(x, self.spec.dropout, generator, self.runs)
        for number, (layer, encoding) in enumerate(zip(self.layers, self.layer_encodings, strict=True)):
            at = encoding.positions(length, device, generator)
            wanted = rows if rows is not None and number == len(self.layers) - 1 else length
            x = layer(x, encoding, at, choose(self.attention, encoding, device)[1], wanted, generator)
        return self.final_norm(x)

    def logits(self, hidden: Float[Tensor, "*n e"]) -> Float[Tensor, "*n v"]:
        """Scores of every symbol: unnormalised, or logarithms of probabilities from an adaptive softmax."""
        if self.head is not None:
            return self.head(hidden)
        assert isinstance(self.embedding, nn.Embedding)
        return F.linear(hidden, self.embedding.weight)


def _embedding(spec: ModelSpec) -> nn.Embedding | AdaptiveEmbedding:
    if spec.adaptive is not None:
        return AdaptiveEmbedding(spec.adaptive, spec.vocab_size, spec.width)
    return nn.Embedding(spec.vocab_size, spec.width)


def _head(spec: ModelSpec, embedding: nn.Embedding | AdaptiveEmbedding) -> nn.Linear | AdaptiveHead | None:
    if spec.adaptive is not None:
        assert isinstance(embedding, AdaptiveEmbedding)
        return AdaptiveHead(spec.adaptive, spec.vocab_size, spec.width, embedding)
    if spec.tied_embeddings:
        return None
    return nn.Linear(spec.width, spec.outputs or spec.vocab_size, bias=spec.head_bias)


def dropped(
    x: Float[Tensor, "b t e"], rate: float, generator: torch.Generator, runs: int = 1
) -> Float[Tensor, "b t e"]:
    """Each number zero with probability `rate`, and divided by 1 - `rate` otherwise.

    Where the batch holds several runs, one after another, they share what is drawn.
    """
    kept = torch.rand((len(x) // runs, *x.shape[1:]), generator=generator, device=generator.device)
    # In place, and never as truth values: to multiply those with numbers takes several times as long.
    factor = kept.ge_(rate).div_(1 - rate).to(x.device, x.dtype)
    return (x.unflatten(0, (runs, -1)) * factor).flatten(0, 1)


def _cut_normal(matrix: Tensor, deviation: float, generator: torch.Generator) -> None:
    nn.init.trunc_normal_(matrix, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)


def masks_of(spec: ModelSpec) -> list[Mask]:
    """What each layer lets a query see."""
    return [Mask(spec.causal, each.window, each.chunk) for each in spec.encoding.by_layer(spec.layers)]


class Layer(nn.Module):
    """Attention and an MLP, each with a residual connection and a norm before or after it."""

    def __init__(self, spec: ModelSpec, mask: Mask) -> None:
        super().__init__()
        self.heads = spec.heads
        self.mask = mask
        self.post_norm = spec.norm == "post"
        self.parallel = spec.parallel_residual
        self.dropout, self.runs = spec.dropout, 1
        self.activation = _ACTIVATIONS[spec.activation]
        self.attention_norm = nn.LayerNorm(spec.width, spec.norm_eps)
        self.query_key_value = nn.Linear(spec.width, 3 * spec.width, bias=spec.attention_bias)
        self.attention_out = nn.Linear(spec.width, spec.width, bias=spec.attention_bias)
        self.mlp_norm = nn.LayerNorm(spec.width, spec.norm_eps)
        self.mlp_in = nn.Linear(spec.width, spec.mlp_width)
        self.mlp_out = nn.Linear(spec.mlp_width, spec.width)

    def initialise(self, generator: torch.Generator, into_residual: float | None) -> None:
        """Draws the weights: N(0, 0.02) and N(0, `into_residual`), or by fan in where that is None."""
        inward, outward = (self.query_key_value, self.mlp_in), (self.attention_out, self.mlp_out)
        for linear in (*inward, *outward):
            if into_residual is None:
                _cut_normal(linear.weight, linear.in_features**-0.5, generator)
            else:
                nn.init.normal_(linear.weight, std=0.02 if linear in inward else into_residual, generator=generator)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(
        self,
        x: Float[Tensor, "b t e"],
        encoding: Encoding,
        at: Int[Tensor, " t"],
        path: type[AttentionPath],
        rows: int,
        generator: torch.Generator,
    ) -> Float[Tensor, "b r e"]:
        """The last `rows` tokens after this layer; `generator` is the source of dropout."""
        skip = x.shape[1] - rows
        attended = self._attend(x if self.post_norm else self.attention_norm(x), encoding, at, path, rows)
        attended = self._dropped(attended, generator)
        if self.parallel:
            return x[:, skip:] + attended + self._dropped(self._mlp(self.mlp_norm(x[:, skip:])), generator)
        y = x[:, skip:] + attended
        if self.post_norm:
            y = self.attention_norm(y)
            return self.mlp_norm(y + self._dropped(self._mlp(y), generator))
        return y + self._dropped(self._mlp(self.mlp_norm(y)), generator)

    def _dropped(self, x: Float[Tensor, "b r e"], generator: torch.Generator) -> Float[Tensor, "b r e"]:
        return dropped(x, self.dropout, generator, self.runs) if self.dropout and self.training else x

    def _attend(
        self,
        x: Float[Tensor, "b t e"],
        encoding: Encoding,
        at: Int[Tensor, " t"],
        path: type[AttentionPath],
        rows: int,
    ) -> Float[Tensor, "b r e"]:
        q, k, v = self.in_heads(self.query_key_value(x))
        # Mixed precision ends here: an encoding's own numbers are float32 in training as in scoring.
        with torch.autocast(x.device.type, enabled=False):
            q, k = (turned.to(v.dtype) for turned in encoding.rotate(q, k, at))
            features = encoding.features(x) if encoding.capabilities.features else None
            queries = q[:, :, x.shape[1] - rows :]
            context = attended(path, queries, k, v, encoding, at, self.mask, features)
        return self.attention_out(context.transpose(1, 2).flatten(2))

    def in_heads(
        self, made: Float[Tensor, "b t m"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b h t d"], Float[Tensor, "b h t d"]]:
        """Queries, keys and values of each head, from what `query_key_value` made; nothing is turned yet."""
        q, k, v = made.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def _mlp(self, x: Float[Tensor, "b r e"]) -> Float[Tensor, "b r e"]:
        return self.mlp_out(self.activation(self.mlp_in(x)))
