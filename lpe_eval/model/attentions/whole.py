"""Short strings, read in both directions: the whole matrix of logits, with nothing in between.

There is no mask, because every key is visible, and no blocks, so for strings of up to about a hundred
tokens this is the quickest path with gradients. It is never chosen by itself: memory is quadratic.

Rows of fewer than `_FEWEST_KEYS` numbers get as many impossible keys as they lack: the CPU's softmax takes
numbers one by one where a row does not fill a vector, and is then three times slower.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from lpe_eval.model.attention import AttentionPath
from lpe_eval.model.block import kept_of, scaled_products
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask
from lpe_eval.model.positions import part
from lpe_eval.model.scores import Scores

_FEWEST_KEYS = 16


class Whole(AttentionPath):
    """Exact bidirectional attention from the whole matrix of logits, without a mask."""

    preference = -10
    falls_back = False

    @classmethod
    def serves(cls, encoding: Encoding, device: torch.device) -> bool:
        return not encoding.geometry.causal

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
        q_at = part(at, slice(len(at) - q.shape[2], len(at)))
        logits = scaled_products(q, k)
        bias = encoding.bias(q_at, at)
        if encoding.capabilities.adjusts:
            visible = torch.ones(len(q_at), len(at), dtype=torch.bool, device=at.device)
            of_rows = None if features is None else features[:, :, len(at) - q.shape[2] :]
            scores = Scores(logits, bias, q.float(), k.float(), visible, q_at, at, of_rows, features)
            positioned = encoding.adjust(scores)
        else:
            positioned = logits if bias is None else logits + bias
        lacking = max(0, _FEWEST_KEYS - len(at)) if at.device.type == "cpu" else 0
        whole = pad(positioned, (0, lacking), value=float("-inf")) if lacking else positioned
        return kept_of(encoding, whole, whole.softmax(dim=-1))[..., : len(at)].to(v.dtype) @ v
