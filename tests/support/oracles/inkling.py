"""Inkling: logit = tau_i (q_i . k_j / d + r_i . P[:, i-j]) where 0 <= i-j < E, without the second term beyond.

r = R x for each head, with a bias in x-transformers' form, and in the second generation s r min(1, c / (|s r| + 1e-6)).
tau is Inkling's temperature, in layers without a window only; the second generation has it in r.
"""

import torch
from torch import Tensor

from tests.support.golden_cases import Case
from tests.support.oracles import temperature
from tests.support.oracles.pairs import attended, exact, heads_of, of_pairs, products, within

WRONG = (
    *("extent one short", "clamped beyond the extent", "offset from 1", "mirrored", "r of the key", "bias / d"),
    *("1 / sqrt(d)", "tau from i", "tau floored", "tau below 1", "tau not on the bias", "tau not on the query"),
    *("tau in sliding layers", "window <= W", "rows from 0", "no projection bias", "no clip scale"),
    *("always normalised", "never clipped"),
)
OF_TAU = {"tau from i": "other count", "tau floored": "floor", "tau below 1": "no clamp at 1"}


def outputs(case: Case, slip: str = "") -> dict[str, Tensor]:
    states, tau = _states(case, slip), _tau(case, slip)
    of_bias = torch.ones_like(tau) if slip == "tau not on the bias" else tau
    bias = _bias(case, states, slip) * of_bias[:, None]
    # The second generation has tau in its states, which is the same.
    told = states * of_bias[:, None] if "rel_l2_clip_threshold" in case.fields else states
    everything = {"relative_states": told, "tau": tau, "bias": bias}
    if "logits" in case.outputs:
        q, k, v = heads_of(case, "q", "k", "v")
        width = q.shape[-1]
        on_query = torch.ones_like(tau) if slip == "tau not on the query" else tau
        plain = products(q, k) * (width**-0.5 if slip == "1 / sqrt(d)" else 1 / width)
        everything["logits"] = plain * on_query[:, None] + bias / (width if slip == "bias / d" else 1)
        everything["context"] = attended(everything["logits"], v, within(case.fields["window"], slip))
    return {name: everything[name] for name in case.outputs}


def _tau(case: Case, slip: str) -> Tensor:
    """The temperature of each row, [q]."""
    rows, floor = case.fields["q_len"], case.fields.get("log_scaling_n_floor")
    if floor is None or (case.fields.get("window") is not None and slip != "tau in sliding layers"):
        return torch.ones(rows, dtype=torch.float64)
    strength, of_rule = case.fields["log_scaling_alpha"], OF_TAU.get(slip, "")
    return exact([temperature.factor("inkling", i, floor, strength, of_rule) for i in range(rows)])


def _states(case: Case, slip: str) -> Tensor:
    """r of each head and row, [b, h, q, m]."""
    heads, rank = case.heads or 1, case.fields["d_rel"]
    r = exact(case.inputs["x"]) @ exact(case.params["r_proj.weight"]).T
    if "r_proj.bias" in case.params and slip != "no projection bias":
        r = r + exact(case.params["r_proj.bias"])
    r = torch.stack([r[..., head * rank : (head + 1) * rank] for head in range(heads)], dim=1)
    if "rel_l2_clip_threshold" not in case.fields:
        return r
    if slip != "no clip scale":
        r = r * exact(case.params["rel_l2_clip.scale"])[:, None]
    share = case.fields["rel_l2_clip_threshold"] / (r.square().sum(-1, keepdim=True).sqrt() + 1e-6)
    return r * {"never clipped": torch.ones_like(share), "always normalised": share}.get(slip, share.clamp(max=1))


def _bias(case: Case, r: Tensor, slip: str) -> Tensor:
    """r_i . P[:, i-j] without the temperature, [b, h, q, k]."""
    by_distance, extent = exact(case.params["rel_logits_proj.proj"]), case.fields["extent"]
    rows, keys = case.fields["q_len"], case.fields["k_len"]
    by_distance = by_distance.flip(1) if slip == "mirrored" else by_distance
    extent = extent - 1 if slip == "extent one short" else extent

    def of(i: int, j: int) -> Tensor:
        row = i - (keys - rows)
        # Where rows are fewer than keys, the keys' own states are not known.
        state = r[:, :, j if slip == "r of the key" and rows == keys else row]
        offset = (row if slip == "rows from 0" else i) - j + (slip == "offset from 1")
        offset = min(offset, extent - 1) if slip == "clamped beyond the extent" else offset
        return (state * by_distance[:, offset]).sum(-1) if 0 <= offset < extent else torch.zeros_like(state[..., 0])

    return of_pairs(of, keys, rows)
