"""The reference transformer with a run axis: the parts that hold weights, and attention in pieces of one run.

The runs stand one after another in the batch. Only these parts know where one run ends; all else is the
transformer itself. See `stack.py`.

    linear       one batched product, weights (m, out, in)        norm       each run's own gain
    embedding    one product with m tables                        encoding   as it is if it learns nothing,
                                                                             else each run's own, in turn
"""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lpe_eval.model.attention import AttentionPath
from lpe_eval.model.attentions.whole import Whole
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask
from lpe_eval.model.scores import Capabilities
from lpe_eval.model.transformer import Layer, Transformer

_PIECE_LOGITS = 1 << 18
"""Logits of a piece of the batch on a CPU: 1 MiB of float32, what a core keeps close."""


def with_run_axis(
    models: Sequence[Transformer], weights: Float[Tensor, "m p"], dtype: torch.dtype
) -> tuple[Transformer, list[list[nn.Parameter]]]:
    """The transformer whose parts have a run axis, and its parameters in the order of the weights.

    Where an encoding learns something, there is one parameter for each run; all others have a run axis.
    """
    stacked: dict[str, nn.Parameter] = {}
    leaves: list[list[nn.Parameter]] = []
    start = 0
    for (name, parameter), *others in zip(*(model.named_parameters() for model in models), strict=True):
        stop = start + parameter.numel()
        if name.startswith("encodings."):
            leaves.append([parameter, *(other for _, other in others)])
        else:
            stacked[name] = nn.Parameter(weights[:, start:stop].view(len(models), *parameter.shape))
            leaves.append([stacked[name]])
        start = stop
    joined = copy.deepcopy(models[0])
    for name, module in list(joined.named_modules()):
        if name.startswith("encodings."):
            continue
        weight, bias = stacked.get(f"{name}.weight"), stacked.get(f"{name}.bias")
        match module:
            case nn.Linear() if weight is not None:
                part: nn.Module = _Linear(weight, bias, dtype)
            case nn.LayerNorm() if weight is not None and bias is not None:
                part = _Norm(weight, bias, module.eps)
            case nn.Embedding() if weight is not None:
                part = _Embedding(weight)
            case _:
                continue
        parent, _, attribute = name.rpartition(".")
        setattr(joined.get_submodule(parent), attribute, part)
    by_layer = [_one_encoding(each) for each in zip(*(model.layer_encodings for model in models), strict=True)]
    shared = {id(first): one for first, one in zip(models[0].layer_encodings, by_layer, strict=True)}
    joined.layer_encodings = [shared[id(first)] for first in models[0].layer_encodings]
    joined.encodings = nn.ModuleList(dict.fromkeys(joined.layer_encodings))
    for holder in (joined, *joined.layers):
        assert isinstance(holder, Transformer | Layer)
        holder.runs = len(models)
    joined.attention = _RunByRun
    return joined, leaves


def _one_encoding(runs: Sequence[Encoding]) -> Encoding:
    return _Encodings(runs) if any(True for _ in runs[0].parameters()) else runs[0]


class _Linear(nn.Module):
    """A linear layer for each run."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.bias, self.dtype = weight, bias, dtype

    def forward(self, x: Float[Tensor, "b *n e"]) -> Float[Tensor, "b *n o"]:
        runs = x.reshape(len(self.weight), -1, x.shape[-1]).to(self.dtype)
        weight = self.weight.to(self.dtype).transpose(1, 2)
        if self.bias is None:
            out = torch.bmm(runs, weight)
        else:
            out = torch.baddbmm(self.bias.to(self.dtype)[:, None], runs, weight)
        return out.view(*x.shape[:-1], -1)


class _Norm(nn.Module):
    """A layer norm for each run."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = weight, bias, eps

    def forward(self, x: Float[Tensor, "b t e"]) -> Float[Tensor, "b t e"]:
        if x.device.type == "cpu":
            # The fused kernel with its gain is quicker, run by run, than a product with a broadcast gain.
            shape, gains = x.shape[-1:], zip(self.weight.unbind(), self.bias.unbind(), strict=True)
            pieces = zip(x.chunk(len(self.weight)), gains, strict=True)
            return torch.cat([F.layer_norm(piece, shape, *gain, self.eps) for piece, gain in pieces])
        runs = F.layer_norm(x.unflatten(0, (len(self.weight), -1)), x.shape[-1:], eps=self.eps)
        return (runs * self.weight[:, None, None] + self.bias[:, None, None]).flatten(0, 1)


class _Embedding(nn.Module):
    """A table for each run."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t e"]:
        runs, symbols, _ = self.weight.shape
        # A product with few symbols costs half of a lookup and its gradient.
        chosen = F.one_hot(tokens[: len(tokens) // runs], symbols).to(self.weight.dtype).flatten(0, 1)
        return (chosen @ self.weight).view(*tokens.shape, -1)


class _Encodings(Encoding):
    """The same encoding with other parameters for each run."""

    def __init__(self, runs: Sequence[Encoding]) -> None:
        super().__init__(runs[0].geometry, runs[0].options)
        self.runs = nn.ModuleList(runs)
        self.each, self.inside = list(runs), runs[0].capabilities

    @property
    def label(self) -> str:
        return self.each[0].label

    @property
    def capabilities(self) -> Capabilities:
        return self.inside

    @property
    def embeds(self) -> bool:
        return self.each[0].embeds

    @property
    def longest_length(self) -> int | None:
        return self.each[0].longest_length

    def positions(self, length: int, device: torch.device, generator: torch.Generator) -> Int[Tensor, " t"]:
        return self.each[0].positions(length, device, generator)

    def embed(self, x: Float[Tensor, "b t e"], at: Int[Tensor, " t"]) -> Float[Tensor, "b t e"]:
        if not self.embeds:
            return x
        pieces = zip(self.each, x.chunk(len(self.each)), strict=True)
        return torch.cat([encoding.embed(piece, at) for encoding, piece in pieces])

    def rotate(
        self, q: Float[Tensor, "b h t d"], k: Float[Tensor, "b h t d"], at: Int[Tensor, " t"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b h t d"]]:
        if not self.inside.rotates:
            return q, k
        pieces = zip(self.each, q.chunk(len(self.each)), k.chunk(len(self.each)), strict=True)
        turned = [encoding.rotate(q_piece, k_piece, at) for encoding, q_piece, k_piece in pieces]
        return torch.cat([q for q, _ in turned]), torch.cat([k for _, k in turned])

    def features(self, x: Float[Tensor, "b t e"]) -> Float[Tensor, "b h t n"] | None:
        pieces = zip(self.each, x.chunk(len(self.each)), strict=True)
        found = [encoding.features(piece) for encoding, piece in pieces]
        return torch.cat([each for each in found if each is not None]) if self.inside.features else None


class _RunByRun(AttentionPath):
    """Attention of a stack: the path `whole`, in pieces of the batch that each belong to one run.

    A piece's logits stay in the cache: by itself that saved two fifths of attention's time on a CPU at 40 tokens
    and six runs, but nothing that could be told from noise in a whole step.
    """

    falls_back = False

    @classmethod
    def serves(cls, encoding: Encoding, device: torch.device) -> bool:
        return Whole.serves(encoding, device)

    @classmethod
    def attend(
        cls,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b h k d"],
        v: Float[Tensor, "b h k d"],
        encoding: Encoding,
        at: Int[Tensor, " k"],
        mask: Mask,
        features: Float[Tensor, "b h k n"] | None = None,
    ) -> Float[Tensor, "b h q d"]:
        if isinstance(encoding, _Encodings):
            size, each = len(q) // len(encoding.each), encoding.each
        else:
            logits = q[0].numel() // q.shape[-1] * len(at)
            size = max(1, _PIECE_LOGITS // logits) if q.device.type == "cpu" else len(q)
            each = [encoding] * -(-len(q) // size)
        of_pieces = [None] * len(each) if features is None else features.split(size)
        pieces = zip(each, q.split(size), k.split(size), v.split(size), of_pieces, strict=True)
        return torch.cat(
            [Whole.attend(queries, keys, values, one, at, mask, some) for one, queries, keys, values, some in pieces]
        )
