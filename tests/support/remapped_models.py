"""Small models of `transformers` with RoPE, opened with a remap, and what they answer."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from lpe_eval.model.checkpoint import LoadOptions, locate
from lpe_eval.model.foreign.transformers_model import TransformersModel
from tests.support.transformers_models import STREAM, SYMBOLS, TRAINED, save

LENGTH = 200
SIZES: dict[str, Any] = {
    "vocab_size": SYMBOLS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": TRAINED,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EVERY_HEAD = {name: value for name, value in SIZES.items() if name != "num_key_value_heads"}
REMAPS = [
    "self_extend:group=3,window=20",
    "self_extend:group=4,window=17,division=real",
    "rerope:window=24",
    "rerope:window=5,log_n=false",
    "leaky_rerope:window=24,factor=4",
    "dca:chunk_size=40,local=8",
    "dca:chunk_size=40,local=8,length_factor=chunkllama",
    "dca:chunk_size=21,local=5,length_factor=vllm,log_n=true",
    "log_n",
]


def opened(folder: Path, settings: str = "", **options: Any) -> TransformersModel:
    model = locate(f"hf:{folder}{settings}").load(LoadOptions(**options))
    assert isinstance(model, TransformersModel)
    return model


def answers(model: TransformersModel, length: int = LENGTH) -> Tensor:
    return model.logits(model.hidden(STREAM[:, :length], length, torch.Generator())[0])


def near(found: Tensor, wanted: Tensor, within: float = 1e-5) -> None:
    assert (found.double() - wanted).abs().max() <= within * wanted.abs().max()


def with_biases(folder: Path) -> Path:
    """The same weights, with biases and norms drawn too."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, each in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                each.add_(0.2 * torch.randn(each.shape, generator=draw))
    model.save_pretrained(folder)
    return folder


def saved(place: Path) -> dict[str, Path]:
    """The folders of a Llama and of two Qwens."""
    configs = {
        "llama": transformers.LlamaConfig(**SIZES),
        "qwen2": transformers.Qwen2Config(**SIZES),
        "qwen3": transformers.Qwen3Config(**SIZES, head_dim=8),
    }
    return {name: with_biases(save(config, place / name)) for name, config in configs.items()}
