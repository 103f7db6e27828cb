"""T5's relative bias."""

import torch

from lpe_eval.model.encodings.t5 import T5
from tests.support.golden_cases import Case, each, has
from tests.support.golden_outputs import check_all, geometry_of
from tests.support.official_parameters import build, fill, geometry


@each("t5", has("bucket"))
def test_t5_has_the_published_buckets(case: Case) -> None:
    options = T5.Options(buckets=case.params["num_buckets"], max_distance=case.params["max_distance"])
    shape = geometry(4, causal=case.direction == "causal")
    bucket = T5(shape, options).bucket(torch.tensor(case.inputs["distance_i_minus_j"]))
    assert bucket.tolist() == case.outputs["bucket"]


@each("t5", has("bias", "bias_by_distance"))
def test_t5_has_the_published_bias(case: Case) -> None:
    raw = case.params["scale"] == 1.0
    shape = geometry_of(case, head_width=round(case.params["scale"] ** 2))
    check_all(case, fill(build("t5", shape, scale="none" if raw else "sqrt_head_width"), case.params))
