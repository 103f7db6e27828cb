"""Apple's MPS has no float64; a stand-in device shows every tensor of that type that would be made there.

| case | what | before | now |
|---|---|---|---|
| packaging 8, reports 25 | `--encoding sandwich --device mps` | TypeError: no float64 | computed on the CPU |
| packaging 8 | angles in float64 on MPS | TypeError | formed on the CPU, without whole turns |
| packaging 8 | `auto` | untold that it never takes MPS | told |
"""

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lpe_eval.cli.app import Device
from lpe_eval.measure.device import pick_device
from lpe_eval.model import gpu, rotary
from lpe_eval.model.encoding import Encoding, Scores
from lpe_eval.model.rotary import angles, inverse_frequencies
from tests.support.encoding_forms import SPECS, geometry
from tests.support.official_parameters import build
from tests.support.spelling import written

POOR = torch.device("lazy:0")
"""A device of torch that this machine lacks and that nothing else here uses."""


class NoFloat64(TorchDispatchMode):
    """Refuses what MPS refuses."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in tree_leaves(found):
            if isinstance(each, Tensor) and each.dtype == torch.float64 and each.device.type == POOR.type:
                raise TypeError(f"float64 is not supported on this device: {func}")
        return found


@pytest.fixture
def poor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_WITHOUT_FLOAT64", (*gpu._WITHOUT_FLOAT64, POOR.type))


def moved(encoding: Encoding) -> Encoding:
    """The encoding with parameters and buffers on the poor device; `nn.Module.to` cannot do that to stand-ins."""
    for module in encoding.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    there = tensor.detach().float().to(POOR)
                    held[name] = torch.nn.Parameter(there) if held is module._parameters else there
    return encoding


def seams(encoding: Encoding) -> dict[str, Callable[[], Any]]:
    shape, length = encoding.geometry, 12
    at = torch.arange(length, device=POOR)
    x = torch.zeros(1, length, shape.width, device=POOR)
    q = torch.zeros(1, shape.heads, length, shape.head_width, device=POOR)

    def adjusted() -> Tensor:
        visible = torch.ones(length, length, dtype=torch.bool, device=POOR).tril()
        of_both = encoding.features(x)
        return encoding.adjust(Scores(q @ q.mT, encoding.bias(at, at), q, q, visible, at, at, of_both, of_both))

    return {
        "embed": lambda: encoding.embed(x, at),
        "rotate": lambda: encoding.rotate(q, q, at),
        "bias_by_offset": lambda: encoding.bias_by_offset(torch.arange(1 - length, length, device=POOR)),
        "adjust": adjusted,
    }


LISTED = ("rope", "sinusoidal", "transformer_xl", "xpos")
"""What lists its frequencies, as numbers that a stand-in does not have; their type is tried below."""


@pytest.mark.usefixtures("poor")
@pytest.mark.parametrize(
    "spec",
    [each for each in SPECS if not any(name in written(each) for name in LISTED) and not each.get("rope")],
    ids=written,
)
def test_an_encoding_needs_no_float64_where_the_model_is(spec: dict[str, Any]):
    built = build(spec, geometry())
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        encoding = moved(built)
        with NoFloat64():
            for name, seam in seams(encoding).items():
                found = tree_leaves(seam())
                for each in found:
                    assert each is None or each.device.type == POOR.type, name


@pytest.mark.usefixtures("poor")
@pytest.mark.parametrize("spec", [{"name": "rope"}, {"name": "sinusoidal"}], ids=["rope", "sinusoidal"])
def test_angles_in_float64_are_formed_elsewhere(spec: dict[str, Any]):
    spec = {**spec, "angle_dtype": "float64"}
    with FakeTensorMode(allow_non_fake_inputs=True), NoFloat64(), torch.no_grad():
        for name in ("embed", "rotate"):
            found = seams(build(spec, geometry()))[name]()
            assert all(each.dtype == torch.float32 and each.device.type == POOR.type for each in tree_leaves(found))


def test_the_stand_in_refuses_what_the_device_would():
    with FakeTensorMode(), NoFloat64(), pytest.raises(TypeError, match="float64 is not supported"):
        torch.zeros(3, device=POOR).double()


def test_angles_without_whole_turns_have_the_same_sines(monkeypatch: pytest.MonkeyPatch):
    at, inverse = torch.tensor([0, 1, 511, 100_003, 2_000_001]), inverse_frequencies(16, 10000.0)
    exact = at.double()[:, None] * inverse
    monkeypatch.setattr(rotary, "device_of_float64", lambda device: torch.device("meta"))
    found = angles(at, inverse, "float64")
    assert found.dtype == torch.float32
    for of_circle in (torch.sin, torch.cos):
        torch.testing.assert_close(of_circle(found.double()), of_circle(exact), rtol=0, atol=5e-7)


def test_auto_never_takes_another_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto").type == "cpu"
    assert "auto takes CUDA where there is one, else the CPU" in str(get_args(Device)[1].help)
