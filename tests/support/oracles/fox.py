"""FoX: logit = q_i . k_j / sqrt(d) + sum of log f_l over l = j+1 .. i, with f = sigmoid(W x + b) for each query head.

Gates of constant heads begin at b = -log(expm1(1 / t)), so that log f = -1 / t; the decay times t are log-spaced.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from tests.support.golden_cases import Case
from tests.support.oracles.pairs import attended, exact, heads_of, of_pairs, products, within

WRONG = (
    *("sum over j..i-1", "sum over j..i", "no gate bias", "-softplus(z)", "sigmoid without log", "sign"),
    *("q.k unscaled", "bias / sqrt(d)", "heads reversed", "window <= W", "linear decay times", "decay times reversed"),
)


def outputs(case: Case, slip: str = "") -> dict[str, Tensor]:
    if "bias_by_distance" in case.outputs:
        return _constant(case, slip)
    gate = of_tokens(case, "fgate_proj", slip)
    log_gate = _log_of(gate, slip)
    bias = summed(log_gate, slip)
    q, k, v = heads_of(case, "q", "k", "v")
    root = q.shape[-1] ** -0.5
    logits = products(q, k) * (1 if slip == "q.k unscaled" else root) + bias * (root if slip == "bias / sqrt(d)" else 1)
    context = attended(logits, v, within(case.fields.get("window"), slip))
    return {"log_gate": log_gate, "bias": bias, "logits": logits, "context": context}


def of_tokens(case: Case, layer: str, slip: str = "") -> Tensor:
    """W x + b of each head and token, [b, h, t]."""
    weight, bias = exact(case.params[f"{layer}.weight"]), exact(case.params[f"{layer}.bias"])
    if slip == "heads reversed":
        weight, bias = weight.flip(0), bias.flip(0)
    return (exact(case.inputs["x"]) @ weight.T + (0 if slip == "no gate bias" else bias)).mT


def summed(steps: Tensor, slip: str = "") -> Tensor:
    """The steps [b, h, t] of the tokens after the key up to the query's own, added up."""
    first, last = {"sum over j..i-1": (0, 0), "sum over j..i": (0, 1)}.get(slip, (1, 1))
    sign = -1 if slip == "sign" else 1
    return of_pairs(lambda i, j: sign * steps[..., j + first : i + last].sum(-1), steps.shape[-1])


def _constant(case: Case, slip: str) -> dict[str, Tensor]:
    heads, shortest, longest = case.heads or 1, case.params["decay_time_min"], case.params["decay_time_max"]
    shares = [head / (heads - 1) for head in range(heads)]
    times = [shortest * (longest / shortest) ** share for share in shares]
    if slip == "linear decay times":
        times = [shortest + (longest - shortest) * share for share in shares]
    if slip == "decay times reversed":
        times = times[::-1]
    bias = exact([-math.log(math.expm1(1 / time)) for time in times])
    log_gate, offsets = _log_of(bias, slip)[:, None], torch.arange(case.fields["k_len"])
    by_distance = log_gate * (-offsets if slip == "sign" else offsets)
    return {"fgate_bias": bias, "log_gate": log_gate.expand(-1, len(offsets)), "bias_by_distance": by_distance}


def _log_of(gate: Tensor, slip: str) -> Tensor:
    return {"-softplus(z)": -softplus(gate), "sigmoid without log": gate.sigmoid()}.get(slip, logsigmoid(gate))
