"""Devices and types that a user leaves open, and cards that are there and cannot compute."""

import pytest
import torch

from lpe_eval.errors import SpecError
from lpe_eval.measure import device as device_module
from lpe_eval.measure.device import dtype_name, pick_device, refuse_unable, slow_products
from lpe_eval.model import gpu

CUDA = torch.device("cuda")


@pytest.mark.parametrize(("native", "wanted"), [(True, "bfloat16"), (False, "float32")])
def test_bfloat16_is_taken_where_a_card_computes_in_it(native: bool, wanted: str, monkeypatch: pytest.MonkeyPatch):
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert dtype_name("auto", CUDA) == wanted
    assert dtype_name("float16", CUDA) == "float16"
    assert dtype_name("auto", torch.device("cpu")) == "float32"


def test_a_device_that_cannot_add_is_refused_with_a_sentence():
    # What a build without a device's code raises at the first kernel, as CPU builds do at the first tensor.
    with pytest.raises(SpecError, match=r"^--device auto: the device cuda cannot compute here .*use --device cpu$"):
        refuse_unable(CUDA, "auto")
    refuse_unable(torch.device("cpu"), "cpu")


def test_a_card_whose_memory_others_hold_is_said_to_be_full(monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(device_module.torch, "ones", full)
    with pytest.raises(SpecError, match="out of memory"):
        refuse_unable(CUDA, "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:1", "meta", "nothing"])
def test_what_is_not_there_is_refused(name: str):
    with pytest.raises(SpecError, match=f"--device {name}: no such device"):
        pick_device(name)


@pytest.mark.parametrize(
    ("version", "hip", "capability", "served"),
    [
        ("3.3.1", None, (8, 0), True),
        ("3.6.0", None, (9, 0), True),
        ("3.2.0", None, (9, 0), False),
        ("3.6.0", None, (7, 5), False),
        ("3.6.0", "6.4.0", (9, 0), False),
    ],
)
def test_triton_is_used_where_it_was_compiled_ahead_of_time(
    version: str, hip: str | None, capability: tuple[int, int], served: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gpu, "find_spec", lambda name: object())
    monkeypatch.setattr(gpu.metadata, "version", lambda name: version)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    gpu.triton_version.cache_clear()
    try:
        assert gpu.has_triton(CUDA) is served
        assert not gpu.has_triton(torch.device("xpu"))
    finally:
        gpu.triton_version.cache_clear()


@pytest.mark.parametrize(("instructions", "slow"), [("AVX2", True), ("NO AVX", True), ("AVX512", False)])
def test_a_processor_that_emulates_bfloat16_says_so(instructions: str, slow: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    told = slow_products("bfloat16", torch.device("cpu"))
    assert (told is not None) == slow
    assert told is None or told.endswith("set compute_dtype: float32")
    assert slow_products("float32", torch.device("cpu")) is None
    assert slow_products("bfloat16", CUDA) is None
