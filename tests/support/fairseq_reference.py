"""fairseq's language models as its trainer saves them, and what they compute, written without the package."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, LAYERS, MLP, TRAIN_LENGTH = 32, 4, 2, 48, 12


CUTOFFS, WORDS = (9, 21), 40


BANDS = ((0, 9, 32), (9, 21, 8), (21, 40, 2))


def normal(*shape: int, seed: int, std: float = 0.3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * std


def flags(**changed: Any) -> dict[str, Any]:
    return {
        "arch": "transformer_lm_wiki103",
        "task": "language_modeling",
        "decoder_embed_dim": WIDTH,
        "decoder_input_dim": WIDTH,
        "decoder_output_dim": WIDTH,
        "decoder_ffn_embed_dim": MLP,
        "decoder_layers": LAYERS,
        "decoder_attention_heads": HEADS,
        "tokens_per_sample": TRAIN_LENGTH,
        "max_target_positions": TRAIN_LENGTH,
        "max_tokens": 96,
        "activation_fn": "relu",
        "adaptive_input": True,
        "adaptive_input_cutoff": "9,21",
        "adaptive_input_factor": 4,
        "adaptive_softmax_cutoff": "9,21",
        "adaptive_softmax_factor": 4,
        "tie_adaptive_weights": True,
        "tie_adaptive_proj": True,
        "no_decoder_final_norm": True,
        "no_scale_embedding": False,
        "share_decoder_input_output_embed": False,
        "base_layers": 0,
        "character_embeddings": False,
        **changed,
    }


def state_dict(args: dict[str, Any]) -> dict[str, Tensor]:
    """What `model.state_dict()` of fairseq's TransformerLanguageModel holds."""
    state = {
        "decoder.version": torch.tensor([3.0]),
        "decoder.embed_positions._float_tensor": torch.zeros(1),
    }
    softmax = "decoder.adaptive_softmax"
    if args["adaptive_input"]:
        for band, (start, stop, width) in enumerate(BANDS):
            stored = f"decoder.embed_tokens.embeddings.{band}"
            state[f"{stored}.0.weight"] = normal(stop - start, width, seed=10 + band)
            state[f"{stored}.1.weight"] = normal(WIDTH, width, seed=20 + band)
        state["decoder.embed_tokens._float_tensor"] = torch.zeros(1)
        state[f"{softmax}.version"] = torch.tensor([1])
        tied = args["tie_adaptive_weights"]
        if tied:
            state[f"{softmax}.head.word_proj.weight"] = state["decoder.embed_tokens.embeddings.0.0.weight"]
            state[f"{softmax}.head.class_proj.weight"] = normal(2, WIDTH, seed=30)
            state[f"{softmax}.head._float_tensor"] = torch.zeros(1)
        else:
            state[f"{softmax}.head.weight"] = normal(CUTOFFS[0] + 2, WIDTH, seed=30)
        for band, (start, stop, width) in list(enumerate(BANDS))[1:]:
            stored, tail = f"decoder.embed_tokens.embeddings.{band}", f"{softmax}.tail.{band - 1}"
            projected = tied and args["tie_adaptive_proj"]
            own = normal(width, WIDTH, seed=40 + band)
            state[f"{tail}.0.weight"] = state[f"{stored}.1.weight"] if projected else own
            state[f"{tail}.2.weight"] = (
                state[f"{stored}.0.weight"] if tied else normal(stop - start, width, seed=50 + band)
            )
    else:
        state["decoder.embed_tokens.weight"] = normal(WORDS, WIDTH, seed=10)
        shared = args["share_decoder_input_output_embed"]
        head = state["decoder.embed_tokens.weight"] if shared else normal(WORDS, WIDTH, seed=11)
        state["decoder.output_projection.weight"] = head
    for layer in range(LAYERS):
        at, seed = f"decoder.layers.{layer}", 100 * (layer + 1)
        shapes = {f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in ("k", "v", "q", "out")}
        shapes |= {"fc1": (MLP, WIDTH), "fc2": (WIDTH, MLP)}
        for number, (name, shape) in enumerate(shapes.items()):
            state[f"{at}.{name}.weight"] = normal(*shape, seed=seed + number)
            state[f"{at}.{name}.bias"] = normal(shape[0], seed=seed + 20 + number)
        for number, name in enumerate(("self_attn_layer_norm", "final_layer_norm")):
            state[f"{at}.{name}.weight"] = 1 + normal(WIDTH, seed=seed + 40 + number)
            state[f"{at}.{name}.bias"] = normal(WIDTH, seed=seed + 50 + number)
    if not args["no_decoder_final_norm"]:
        state["decoder.layer_norm.weight"] = 1 + normal(WIDTH, seed=60)
        state["decoder.layer_norm.bias"] = normal(WIDTH, seed=61)
    return state


def write(
    folder: Path, args: dict[str, Any], *, newer: bool = False, zipped: bool = True, words: int = WORDS, **changed: Any
) -> Path:
    """A checkpoint as fairseq's trainer saves it, with its dictionary; the model's tensors can be changed."""
    folder.mkdir(parents=True, exist_ok=True)
    inherited = {"tokens_per_sample": "${task.tokens_per_sample}", "max_target_positions": "${task.max}"}
    content = {
        "args": None if newer else Namespace(**args),
        "cfg": {
            "_name": None,
            "common": {"seed": 1, "fp16": True},
            "task": {"_name": "language_modeling", "tokens_per_sample": args["tokens_per_sample"]},
            "model": {**args, **inherited},
        }
        if newer
        else None,
        "model": {**state_dict(args), **changed},
        "criterion": None,
        "optimizer_history": [{"optimizer_name": "FairseqNAG", "num_updates": 7, "lr_scheduler_state": {"best": None}}],
        "task_state": {},
        "extra_state": {"metrics": [(0, "loss", "AverageMeter", {"val": 3.5, "sum": 9.0})], "val_loss": 3.25},
        "last_optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": []},
    }
    torch.save(content, folder / "alibi_wt103_L12.pt", _use_new_zipfile_serialization=zipped)
    lines = [f"word{number} {1000 - number}\n" for number in range(words - 4)]
    (folder / "dict.txt").write_text("".join(lines))
    return folder / "alibi_wt103_L12.pt"


def hidden_states(state: dict[str, Tensor], args: dict[str, Any], tokens: Tensor, encoding: str) -> Tensor:
    length, head_width = tokens.shape[1], WIDTH // HEADS
    if args["adaptive_input"]:
        rows = [
            state[f"decoder.embed_tokens.embeddings.{band}.0.weight"]
            @ state[f"decoder.embed_tokens.embeddings.{band}.1.weight"].T
            for band in range(3)
        ]
        table = torch.cat(rows)
    else:
        table = state["decoder.embed_tokens.weight"]
    x = (1.0 if args["no_scale_embedding"] else WIDTH**0.5) * table[tokens]
    if encoding == "sinusoidal":
        half = WIDTH // 2
        frequency = 10000.0 ** (-torch.arange(half).float() / (half - 1))
        angle = (torch.arange(length).float() + 2)[:, None] * frequency
        x = x + torch.cat([angle.sin(), angle.cos()], -1)
    if encoding == "learned":
        x = x + state["decoder.embed_positions.weight"][2 : 2 + length]
    slopes = torch.tensor([2.0 ** (-8 * (head + 1) / HEADS) for head in range(HEADS)])
    future = torch.full((length, length), -torch.inf).triu(1)
    for layer in range(LAYERS):
        at = f"decoder.layers.{layer}"
        w = {key.removeprefix(f"{at}."): value for key, value in state.items() if key.startswith(at)}
        y = F.layer_norm(x, (WIDTH,), w["self_attn_layer_norm.weight"], w["self_attn_layer_norm.bias"])
        q, k, v = (
            F.linear(y, w[f"self_attn.{name}_proj.weight"], w[f"self_attn.{name}_proj.bias"])
            .unflatten(-1, (HEADS, head_width))
            .transpose(1, 2)
            for name in "qkv"
        )
        s = (q * head_width**-0.5) @ k.transpose(-1, -2) + future
        if encoding == "alibi":
            # As in the authors' code: the slope times the key's position, equal in all rows.
            s = s + slopes[:, None, None] * torch.arange(length).float()
        context = (s.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(context, w["self_attn.out_proj.weight"], w["self_attn.out_proj.bias"])
        y = F.layer_norm(x, (WIDTH,), w["final_layer_norm.weight"], w["final_layer_norm.bias"])
        inner = F.linear(y, w["fc1.weight"], w["fc1.bias"])
        inner = F.relu(inner) if args["activation_fn"] == "relu" else F.gelu(inner)
        x = x + F.linear(inner, w["fc2.weight"], w["fc2.bias"])
    if "decoder.layer_norm.weight" in state and float(state["decoder.version"]) > 2:
        x = F.layer_norm(x, (WIDTH,), state["decoder.layer_norm.weight"], state["decoder.layer_norm.bias"])
    return x


def torchs_softmax(state: dict[str, Tensor], args: dict[str, Any]) -> nn.AdaptiveLogSoftmaxWithLoss:
    made = nn.AdaptiveLogSoftmaxWithLoss(WIDTH, WORDS, list(CUTOFFS), div_value=4.0, head_bias=False)
    softmax = "decoder.adaptive_softmax"
    with torch.no_grad():
        if args["tie_adaptive_weights"]:
            parts = [state[f"{softmax}.head.{name}_proj.weight"] for name in ("word", "class")]
            made.head.weight.copy_(torch.cat(parts))
        else:
            made.head.weight.copy_(state[f"{softmax}.head.weight"])
        transposed = args["tie_adaptive_weights"] and args["tie_adaptive_proj"]
        for band, tail in enumerate(made.tail):
            projection = state[f"{softmax}.tail.{band}.0.weight"]
            tail[0].weight.copy_(projection.T if transposed else projection)  # pyright: ignore
            tail[1].weight.copy_(state[f"{softmax}.tail.{band}.2.weight"])  # pyright: ignore
    return made
