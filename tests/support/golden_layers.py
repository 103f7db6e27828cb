"""Whole attention of golden cases: queries, keys and values as they are given, an encoding, and what a query sees."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lpe_eval.model.attentions.dense import Dense
from lpe_eval.model.encoding import Encoding
from lpe_eval.model.mask import Mask
from lpe_eval.model.scores import Geometry, Scores
from lpe_eval.registry import ATTENTIONS
from tests.support.golden_cases import Case, check, tensor
from tests.support.official_parameters import build

CPU = torch.device("cpu")


class Layered(NamedTuple):
    """What a layer computes."""

    logits: Tensor
    context: Tensor


def shape_of(case: Case, train_length: int = 16) -> Geometry:
    """The geometry of a case, as wide as the input of its layer."""
    width = len(case.inputs["x"][0][0]) if "x" in case.inputs else (case.heads or 1) * (case.head_dim or 2)
    return Geometry(case.heads or 1, case.head_dim or 2, width, train_length)


def made(case: Case, spec: dict | str, parameters: dict[str, str] | None = None, train_length: int = 16) -> Encoding:
    """The encoding of a case, its parameters filled by our name and the official one."""
    encoding = build(spec, shape_of(case, train_length))
    own = dict(encoding.named_parameters())
    assert set(own) == set((parameters or {}).keys())
    with torch.no_grad():
        for name, official in (parameters or {}).items():
            own[name].copy_(tensor(case.params[official]).reshape(own[name].shape))
    return encoding


def heads_of(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each group's key head once for each of its queries."""
    q, k, v = (tensor(case.inputs[name]) for name in "qkv")
    repeats = q.shape[1] // k.shape[1]
    return q, k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)


def layered(encoding: Encoding, case: Case, mask: Mask | None = None, features: Tensor | None = None) -> Layered:
    """The logits, and the context that every path of the CPU agrees on."""
    q, k, v = heads_of(case)
    at, mask = torch.arange(k.shape[2]), mask or Mask()
    q, k = encoding.rotate(q, k, at)
    if features is None and "x" in case.inputs:
        features = encoding.features(tensor(case.inputs["x"]))
    everything = torch.ones(len(at), len(at), dtype=torch.bool).tril()
    scores = Scores(q @ k.mT * q.shape[-1] ** -0.5, encoding.bias(at, at), q, k, everything, at, at, features, features)
    context = Dense.attend(q, k, v, encoding, at, mask, features)
    with torch.no_grad():
        for name in ATTENTIONS.names():
            path = ATTENTIONS.load(name)
            if path.serves(encoding, CPU):
                torch.testing.assert_close(path.attend(q, k, v, encoding, at, mask, features), context)
    return Layered(encoding.adjust(scores).detach(), context.detach())


def check_layer(case: Case, found: Layered, prefix: str = "") -> None:
    """Logits and context are those of the case."""
    check(case, f"{prefix}logits", found.logits)
    check(case._replace(compare="all"), f"{prefix}context", found.context)


def normed(x: Tensor, eps: float) -> Tensor:
    """Root mean square norm without weights."""
    return nn.functional.rms_norm(x, x.shape[-1:], eps=eps)
