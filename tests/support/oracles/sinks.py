"""gpt-oss: exp(s_h) in the denominator. StreamingLLM and LM-Infinite: first tokens and a band, at other distances.

StreamingLLM (start S, recent R): a query at i <= S+R sees all its past; a later one sees j < S at distance S+R-j, and
0 <= i-j <= R at its true distance. LM-Infinite (local L, global G, limit M): 0 <= i-j < L at its true distance, and
j < G further back at distance min(M, T-1).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from tests.support.golden_cases import Case
from tests.support.oracles.pairs import Sees, attended, exact, heads_of, kept_by, turned_products, within

WRONG = (
    *("sink 0", "heads reversed", "sink scaled", "first head's for all", "only in windowed layers", "no sink"),
    *("renormalised", "window <= W", "recent - 1", "true distances of first tokens", "local branch <="),
    *("limit - 1", "limit counted from the key"),
)


def outputs(case: Case, slip: str = "") -> dict[str, Tensor]:
    if "sinks" in case.params:
        return _gpt_oss(case, slip)
    sees, distance = _streaming(case, slip) if "recent" in case.fields else _lm_infinite(case, slip)
    q, k, v = heads_of(case, "q", "k", "v")
    logits = turned_products(q, k, case.fields["rope_base"], distance=distance) * q.shape[-1] ** -0.5
    length = q.shape[2]
    keys = [float(sum(sees(i, j) for j in range(i + 1))) for i in range(length)]
    found = {"context": attended(logits, v, sees), "keys_per_query": exact(keys)}
    return {name: found[name] for name in case.outputs}


def _gpt_oss(case: Case, slip: str) -> dict[str, Tensor]:
    q, k, v = heads_of(case, "q", "k", "v")
    logits, sinks = turned_products(q, k, case.fields["rope_base"]) * q.shape[-1] ** -0.5, exact(case.params["sinks"])
    sinks = {
        "sink 0": torch.zeros_like(sinks),
        "heads reversed": sinks.flip(0),
        "sink scaled": sinks * q.shape[-1] ** -0.5,
        "first head's for all": sinks[:1].expand(len(sinks)),
    }.get(slip, sinks)
    found = {}
    for kind, window in (("sliding", case.fields["window"]), ("full", None)):
        without = slip == "no sink" or (slip == "only in windowed layers" and window is None)
        weights = kept_by(logits, within(window, slip), None if without else sinks)
        found[f"{kind}_logits"], found[f"{kind}_sink_mass"] = logits, 1 - weights.sum(-1)
        if slip == "renormalised":
            weights = weights / weights.sum(-1, keepdim=True)
        found[f"{kind}_context"] = weights @ v
    return found


def _streaming(case: Case, slip: str) -> tuple[Sees, Callable[[int, int], float]]:
    start, recent = case.fields["start"], case.fields["recent"]
    whole = start + recent

    def sees(i: int, j: int) -> bool:
        return i <= whole or j < start or i - j <= recent - (slip == "recent - 1")

    def distance(i: int, j: int) -> float:
        first = i > whole and j < start and slip != "true distances of first tokens"
        return whole - j if first else i - j

    return sees, distance


def _lm_infinite(case: Case, slip: str) -> tuple[Sees, Callable[[int, int], float]]:
    local = case.fields["local_branch"] + (slip == "local branch <=")
    limit = min(case.fields["limit_distance"], case.fields["k_len"] - 1) - (slip == "limit - 1")

    def sees(i: int, j: int) -> bool:
        return i - j < local or j < case.fields["global_branch"]

    def distance(i: int, j: int) -> float:
        if i - j < local or slip == "true distances of first tokens":
            return i - j
        return limit - j if slip == "limit counted from the key" else limit

    return sees, distance
