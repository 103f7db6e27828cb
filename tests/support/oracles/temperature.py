"""Factors of the query at i, each rule's own, and the attention that they make.

Llama 4: 1 + a log1p(floor((i+1) / F)). Ministral 3: 1 + b log(1 + floor(i / L0)).
Inkling: 1 + a log(max((i+1) / N, 1)). Su's log n: max(1, log(i+1) / log(L0)). SSMax: s_h log(i+1).
A slip is that of one rule, so that each rule has to show it.
"""

import math

import torch
from torch import Tensor

from tests.support.golden_cases import Case
from tests.support.oracles.pairs import attended, exact, heads_of, of_pairs, products, turned_products

OF_ATTENTION = ("factor on the keys", "factor on both", "q.k unscaled")
BY_RULE = {
    "llama4": ("other count", "no floor", "log for log1p", "log2", "no 1 +", "RoPE added", *OF_ATTENTION),
    "ministral3": ("other count", "no floor", "log for log1p", "log2", "no 1 +", "RoPE dropped", *OF_ATTENTION),
    "inkling": ("other count", "log2", "no 1 +", "no clamp at 1", "floor", "log1p"),
    "logn": ("other count", "no clamp at 1", "n = T", "RoPE dropped", *OF_ATTENTION),
    "ssmax": ("other count", "log2", "n = T", "heads reversed", "one scale for all", "RoPE added", *OF_ATTENTION),
}
WRONG = tuple(f"{rule}: {slip}" for rule, slips in BY_RULE.items() for slip in slips)
CONSTANTS = (
    ("floor_scale", "original_max_position_embeddings", "log_scaling_n_floor", "training_length"),
    ("attn_scale", "beta", "log_scaling_alpha"),
)
"""What cases call F, L0 or N, and what they call a or b."""


def outputs(case: Case, slip: str = "") -> dict[str, Tensor]:
    rule = case.fields["rule"]
    slip = slip.removeprefix(f"{rule}: ") if slip.startswith(f"{rule}: ") else ""
    floor, strength = (next((case.fields[each] for each in names if each in case.fields), 1) for names in CONSTANTS)
    if "positions" in case.inputs:
        return {"factor": exact([factor(rule, int(i), floor, strength, slip) for i in case.inputs["positions"]])}
    q, k, v = heads_of(case, "q", "k", "v")
    length = q.shape[2]
    scales = exact(case.params["scale"]) if rule == "ssmax" else torch.ones(q.shape[1], dtype=torch.float64)
    scales = {"heads reversed": scales.flip(0), "one scale for all": scales[:1].expand(len(scales))}.get(slip, scales)
    factors = [factor(rule, length - 1 if slip == "n = T" else i, floor, strength, slip) for i in range(length)]

    def of(i: int, j: int) -> Tensor:
        on_query = 1 if slip == "factor on the keys" else factors[i]
        return scales * on_query * (factors[j] if slip in ("factor on the keys", "factor on both") else 1)

    turns = ("rope_base" in case.fields) != (slip in ("RoPE added", "RoPE dropped"))
    plain = turned_products(q, k, case.fields.get("rope_base", 100.0)) if turns else products(q, k)
    logits = plain * of_pairs(of, length) * (1 if slip == "q.k unscaled" else q.shape[-1] ** -0.5)
    return {"logits": logits, "context": attended(logits, v)}


def factor(rule: str, i: int, floor: int, strength: float, slip: str = "") -> float:
    """Of the query at i, without SSMax's scale. The other count is i where i + 1 is right, and the other way round."""
    n = i if (rule == "ministral3") != (slip == "other count") else i + 1
    log, one = math.log2 if slip == "log2" else math.log, 0 if slip == "no 1 +" else 1
    match rule:
        case "llama4" | "ministral3":
            steps = n / floor if slip == "no floor" else n // floor
            # The logarithm of 0 would give itself away.
            return one + strength * log(max(steps, 1) if slip == "log for log1p" else 1 + steps)
        case "inkling":
            share = n // floor if slip == "floor" else n / floor
            share = share if slip == "no clamp at 1" else max(share, 1)
            return one + strength * (math.log1p(share) if slip == "log1p" else log(share))
        case "logn":
            found = math.log(max(n, 1)) / math.log(floor)
            return found if slip == "no clamp at 1" else max(1.0, found)
        case _:
            return log(max(n, 1))
