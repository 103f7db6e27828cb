"""Biases known from positions, on CUDA: PyTorch's FlexAttention, one kernel for all lengths.

FlexAttention writes a Triton kernel around a function of one logit, so the bias is computed in
registers and nothing of the size of the logits ever touches memory. Two forms are served:

    * a bias by offset: a row of values for each head, read at i - j;
    * a bias in linear pieces of a ratio (FIRE): numerator(i - j) / denominator(i) from two rows of
      numbers, the knots below it counted by halving, then one slope and one constant. That is the
      network itself up to rounding, and its hidden layer is never computed for a pair.

Source: Dong et al. 2024, "Flex Attention" (arXiv 2412.05496), as in torch 2.6 and later.

Choices:
    * What depends on the length is an input of the compiled function, and the function is compiled with symbolic sizes.
      Texts are padded to whole blocks of 128 tokens, two at least, and each head is a text of its own for
      FlexAttention, so all calls look alike: another length, a ragged end, fewer queries than keys, one text or several
      compile nothing. It is compiled again for another dtype, width or way of keeping gradients. PyTorch's limit on
      that (8) is raised.
    * Tiles are of our own choice. With Triton 3.6 and torch 2.11, FlexAttention's for an H100 (128 x 128, width 64)
      need 240 KiB of shared memory once a table is read, more than the 227 there are; ours need 80 KiB, or 72 for the
      pieces of a ratio, which also fit the 99 KiB of smaller cards.
    * Blocks of a causal mask are counted, not searched: `create_block_mask` looks at every pair.
    * Gradients: FlexAttention differentiates values it read from a table, so a learned row of values trains
      here, its gradient summed by atomic additions, which do not come in a fixed order. Where PyTorch is told to be
      deterministic, a learned row is left to `checkpointed`. The pieces of a ratio have few numbers and all pairs add
      to them, so training FIRE is left to it too.
    * Positions that are not known to run on one by one have no offsets to look up: `blocked` or `checkpointed`.
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
from lpe_eval.model.positions import consecutive


class Flex(AttentionPath):
    """Exact attention with a bias computed inside FlexAttention's kernel."""

    preference = 25
    compiles_gradients = True

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
        unordered = torch.are_deterministic_algorithms_enabled() and any(True for _ in encoding.parameters())
        if mask.bounded or not consecutive(at) or (training and (ratio is not None or unordered)):
            return (Checkpointed if training else Blocked).attend(q, k, v, encoding, at, mask, features)
        # FlexAttention brings torch's compiler, which takes seconds to import, and a CPU never comes here.
        from lpe_eval.model import flex_kernels

        return flex_kernels.attend(q, k, v, encoding if ratio is None else ratio, at, mask.causal)
