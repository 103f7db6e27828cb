"""GPT-NeoX checkpoints written as DeepSpeed writes them.

Nothing here comes from the package. Weights are by layer of the pipeline and by GPT-NeoX's keys.
"""

import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

WIDTH, HEADS, LAYERS, TRAIN_LENGTH, SYMBOLS, ROWS = 32, 4, 2, 16, 101, 128
HEAD_WIDTH = WIDTH // HEADS
HIDDEN = 6
"""Width of the networks of FIRE and DAPE."""
Layers = dict[int, dict[str, Tensor]]

YML = """# a comment that GPT-NeoX leaves in
{
   "pipe-parallel-size": %(pipe)d,
   "model-parallel-size": %(ranks)d,
   "num-layers": 2, "hidden_size": 32,
   "num-attention-heads": 4,
   "seq-length": 16, "max-position-embeddings": 24,
   "no-weight-tying": true,
   "optimizer": { "type": "Adam", "params": { "lr": 0.0006, "betas": [0.9, 0.999], "eps": 1.0e-8, } },
   "zero_optimization": { "stage": 0, "cpu_offload": False },  # Python's word
   "bias-gelu-fusion": False,
   "fp16": { "enabled": True, "type": "bfloat16", },
   "hidden-dropout": 0.1,
   "make_vocab_size_divisible_by": %(multiple)d,
}
"""
LOCAL = """{
  "vocab-file": "data/gpt2-vocab.json",
  "merge-file": "data/gpt2-merges.txt",
  "checkpoint_validation_with_forward_pass": False,
}
"""


class Written(NamedTuple):
    folder: Path
    layers: Layers


def uniform(low: float, high: float, *shape: int, seed: int) -> Tensor:
    return torch.empty(shape).uniform_(low, high, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int, std: float = 0.3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * std


def alibi_slopes() -> Tensor:
    return torch.tensor([2.0 ** (-8 * (head + 1) / HEADS) for head in range(HEADS)])


def network(prefix: str, sizes: tuple[int, int, int], seed: int, kernel: int = 0) -> dict[str, Tensor]:
    first, hidden, last = sizes
    extra = (1, kernel) if kernel else ()
    return {
        f"{prefix}.0.weight": normal(hidden, first, *extra, seed=seed),
        f"{prefix}.0.bias": normal(hidden, seed=seed + 1),
        f"{prefix}.2.weight": normal(last, hidden, *extra, seed=seed + 2),
        f"{prefix}.2.bias": normal(last, seed=seed + 3),
    }


def kerple(seed: int) -> dict[str, Tensor]:
    # Some values lie outside the range that every forward pass clamps to.
    p, a = uniform(0, 2.5, HEADS, 1, 1, seed=seed), uniform(0, 1, HEADS, 1, 1, seed=seed + 1)
    a[0] = 0.003
    return {"bias_p": p, "bias_a": a}


def fire(seed: int) -> dict[str, Tensor]:
    return {
        "c": torch.tensor(0.17),
        "init_L": torch.tensor(5),
        "L_multiplier": torch.tensor(1.1),
        **network("mlp", (1, HIDDEN, HEADS), seed),
    }


def position_tensors(pos_emb: str, seed: int) -> tuple[str, dict[str, Tensor]]:
    """The module that a value of pos_emb adds to a block's attention, and its tensors."""
    correction = network("mlp2", (2 * HEADS, HIDDEN, HEADS), seed + 20)
    alone = network("mlp2", (HEADS, HIDDEN, HEADS), seed + 20)
    along = network("mlp2", (2 * HEADS, HIDDEN, HEADS), seed + 20, kernel=3)
    turned = 1.0 / 10000 ** (torch.arange(0, HEAD_WIDTH, 2).float() / HEAD_WIDTH)
    match pos_emb:
        case "none" | "learned" | "sinusoidal":
            return "", {}
        case "rotary":
            return "rotary_emb", {"inv_freq": turned}
        case "alibi":
            return "alibi_embed", {"slopes": alibi_slopes()}
        case "rpe":
            return "rpe", {"weight": normal(32, HEADS, seed=7)}
        case "kerple_log":
            return "rpe", kerple(7)
        case "kerple_power_ap_":
            return "rpe", kerple(7)
        case "kerple_power__ap":
            return "rpe", {"wei_p": uniform(0, 2.5, HEADS, 1, 1, seed=7), "wei_a": uniform(0, 0.3, HEADS, 1, 1, seed=8)}
        case "kerple_power_ap_ap":
            weight = position_tensors("kerple_power__ap", 0)[1]
            return "rpe", {**kerple(17), **weight}
        case "kerple_power_original":
            return "rpe", {"bias_a": alibi_slopes()[:, None, None]}
        case "snope_norm_original_scaling__":
            return "rpe", {"slopes": alibi_slopes()}
        case "snope_kerplelog":
            return "rpe", {"slopes": alibi_slopes(), "weight": normal(32, HEADS, seed=9), **kerple(7)}
        case "kerple":
            return "kerple", kerple(seed)
        case "fire":
            return "fire", fire(seed)
        case "alibi_c":
            return "alibi_c_embed", {"slopes": alibi_slopes(), **correction}
        case "kerple_c":
            return "kerple_c", {**kerple(seed), **correction}
        case "fire_c":
            return "fire_c", {**fire(seed), **correction}
        case "nope_c":
            return "nope_c", alone
        case "rope_dapev1":
            return "dapev1", alone
        case "nope_c_ffn" | "rope_dapev2":
            # The repository declares twice as many channels as there are and fails; this is the mended shape.
            return pos_emb.removeprefix("rope_"), network("mlp2", (HEADS, HIDDEN, HEADS), seed + 20, kernel=3)
        case "xl_bias":
            vectors = {
                name: normal(HEADS, HEAD_WIDTH, seed=seed + at) for at, name in enumerate(("r_w_bias", "r_r_bias"))
            }
            frequency = 1.0 / 10000 ** (torch.arange(0, WIDTH, 2).float() / WIDTH)
            return "xl_bias", {
                **vectors,
                "r_net.weight": normal(WIDTH, WIDTH, seed=seed + 2),
                "pos_emb.inv_freq": frequency,
            }
        case "alibi_dapev2":
            return "alibi_dapev2", {"slopes": alibi_slopes(), **along}
        case "kerple_dapev2":
            return "kerple_dapev2", {**kerple(seed), **along}
        case "fire_dapev2":
            return "fire_dapev2", {**fire(seed), **along}
        case "cope":
            return "cope", {"pos_emb": normal(1, HEAD_WIDTH, 9, seed=seed)}
    raise AssertionError(pos_emb)


def layers_of(pos_emb: str, tied: bool = False, newer_names: bool = False) -> Layers:
    """Random weights of a whole model."""
    up, down = ("linear1", "linear2") if newer_names else ("dense_h_to_4h", "dense_4h_to_h")
    layers: Layers = {0: {"word_embeddings.weight": normal(ROWS, WIDTH, seed=1, std=1.0)}}
    if pos_emb == "learned":
        layers[0]["position_embeddings.weight"] = normal(24, WIDTH, seed=2, std=1.0)
    if pos_emb == "sinusoidal":
        layers[0]["position_embeddings.inv_freq"] = 1.0 / 10000 ** (torch.arange(0, WIDTH, 2).float() / WIDTH)
    for block in range(LAYERS):
        seed = 100 * (block + 1)
        module, tensors = position_tensors(pos_emb, seed)
        layers[2 + block] = {
            "input_layernorm.weight": 1 + normal(WIDTH, seed=seed + 50),
            "input_layernorm.bias": normal(WIDTH, seed=seed + 51),
            "attention.query_key_value.weight": normal(3 * WIDTH, WIDTH, seed=seed + 52),
            "attention.query_key_value.bias": normal(3 * WIDTH, seed=seed + 53),
            "attention.dense.weight": normal(WIDTH, WIDTH, seed=seed + 54),
            "attention.dense.bias": normal(WIDTH, seed=seed + 55),
            "post_attention_layernorm.weight": 1 + normal(WIDTH, seed=seed + 56),
            "post_attention_layernorm.bias": normal(WIDTH, seed=seed + 57),
            f"mlp.{up}.weight": normal(4 * WIDTH, WIDTH, seed=seed + 58),
            f"mlp.{up}.bias": normal(4 * WIDTH, seed=seed + 59),
            f"mlp.{down}.weight": normal(WIDTH, 4 * WIDTH, seed=seed + 60, std=0.1),
            f"mlp.{down}.bias": normal(WIDTH, seed=seed + 61),
            **{f"attention.{module}.{key}": value for key, value in tensors.items()},
        }
        if pos_emb in ("rope_dapev1", "rope_dapev2"):
            layers[2 + block]["attention.rotary_emb.inv_freq"] = position_tensors("rotary", 0)[1]["inv_freq"]
    layers[LAYERS + 3] = {"norm.weight": 1 + normal(WIDTH, seed=3), "norm.bias": normal(WIDTH, seed=4)}
    if not tied:
        layers[LAYERS + 4] = {"final_linear.weight": normal(ROWS, WIDTH, seed=5)}
    return layers


def split(key: str, whole: Tensor, ranks: int, row_head: bool, added: bool) -> list[Tensor]:
    """What each model-parallel rank stores of a tensor."""
    if "word_embeddings" in key or "query_key_value" in key or "h_to_4h" in key or "slopes" in key or "rpe.bias" in key:
        return list(whole.chunk(ranks, 0))
    if key in ("attention.dense.weight", "mlp.dense_4h_to_h.weight", "attention.rpe.weight"):
        return list(whole.chunk(ranks, 1))
    if key == "final_linear.weight":
        return list(whole.chunk(ranks, 1 if row_head else 0))
    if added and ranks > 1 and key in ("attention.dense.bias", "mlp.dense_4h_to_h.bias"):
        return [whole * (0.25 if rank == 0 else 0.75 / (ranks - 1)) for rank in range(ranks)]
    return [whole] * ranks


def write(
    folder: Path,
    pos_emb: str,
    layers: Layers,
    *,
    sequential: bool = False,
    ranks: int = 1,
    row_head: bool = False,
    with_vocabulary: bool = True,
    **settings: Any,
) -> Written:
    """A checkpoint folder as DeepSpeed and GPT-NeoX leave it behind."""
    step = folder / "global_step500"
    (step / "configs").mkdir(parents=True)
    (folder / "latest").write_text("global_step500")
    (step / "configs" / "local_setup.yml").write_text(LOCAL)
    (step / "configs" / "train.yml").write_text(
        YML % {"pipe": not sequential, "ranks": ranks, "multiple": 128 // ranks}
    )
    experiment = {"seed": 1235, "pos-emb": pos_emb, "mlp_width": HIDDEN, "noise_seq_length": 10, **settings}
    (step / "configs" / "an_experiment.yml").write_text(json.dumps(experiment, indent=4))
    if with_vocabulary:
        (folder / "gpt2-vocab.json").write_text(json.dumps({f"word{number}": number for number in range(SYMBOLS)}))
        (folder / "gpt2-merges.txt").write_text("#version: 0.2\n")
    added = bool(settings.get("gpt_j_residual"))
    shards = [
        {
            at: {key: split(key, whole, ranks, row_head, added)[rank].clone() for key, whole in found.items()}
            for at, found in layers.items()
        }
        for rank in range(ranks)
    ]
    for rank, shard in enumerate(shards):
        module = {f"sequential.{at}.{key}": value for at, found in shard.items() for key, value in found.items()}
        state = {
            "module": module if sequential else None,
            "iteration": 500,
            "args": {"num_layers": LAYERS, "hidden_size": WIDTH, "num_attention_heads": HEADS},
            "random_rng_state": random.Random(1).getstate(),
            "np_rng_state": np.random.RandomState(1).get_state(),
            "torch_rng_state": torch.Generator().get_state(),
        }
        torch.save(state, step / f"mp_rank_{rank:02d}_model_states.pt")
        if not sequential:
            for at, found in shard.items():
                torch.save(found, step / f"layer_{at:02d}-model_{rank:02d}-model_states.pt")
    return Written(folder, layers)
