"""Adaptive input and adaptive softmax: a vocabulary in bands, narrower vectors for rarer words.

Source: Baevski and Auli 2019, "Adaptive Input Representations for Neural Language Modeling" (arXiv
1809.10853), and Grave et al. 2017, "Efficient softmax approximation for GPUs" (arXiv 1609.04309), as in
fairseq (AdaptiveInput, AdaptiveSoftmax) at ofirpress/attention_with_linear_biases, 4b92f28. Words are
sorted by frequency; band 0 holds the words below the first cutoff. A word of band i enters as
projection_i(table_i[word]). The softmax runs over the words of band 0 and one class for each further band;
a word of band i has the probability of its class times a softmax over the band.

Choices:
    * Band 0 has a projection on the way in but none on the way out, as in fairseq where model and first
      table are equally wide, which is required here.
    * The head gives logarithms of probabilities in float32. They are scores like any other: a softmax
      over them changes nothing.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lpe_eval.spec.model_spec import AdaptiveSpec


def band_edges(spec: AdaptiveSpec, vocab_size: int) -> list[tuple[int, int]]:
    """The first word of each band, and the first word after it."""
    return list(zip((0, *spec.cutoffs), (*spec.cutoffs, vocab_size), strict=True))


def band_widths(spec: AdaptiveSpec, width: int) -> list[int]:
    """The width of the vectors of each band."""
    return [int(width // spec.factor**band) for band in range(len(spec.cutoffs) + 1)]


class AdaptiveEmbedding(nn.Module):
    """Vectors of words, looked up in the table of their band and projected to the model's width."""

    def __init__(self, spec: AdaptiveSpec, vocab_size: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.edges, widths = band_edges(spec, vocab_size), band_widths(spec, width)
        sizes = [stop - start for start, stop in self.edges]
        self.tables = nn.ModuleList(nn.Embedding(size, of) for size, of in zip(sizes, widths, strict=True))
        self.projections = nn.ModuleList(nn.Linear(of, width, bias=False) for of in widths)

    def forward(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t e"]:
        """The vector of each token."""
        first = self.projections[0].weight
        assert isinstance(first, Tensor)
        vectors = first.new_zeros(*tokens.shape, self.width)
        for (start, stop), table, projection in zip(self.edges, self.tables, self.projections, strict=True):
            inside = (tokens >= start) & (tokens < stop)
            vectors[inside] = projection(table(tokens[inside] - start))
        return vectors


class AdaptiveHead(nn.Module):
    """Logarithms of the probabilities of all words, band by band.

    Args:
        spec: the bands, and what is tied.
        vocab_size: number of words.
        width: width of the model.
        embedding: whose tables and projections serve here too where `spec` ties them.
    """

    def __init__(self, spec: AdaptiveSpec, vocab_size: int, width: int, embedding: AdaptiveEmbedding) -> None:
        super().__init__()
        self.edges, widths = band_edges(spec, vocab_size), band_widths(spec, width)
        sizes = [stop - start for start, stop in self.edges]
        own_tables = (nn.Embedding(size, of) for size, of in zip(sizes, widths, strict=True))
        own_projections = (nn.Linear(of, width, bias=False) for of in widths[1:])
        self.tables = embedding.tables if spec.tied_tables else nn.ModuleList(own_tables)
        tied = spec.tied_projections
        self.projections = embedding.projections[1:] if tied else nn.ModuleList(own_projections)
        self.classes = nn.Linear(width, len(spec.cutoffs), bias=False)

    def forward(self, hidden: Float[Tensor, "*n e"]) -> Float[Tensor, "*n v"]:
        """The logarithm of each word's probability."""
        words, *further = (_weight(table) for table in self.tables)
        top = torch.cat([F.linear(hidden, words), self.classes(hidden)], dim=-1).float().log_softmax(-1)
        bands = [top[..., : len(words)]]
        for number, (table, projection) in enumerate(zip(further, self.projections, strict=True)):
            scores = F.linear(hidden @ _weight(projection), table)
            bands.append(scores.float().log_softmax(-1) + top[..., len(words) + number, None])
        return torch.cat(bands, dim=-1)


def _weight(module: nn.Module) -> Tensor:
    assert isinstance(module, nn.Embedding | nn.Linear)
    return module.weight
