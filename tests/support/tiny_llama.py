"""Llama models of `transformers` whose weights follow from whole numbers alone, the same on every machine."""

from pathlib import Path

import numpy as np
import torch

WIDTH = 16


def weights(count: int, seed: int) -> np.ndarray:
    """So many numbers between -1 and 1, from a multiplicative hash of their places."""
    mixed = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed) * np.uint64(1_000_003)) * np.uint64(2654435761)
    mixed ^= mixed >> np.uint64(15)
    mixed = (mixed * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
    mixed ^= mixed >> np.uint64(13)
    mixed = (mixed * np.uint64(3266489917)) & np.uint64(0xFFFFFFFF)
    return ((mixed ^ (mixed >> np.uint64(16))) & np.uint64(0xFFFFFFFF)).astype(np.float64) / 2**31 - 1


def save_llama(folder: Path, tokenizer: Path, vocab_size: int, seed: int, scale: float = 0.6) -> Path:
    """A model with large weights, whose losses depend on all of its context; beside it the tokenizer of a file."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=vocab_size, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=False, bos_token_id=None,
        eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for place, (_, parameter) in enumerate(sorted(model.named_parameters())):
            if parameter.ndim > 1:
                found = weights(parameter.numel(), seed * 100 + place).reshape(parameter.shape)
                parameter.copy_(torch.from_numpy(scale * found))
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    return folder
