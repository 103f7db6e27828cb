"""PaTH: logit = (q_i . H_i ... H_{j+1} k_j + sum of log f_l over l = j+1 .. i) / sqrt(d), H_l = I - beta_l w_l w_l^T.

The gates f are there only in the gated form.
"""

from torch import Tensor

from tests.support.golden_cases import Case
from tests.support.oracles.fox import summed
from tests.support.oracles.pairs import attended, exact, heads_of, of_pairs

WRONG = (
    *("beta halved", "own step of the key included", "step of the query left out", "reversed product"),
    *("gate not scaled", "no gate"),
)


def outputs(case: Case, slip: str = "") -> dict[str, Tensor]:
    q, k, v, w, beta = heads_of(case, "q", "k", "v", "w", "beta")
    beta = beta / 2 if slip == "beta halved" else beta

    def of(i: int, j: int) -> Tensor:
        first, last = j + (slip != "own step of the key included"), i - (slip == "step of the query left out")
        tokens, key = list(range(first, last + 1)), k[:, :, j]
        for token in reversed(tokens) if slip == "reversed product" else tokens:
            across = w[:, :, token]
            key = key - (beta[:, :, token] * (across * key).sum(-1))[..., None] * across
        return (q[:, :, i] * key).sum(-1)

    root, logits = q.shape[-1] ** -0.5, of_pairs(of, q.shape[2])
    logits = logits * root
    if "gate" in case.fields["variant"] and slip != "no gate":
        logits = logits + summed(exact(case.inputs["log_gate"])) * (1 if slip == "gate not scaled" else root)
    return {"logits": logits, "context": attended(logits, v)}
