"""Llama and Qwen written from their formulas in float64, with a distance of its own for each pair of tokens."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support import remap_oracle


def logits(
    folder: Path,
    tokens: Tensor,
    method: str,
    numbers: dict[str, Any],
    inverse: Tensor,
    original: int | None = None,
    factor: float = 1.0,
    heads: int = 4,
) -> Tensor:
    """Of tokens [b, t], from the weights of a folder.

    Args:
        folder: of a Llama, a Qwen 2 or a Qwen 3 with tied or untied embeddings.
        tokens: ids.
        method: of mapping distances.
        numbers: its options.
        inverse: RoPE's frequencies.
        original: the length of the log-n factor; None for none.
        factor: of all logits of attention.
        heads: of queries.
    """
    weights = {
        name.removeprefix("model."): each.double() for name, each in load_file(folder / "model.safetensors").items()
    }
    length = tokens.shape[1]
    distances = remap_oracle.table(length, method, numbers)
    factors = torch.tensor(
        [factor * remap_oracle.query_factor(i, original) for i in range(length)], dtype=torch.float64
    )
    x = weights["embed_tokens.weight"][tokens]
    layer = 0
    while f"layers.{layer}.input_layernorm.weight" in weights:
        own = {name.removeprefix(f"layers.{layer}."): each for name, each in weights.items()}
        q, k, v = (_projected(_normed(x, own["input_layernorm.weight"]), own, name) for name in "qkv")
        width = q.shape[-1] // heads
        q, k, v = (each.unflatten(-1, (-1, width)).transpose(1, 2) for each in (q, k, v))
        if "self_attn.q_norm.weight" in own:
            q, k = (_normed(each, own[f"self_attn.{name}_norm.weight"]) for each, name in ((q, "q"), (k, "k")))
        k, v = (each.repeat_interleave(heads // each.shape[1], dim=1) for each in (k, v))
        scores = remap_oracle.logits(q, k, inverse, distances, factors)
        context = remap_oracle.attended(scores, v).transpose(1, 2).flatten(2)
        x = x + context @ own["self_attn.o_proj.weight"].T
        inner = _normed(x, own["post_attention_layernorm.weight"])
        gate, up = (inner @ own[f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (torch.nn.functional.silu(gate) * up) @ own["mlp.down_proj.weight"].T
        layer += 1
    head = weights.get("lm_head.weight", weights["embed_tokens.weight"])
    return _normed(x, weights["norm.weight"]) @ head.T


def _projected(x: Tensor, own: dict[str, Tensor], name: str) -> Tensor:
    made = x @ own[f"self_attn.{name}_proj.weight"].T
    return made + own.get(f"self_attn.{name}_proj.bias", torch.zeros(()).double())


def _normed(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight
