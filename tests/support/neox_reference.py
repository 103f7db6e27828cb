"""What GPT-NeoX checkpoints compute, from the formulas alone.

Nothing here comes from the package.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.support.neox_files import HEAD_WIDTH, HEADS, LAYERS, WIDTH, Layers, alibi_slopes, position_tensors


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
