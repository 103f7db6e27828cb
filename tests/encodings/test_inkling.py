"""Inkling's relative bias."""

from typing import Any

import torch

from lpe_eval.model.mask import Mask
from lpe_eval.model.scores import Scores
from tests.support.golden_cases import Case, check, each, has, tensor
from tests.support.golden_layers import check_layer, layered, made

NAMES = {"mixing.weight": "r_proj.weight", "by_distance": "rel_logits_proj.proj"}


def spec_of(case: Case) -> dict[str, Any]:
    found: dict[str, Any] = {"name": "inkling", "extent": case.fields["extent"], "rank": case.fields["d_rel"]}
    if "logits" in case.outputs:
        found["scale"] = "d"
    if "tau" in case.outputs:
        floor, strength = case.fields["log_scaling_n_floor"], case.fields["log_scaling_alpha"]
        found["temperature"] = {"floor": floor, "strength": strength}
    if "rel_l2_clip_threshold" in case.fields:
        found["clip"] = case.fields["rel_l2_clip_threshold"]
    return {**found, "projection_bias": "r_proj.bias" in case.params}


def names_of(case: Case) -> dict[str, str]:
    more = {"mixing.bias": "r_proj.bias", "clip_scale": "rel_l2_clip.scale"}
    return NAMES | {ours: theirs for ours, theirs in more.items() if theirs in case.params}


@each("inkling", has("bias"))
def test_the_bias_is_the_published_one(case: Case) -> None:
    inkling = made(case, spec_of(case), names_of(case))
    features = inkling.features(tensor(case.inputs["x"]))
    assert features is not None
    if "relative_states" in case.outputs:
        temperature = tensor(case.outputs["tau"])[:, None] if "tau" in case.outputs else 1.0
        check(case._replace(compare="all"), "relative_states", features * temperature)
    if "tau" in case.outputs:
        at = torch.arange(case.fields["q_len"])
        ones = torch.ones(1, 1, len(at), 1)
        scale = (case.head_dim or 1) ** -0.5 if spec_of(case).get("scale") == "d" else 1.0
        check(case._replace(compare="all"), "tau", inkling.rotate(ones, ones, at)[0].flatten() / scale)
    rows, keys = case.fields["q_len"], case.fields["k_len"]
    at, shape = torch.arange(keys), inkling.geometry
    batch = features.shape[0]
    q, k = torch.zeros(batch, shape.heads, rows, 1), torch.zeros(batch, shape.heads, keys, 1)
    visible = torch.ones(rows, keys, dtype=torch.bool).tril(keys - rows)
    logits = torch.zeros(batch, shape.heads, rows, keys)
    check(case, "bias", inkling.adjust(Scores(logits, None, q, k, visible, at[keys - rows :], at, features, None)))


@each("inkling", has("logits"))
def test_the_layer_is_the_published_one(case: Case) -> None:
    inkling = made(case, spec_of(case), names_of(case))
    check_layer(case, layered(inkling, case, Mask(window=case.fields["window"])))
