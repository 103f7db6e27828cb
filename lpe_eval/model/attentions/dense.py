"""The oracle: every logit of every pair of tokens at once, in the order of the formulas.

Quadratic in memory. Every other path is tested against this one, gradients included.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model.attention import AttentionPath
from lpe_eval.model.block import probabilities
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask
from lpe_eval.model.positions import part
from lpe_eval.model.products import products
from lpe_eval.model.scores import Scores


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
        mask: Mask,
        features: Float[Tensor, "b h k n"] | None = None,
    ) -> Float[Tensor, "b h q d"]:
        length, first = len(at), len(at) - q.shape[2]
        everything, rows = slice(0, length), slice(first, length)
        visible = mask.visible(rows, everything, q.device)
        logits, q_at = products(q, k) * q.shape[-1] ** -0.5, part(at, rows)
        of_rows = None if features is None else features[:, :, rows]
        scores = Scores(logits, encoding.bias(q_at, at), q.float(), k.float(), visible, q_at, at, of_rows, features)
        return probabilities(encoding, scores, everything).to(v.dtype) @ v
