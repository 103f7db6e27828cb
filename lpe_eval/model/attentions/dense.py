"""The oracle: every logit of every pair of tokens at once, in the order of the formulas.

Quadratic in memory. Every other path is tested against this one, gradients included.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model.attention import AttentionPath, visible_keys
from lpe_eval.model.block import probabilities
from lpe_eval.model.encoding import Encoding, Scores
from lpe_eval.model.positions import part
from lpe_eval.model.products import products


class Dense(AttentionPath):
    """Exact attention from the whole matrix of logits."""

    preference = 0
    falls_back = False

    @classmethod
    def serves(cls, encoding: Encoding, device: torch.device) -> bool:
        return True

    @classmethod
    def attend(
        cls,
        q: Float[Tensor, "b h q d"],
        k: Float[Tensor, "b h k d"],
        v: Float[Tensor, "b h k d"],
        encoding: Encoding,
        at: Int[Tensor, " k"],
        causal: bool,
    ) -> Float[Tensor, "b h q d"]:
        length, first = len(at), len(at) - q.shape[2]
        visible = visible_keys(slice(first, length), length, length, causal, q.device)
        q_at = part(at, slice(first, length))
        logits = products(q, k) * q.shape[-1] ** -0.5
        scores = Scores(logits, encoding.bias(q_at, at), q.float(), k.float(), visible, q_at, at)
        return probabilities(encoding, scores, length).to(v.dtype) @ v
