"""p-RoPE: of d / 2 pairs (c, c + d / 2) the first floor(p d / 2) turn, with frequencies base^(-2c/d) / factor."""

import math

import torch
from torch import Tensor

from tests.support.golden_cases import Case
from tests.support.oracles.pairs import exact, heads_of, pairing, turned

WRONG = (
    *("rounded up", "exponents over the rotated part", "factor dropped", "lowest frequencies kept"),
    *("first channels", "interleaved", "positions from 1", "other direction", "sliding layers cut too"),
)


def outputs(case: Case, slip: str = "") -> dict[str, Tensor]:
    if "global_inv_freq" in case.outputs:
        return {f"{kind}_inv_freq": exact(_of_gemma(case, kind, slip)) for kind in ("global", "sliding")}
    given, width = case.params, case.head_dim or 0
    inverse = frequencies(width, given["p"], given["base"], given["factor"], slip)
    if "q" not in case.inputs:
        return {"inv_freq": exact(inverse)}
    pairs = pairing(width, "interleaved" if slip == "interleaved" else "half-split")
    if slip == "first channels":
        count = sum(each > 0 for each in inverse)
        pairs = [(c, c + count) if c < count else (2 * c, 2 * c + 1) for c in range(width // 2)]
    start, sign = int(slip == "positions from 1"), -1 if slip == "other direction" else 1
    q, k = (
        torch.stack(
            [
                turned(x[:, :, row], [sign * (int(at) + start) * each for each in inverse], pairs)
                for row, at in enumerate(case.inputs["positions"])
            ],
            dim=2,
        )
        for x in heads_of(case, "q", "k")
    )
    return {"inv_freq": exact(inverse), "q_rot": q, "k_rot": k, "dot": q @ k.mT}


def frequencies(width: int, p: float, base: float, factor: float = 1.0, slip: str = "") -> list[float]:
    """Of each pair, 0 where it does not turn."""
    half = width // 2
    turning = math.ceil(p * half) if slip == "rounded up" else math.floor(p * half)
    over = 2 * turning if slip == "exponents over the rotated part" else width
    kept = range(half - turning, half) if slip == "lowest frequencies kept" else range(turning)
    factor = 1.0 if slip == "factor dropped" else factor
    return [base ** (-2 * c / over) / factor if c in kept else 0.0 for c in range(half)]


def _of_gemma(case: Case, kind: str, slip: str) -> list[float]:
    rope = case.fields[f"{kind}_rope"]
    p = rope.get("partial_rotary_factor", 1.0)
    if slip == "sliding layers cut too":
        p = case.fields["global_rope"]["partial_rotary_factor"]
    return frequencies(case.fields[f"{kind}_head_dim"], p, rope["rope_theta"], slip=slip)
