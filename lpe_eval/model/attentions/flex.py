"""Biases known from positions, on CUDA: PyTorch's FlexAttention, one kernel for all lengths.

FlexAttention writes a Triton kernel around a function of one logit, so the bias is computed in
registers and nothing of the size of the logits ever touches memory. Two forms are served:

    * a bias by offset: a row of values for each head, read at i - j;
    * a bias in linear pieces of a ratio (FIRE): numerator(i - j) / denominator(i) from two rows of
      numbers, the knots below it counted by halving, then one slope and one constant. That is the
      network itself up to rounding, and its hidden layer is never computed for a pair.

Source: Dong et al. 2024, "Flex Attention" (arXiv 2412.05496), as in torch 2.6 and later.

Choices:
    * What depends on the length is an input of the compiled function, and the function is compiled
      with symbolic sizes, so another length compiles nothing. It is compiled again for another dtype,
      width or number of heads, with and without gradients, for one text or several, and where the
      queries are fewer than the keys; for texts of at most 128 tokens; and for lengths that are multiples of 128,
      where half of the instructions, which look after the edges, fall away. PyTorch's limit on that (8) is raised;
      beyond the limit there is an error, never the whole matrix.
    * Tiles are of our own choice. With Triton 3.6 and torch 2.11, FlexAttention's for an H100 (128 x 128, width 64)
      need 240 KiB of shared memory once a table is read, more than the 227 there are; ours need 80 KiB.
    * Blocks of a causal mask are counted, not searched: `create_block_mask` looks at every pair.
    * Gradients: FlexAttention differentiates values it read from a table, so a learned row of values trains
      here, its gradient summed by atomic additions, which do not come in a fixed order. The pieces of a ratio
      have few numbers and all pairs add to them, so training FIRE is left to the path `checkpointed`.
    * Positions that do not run on one by one have no offsets to look up: `blocked` or `checkpointed`.
    * Widths below 16 are not served, because FlexAttention does not.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model.attention import AttentionPath
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.attentions.checkpointed import Checkpointed
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.gpu import has_triton
from lpe_eval.model.mask import Mask
from lpe_eval.model.offsets import consecutive


class Flex(AttentionPath):
    """Exact attention with a bias computed inside FlexAttention's kernel."""

    preference = 25

    @classmethod
    def serves(cls, encoding: Encoding, device: torch.device) -> bool:
        uses = encoding.capabilities
        by_offset = uses.offset_bias and not uses.general_bias
        return (
            has_triton(device)
            and not (uses.adjusts or uses.keeps)
            and (by_offset or encoding.ratio_bias() is not None)
            and encoding.geometry.head_width >= 16
        )

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
        ratio, training = encoding.ratio_bias(), torch.is_grad_enabled()
        if mask.bounded or not consecutive(at) or (ratio is not None and training):
            return (Checkpointed if training else Blocked).attend(q, k, v, encoding, at, mask, features)
        # FlexAttention brings torch's compiler, which takes seconds to import, and a CPU never comes here.
        from lpe_eval.model import flex_kernels

        return flex_kernels.attend(q, k, v, encoding if ratio is None else ratio, at, mask.causal)
