"""What came with features, sinks and windows trains: gradients on every path, in float32 and with bfloat16 products."""

import pytest
import torch
from torch.nn import functional as F

from lpe_eval.model.transformer import Transformer
from lpe_eval.spec.model_spec import ModelSpec

SCHEDULES = [
    "fox",
    "fox[gate=per_head, decay_times=[2, 8]]",
    "cable",
    "inkling[extent=9]",
    "path[forget_gate=true]",
    "stick_breaking",
    "stick_breaking[rest=dropped]",
    "tempered(rope)[rule=ssmax]",
    "sinks(fox)",
    "p_rope",
    "rope[window=5],none",
]


def gradients(schedule: str, attention: str, autocast: bool = False) -> dict[str, torch.Tensor]:
    shape = {"width": 16, "layers": 2, "heads": 2, "mlp_width": 24, "vocab_size": 11, "train_length": 16}
    model = Transformer(ModelSpec.model_validate({"encoding": schedule, **shape}), attention)
    model.initialise(torch.Generator().manual_seed(1))
    tokens = torch.randint(0, 11, (2, 21), generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model.logits(model(tokens[:, :-1], torch.Generator()))
    F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten()).backward()
    found = {name: each.grad for name, each in model.named_parameters()}
    assert all(each is not None for each in found.values())
    return {name: each for name, each in found.items() if each is not None}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("attention", ["auto", "blocked", "checkpointed"])
def test_a_model_has_the_gradients_of_the_oracle(schedule: str, attention: str) -> None:
    wanted = gradients(schedule, "dense")
    for name, found in gradients(schedule, attention).items():
        scale = max(1e-3, float(wanted[name].abs().max()))
        torch.testing.assert_close(found / scale, wanted[name] / scale, rtol=1e-3, atol=1e-3, msg=name)
        assert float(found.abs().max()) > 0 or "by_distance" in name, name


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_with_products_in_bfloat16_gradients_are_near_those_in_float32(schedule: str) -> None:
    wanted, found = gradients(schedule, "auto"), gradients(schedule, "auto", autocast=True)
    every = [torch.cat([each.flatten() for each in some.values()]) for some in (found, wanted)]
    assert bool(every[0].isfinite().all())
    assert float((every[0] - every[1]).norm() / every[1].norm()) < 0.05
