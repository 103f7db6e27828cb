"""Encodings that put a small network between logits and softmax (DAPE), on CUDA: one Triton kernel.

A program owns a block of query rows of one text *in all heads*, because the network mixes heads. It goes
through the keys a block at a time, holds the logits of all heads of that tile, runs the network on the tensor
cores and keeps an online softmax for each head. Nothing of size q x k touches memory.

Sources: the online softmax in tiles is Dao 2023, "FlashAttention-2" (arXiv 2307.08691); the network is that of
an encoding's `pair_network` (Zheng et al. 2024, arXiv 2405.14722).

Choices:
    * What the network adds for the bias of a pair, first_bias + first . B inside and second_bias + B outside,
      depends on the offset alone. Both are tables by offset, made in float32 before the kernel starts, so a bias of
      minus thousands (ALiBi at long distances) never goes through a product of low precision.
    * The logits go through the network in TF32 (10 bits of mantissa, sums in float32) where the model is in
      bfloat16 or float16, and in three TF32 products, which is float32 up to rounding, where it is in float32.
      Outside of the network the logits keep their float32.
    * Heads, hidden units and width are padded to powers of two, at least 16.
    * The size of a tile is a function of the shape, not the winner of a race at run time, so the same input
      gives the same output. Compiled for compute capability 9.0 with Triton 3.6 and 12 heads of 64, 32 hidden units,
      it needs 84 KiB of shared memory and no register more than there are in bfloat16, 200 KiB and some in float32.
      Larger shapes are not served.
    * Forward only. With gradients the path is `checkpointed`; around a bias that is no function of the offset (FIRE,
      sampled positions) the encoding is not served, and where positions do not run on one by one `blocked` serves.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model import fused_kernel
from lpe_eval.model.attention import AttentionPath
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.attentions.checkpointed import Checkpointed
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.gpu import has_triton
from lpe_eval.model.mask import Mask
from lpe_eval.model.offsets import consecutive

_LARGE = (9, 10)
"""First digits of the compute capability of GPUs whose multiprocessors have 227 KiB of shared memory."""


class Fused(AttentionPath):
    """Exact attention with a network of each pair, in one kernel."""

    preference = 25

    @classmethod
    def serves(cls, encoding: Encoding, device: torch.device) -> bool:
        network, geometry = encoding.pair_network(), encoding.geometry
        uses = encoding.capabilities
        if network is None or uses.general_bias or uses.keeps or not 0 <= network.leak <= 1:
            return False
        fits = fused_kernel.tile(geometry.heads, geometry.head_width, len(network.first)) is not None
        return fits and has_triton(device) and torch.cuda.get_device_capability(device)[0] in _LARGE

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
        if torch.is_grad_enabled():
            return Checkpointed.attend(q, k, v, encoding, at, mask, features)
        if mask.bounded or (encoding.capabilities.offset_bias and not consecutive(at)):
            return Blocked.attend(q, k, v, encoding, at, mask, features)
        network = encoding.pair_network()
        assert network is not None
        offset = torch.arange(1 - q.shape[2], len(at), device=q.device)
        bias = encoding.bias_by_offset(offset) if encoding.capabilities.offset_bias else None
        size = fused_kernel.tile(q.shape[1], q.shape[3], len(network.first))
        assert size is not None
        return fused_kernel.launch(q, k, v, network, bias, mask.causal, size)
