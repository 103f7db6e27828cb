"""CABLE as released: logit = q_i . k_j - sum of softplus(W x_l + b) over l = j+1 .. i, without 1 / sqrt(d)."""

from torch import Tensor
from torch.nn.functional import relu, softplus

from tests.support.golden_cases import Case
from tests.support.oracles.fox import of_tokens, summed
from tests.support.oracles.pairs import attended, heads_of, products

WRONG = ("no gate bias", "sign of z", "ReLU", "sign", "sum over j..i-1", "q.k / sqrt(d)", "q.k / d")


def outputs(case: Case, slip: str = "") -> dict[str, Tensor]:
    z = of_tokens(case, "h_attn", slip)
    bias = summed({"sign of z": -softplus(-z), "ReLU": -relu(z)}.get(slip, -softplus(z)), slip)
    q, k, v = heads_of(case, "q", "k", "v")
    width = q.shape[-1]
    logits = products(q, k) * {"q.k / sqrt(d)": width**-0.5, "q.k / d": 1 / width}.get(slip, 1) + bias
    return {"bias": bias, "logits": logits, "context": attended(logits, v)}
