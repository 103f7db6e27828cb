"""GPT-NeoX checkpoints written as DeepSpeed writes them, and what they compute, from the formulas alone.

Nothing here comes from the package. Weights are by layer of the pipeline and by GPT-NeoX's keys.
"""

import json
import math
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

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


def distances(length: int) -> Tensor:
    at = torch.arange(length)
    return (at[:, None] - at[None, :]).clamp(min=0).float()


def kerple_log_bias(stored: dict[str, Tensor], length: int) -> Tensor:
    p, a = stored["bias_p"].clamp(min=0.01), stored["bias_a"].clamp(min=0.01)
    return -p * torch.log(1 + a * distances(length))


def power(a: Tensor, p: Tensor, length: int) -> Tensor:
    return a.clamp(min=0.01) * distances(length) ** p.clamp(0.01, 2)


def t5_bias(table: Tensor, length: int) -> Tensor:
    def bucket(distance: int) -> int:
        if distance < 16:
            return distance
        return min(31, 16 + int(math.log(distance / 16) / math.log(128 / 16) * 16))

    buckets = torch.tensor([[bucket(max(i - j, 0)) for j in range(length)] for i in range(length)])
    return table[buckets].permute(2, 0, 1) * HEAD_WIDTH**0.5


def fire_bias(stored: dict[str, Tensor], length: int, leaky: bool) -> Tensor:
    c, threshold = stored["c"], (stored["L_multiplier"] * stored["init_L"]).abs()
    at = torch.arange(length).float()
    top = torch.log((c * distances(length)).abs() + 1)
    bottom = torch.log((c * torch.maximum(at, threshold)).abs() + 1) + 1e-6
    ratio = (top / bottom[:, None])[..., None]
    hidden = F.linear(ratio, stored["mlp.0.weight"], stored["mlp.0.bias"])
    hidden = F.leaky_relu(hidden, 0.01) if leaky else F.relu(hidden)
    return F.linear(hidden, stored["mlp.2.weight"], stored["mlp.2.bias"]).permute(2, 0, 1)


def correction(stored: dict[str, Tensor], channels: Tensor) -> Tensor:
    first, second = stored["mlp2.0.weight"], stored["mlp2.2.weight"]
    if first.ndim == 4:
        hidden = F.leaky_relu(F.conv2d(torch.tril(channels), first, stored["mlp2.0.bias"], padding=(0, 1)), 0.01)
        return F.conv2d(hidden, second, stored["mlp2.2.bias"], padding=(0, 1))
    hidden = F.leaky_relu(F.linear(channels.permute(0, 2, 3, 1), first, stored["mlp2.0.bias"]), 0.01)
    return F.linear(hidden, second, stored["mlp2.2.bias"]).permute(0, 3, 1, 2)


def mep_bias(stored: dict[str, Tensor], length: int, kernels: tuple[str, ...]) -> Tensor:
    slopes, d = alibi_slopes()[:, None, None].double(), distances(length).double()
    values = {
        "exp": lambda: torch.exp(-slopes * d),
        "exp_half": lambda: torch.exp(-slopes * d / 2),
        "gaussian": lambda: torch.exp(-slopes * d**2),
        "kerple_log": lambda: torch.exp(kerple_log_bias(stored, length).double()),
        "t5": lambda: torch.exp(t5_bias(stored["weight"], length).double()),
    }
    return torch.log(sum(values[name]() for name in kernels) / len(kernels)).float()  # pyright: ignore


def positioned(pos_emb: str, stored: dict[str, Tensor], s: Tensor, queries: Tensor, kernels: tuple[str, ...]) -> Tensor:
    """The logits after the position encoding, from the scaled ones."""
    length = s.shape[-1]
    slopes = alibi_slopes()[:, None, None]
    match pos_emb:
        case "alibi":
            return s - slopes * distances(length)
        case "rpe":
            return s + t5_bias(stored["weight"], length)
        case "kerple_log" | "kerple":
            return s + kerple_log_bias(stored, length)
        case "kerple_power_ap_":
            return s - power(stored["bias_a"], stored["bias_p"], length)
        case "kerple_power__ap":
            return s * torch.exp(-power(stored["wei_a"], stored["wei_p"], length))
        case "kerple_power_ap_ap":
            weight = torch.exp(-power(stored["wei_a"], stored["wei_p"], length))
            return s * weight - power(stored["bias_a"], stored["bias_p"], length)
        case "kerple_power_original":
            return s - slopes.clamp(min=0.01) * distances(length)
        case "snope_norm_original_scaling__" | "snope_kerplelog":
            return s + mep_bias(stored, length, kernels)
        case "fire":
            return s + fire_bias(stored, length, leaky=False)
        case "nope_c" | "rope_dapev1" | "nope_c_ffn" | "rope_dapev2":
            return s + correction(stored, s)
        case "cope":
            gates = torch.tril(torch.sigmoid(s))
            position = gates.flip(-1).cumsum(-1).flip(-1).clamp(max=8)
            of_whole = queries @ stored["pos_emb"][0]
            below, above = position.floor().long(), position.ceil().long()
            share = position - below
            return s + of_whole.gather(-1, above) * share + of_whole.gather(-1, below) * (1 - share)
    base = pos_emb.partition("_")[0]
    if base == "alibi":
        bias = -slopes * distances(length)
    elif base == "kerple":
        bias = kerple_log_bias(stored, length)
    elif base == "fire":
        bias = fire_bias(stored, length, leaky=True)
    else:
        return s
    bias = bias.expand(len(s), -1, -1, -1)
    return s + bias + correction(stored, torch.cat([s, bias], 1))


def transformer_xl(stored: dict[str, Tensor], q: Tensor, k: Tensor) -> Tensor:
    """What Transformer-XL adds to the scaled logits: u . k + (q + v) . W r, over the root of the head's width."""
    length = q.shape[2]
    angle = distances(length)[..., None] * stored["pos_emb.inv_freq"]
    keys = (torch.cat([angle.sin(), angle.cos()], -1) @ stored["r_net.weight"].T).unflatten(-1, (HEADS, HEAD_WIDTH))
    content = torch.einsum("hd,bhjd->bhj", stored["r_w_bias"], k)[:, :, None]
    position = torch.einsum("bhid,ijhd->bhij", q + stored["r_r_bias"][:, None], keys)
    return (content + position) / HEAD_WIDTH**0.5


def rotated(x: Tensor, share: float) -> Tensor:
    turned = int(x.shape[-1] * share)
    frequency = 1.0 / 10000 ** (torch.arange(0, turned, 2).double() / turned)
    angle = torch.arange(x.shape[-2]).double()[:, None] * frequency
    cos, sin = angle.cos().repeat(1, 2).float(), angle.sin().repeat(1, 2).float()
    inside, rest = x[..., :turned], x[..., turned:]
    half = turned // 2
    swapped = torch.cat([-inside[..., half:], inside[..., :half]], -1)
    return torch.cat([inside * cos + swapped * sin, rest], -1)


def logits(
    layers: Layers,
    pos_emb: str,
    tokens: Tensor,
    *,
    kernels: tuple[str, ...] = (),
    rotary_share: float = 1.0,
    parallel: bool = False,
    one_norm: bool = False,
    tanh: bool = False,
    eps: float = 1e-5,
) -> Tensor:
    """What the model scores every row of the padded vocabulary with."""
    length = tokens.shape[1]
    x = layers[0]["word_embeddings.weight"][tokens]
    if pos_emb == "learned":
        x = x + layers[0]["position_embeddings.weight"][:length]
    if pos_emb == "sinusoidal":
        angle = torch.arange(length).float()[:, None] * layers[0]["position_embeddings.inv_freq"]
        x = x + torch.cat([angle.sin(), angle.cos()], -1)
    for block in range(LAYERS):
        w = layers[2 + block]
        norms = [
            (w[f"{name}.weight"], w[f"{name}.bias"])
            for name in ("input_layernorm", "input_layernorm" if one_norm else "post_attention_layernorm")
        ]
        attended = attention(w, pos_emb, F.layer_norm(x, (WIDTH,), *norms[0], eps), kernels, rotary_share)
        y = x if parallel else x + attended
        up, down = ("linear1", "linear2") if "mlp.linear1.weight" in w else ("dense_h_to_4h", "dense_4h_to_h")
        inner = F.linear(F.layer_norm(y, (WIDTH,), *norms[1], eps), w[f"mlp.{up}.weight"], w[f"mlp.{up}.bias"])
        inner = F.gelu(inner, approximate="tanh" if tanh else "none")
        mlp = F.linear(inner, w[f"mlp.{down}.weight"], w[f"mlp.{down}.bias"])
        x = x + attended + mlp
    x = F.layer_norm(x, (WIDTH,), layers[LAYERS + 3]["norm.weight"], layers[LAYERS + 3]["norm.bias"], eps)
    head = layers[LAYERS + 4]["final_linear.weight"] if LAYERS + 4 in layers else layers[0]["word_embeddings.weight"]
    return F.linear(x, head)


def attention(w: dict[str, Tensor], pos_emb: str, x: Tensor, kernels: tuple[str, ...], rotary_share: float) -> Tensor:
    batch, length, _ = x.shape
    mixed = F.linear(x, w["attention.query_key_value.weight"], w["attention.query_key_value.bias"])
    # Each head has its query, key and value side by side.
    q, k, v = mixed.view(batch, length, HEADS, 3 * HEAD_WIDTH).permute(0, 2, 1, 3).split(HEAD_WIDTH, -1)
    if pos_emb in ("rotary", "rope_dapev1", "rope_dapev2"):
        q, k = rotated(q, rotary_share), rotated(k, rotary_share)
    s = q @ k.transpose(-1, -2) / HEAD_WIDTH**0.5
    prefix = f"attention.{position_tensors(pos_emb, 0)[0]}."
    stored = {key.removeprefix(prefix): value for key, value in w.items() if key.startswith(prefix)}
    s = s + transformer_xl(stored, q, k) if pos_emb == "xl_bias" else positioned(pos_emb, stored, s, q, kernels)
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    context = s.masked_fill(future, -torch.inf).softmax(-1) @ v
    context = context.permute(0, 2, 1, 3).reshape(batch, length, WIDTH)
    return F.linear(context, w["attention.dense.weight"], w["attention.dense.bias"])
