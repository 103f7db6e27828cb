"""Encodings that put a small network between logits and softmax (DAPE), on CUDA: two Triton kernels.

A program of the first kernel owns some query rows of one text *in all heads*, because the network mixes heads. It goes
through keys a block at a time, runs the network on the tensor cores and writes the weights of that tile. The second
kernel multiplies them with the values, head by head. Some hundred rows have their turn at a time, so memory grows with
the length and not with its square.

Sources: weights relative to a peak that are rescaled afterwards are those of Dao 2023, "FlashAttention-2" (arXiv
2307.08691); the network is that of an encoding's `pair_network` (Zheng et al. 2024, arXiv 2405.14722).

Choices:
    * One kernel that also held the context of all heads read keys and values again for every 16 rows, since a context
      of 12 heads of 64 fills the registers. With the values apart, a program keeps 32 rows, no state from block to
      block and half of the registers; what it writes is read once. benchmarks/README.md counts both.
    * What the network adds for the bias of a pair, first_bias + first . B inside and second_bias + B outside,
      depends on the offset alone. Both are tables by offset, made in float32 before the kernel starts, so a bias of
      minus thousands (ALiBi at long distances) never goes through a product of low precision.
    * Of a model in 16 bits the network is computed in float16, sums in float32: 10 bits of mantissa as in TF32, at
      twice the speed. Powers of two keep its numbers in range. Of a model in float32 it is three TF32 products, which
      is float32 up to rounding. Outside of the network the logits keep their float32.
    * Peaks are whole powers of two, so bringing weights to a common peak rounds nothing.
    * Heads, hidden units and width are padded to powers of two, at least 16.
    * The tile is a function of the shape, the type and the fast memory of the card. What fits in none is computed by
      `blocked`, and said.
    * Forward only. With gradients the path is `checkpointed`; around a bias that is no function of the offset (FIRE,
      sampled positions) the encoding is not served, and where positions are not known to run on one by one `blocked`
      serves.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lpe_eval.model import fused_kernel
from lpe_eval.model.attention import AttentionPath, PathError
from lpe_eval.model.attentions.blocked import Blocked
from lpe_eval.model.attentions.checkpointed import Checkpointed
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.gpu import has_triton, shared_memory
from lpe_eval.model.mask import Mask
from lpe_eval.model.positions import consecutive

_ANY = 227 << 10
"""Bytes of fast memory that a program has on the largest cards."""


class Fused(AttentionPath):
    """Exact attention with a network of each pair, in one kernel."""

    preference = 25

    @classmethod
    def serves(cls, encoding: Encoding, device: torch.device) -> bool:
        network, geometry = encoding.pair_network(), encoding.geometry
        uses = encoding.capabilities
        if network is None or uses.general_bias or uses.keeps or not 0 <= network.leak <= 1:
            return False
        most = fused_kernel.tile(geometry.heads, geometry.head_width, len(network.first), torch.bfloat16, _ANY)
        return most is not None and has_triton(device)

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
        fast = shared_memory(q.device) if q.device.type == "cuda" else _ANY
        size = fused_kernel.tile(q.shape[1], q.shape[3], len(network.first), q.dtype, fast)
        if size is None:
            name = str(q.dtype).removeprefix("torch.")
            raise PathError(
                f"{q.shape[1]} heads of {q.shape[3]} in {name} do not fit into {fast >> 10} KiB of fast memory"
            )
        return fused_kernel.launch(q, k, v, network, bias, mask.causal, size)
