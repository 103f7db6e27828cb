"""Makes the CPU build of PyTorch believe in a CUDA device, for the rest of the process.

What is pretended is only what the compilers ask: how many devices there are, their compute capability and how much
fast memory they have. Nothing can be launched. It patches PyTorch's insides, so it fits the versions of
constraints.txt and may need a line for others.
"""

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

FAST_MEMORY = {75: 65536, 80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448}
"""Bytes of shared memory that one program may have, by compute capability (CUDA C++ Programming Guide, table 30)."""
PROCESSORS = {75: 40, 80: 108, 86: 82, 89: 128, 90: 132, 100: 148}
CARDS = {"RTX 4090": 89, "H100": 90, "T4": 75}


def stub(folder: Path) -> Path:
    """The compiled `stub.cpp`."""
    home, library = Path(torch.__file__).parent, folder / "stub.so"
    if not library.exists():
        include = [f"-I{home / 'include'}", f"-I{home / 'include/torch/csrc/api/include'}"]
        links = [f"-L{home / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{home / 'lib'}"]
        source = str(Path(__file__).with_name("stub.cpp"))
        compiler = os.environ.get("CXX", "g++")
        command = [compiler, "-shared", "-fPIC", "-O0", "-std=c++20", *include, source, "-o", str(library), *links]
        subprocess.run(command, check=True)
    return library


def pretend(capability: int) -> None:
    """From now on there is one card of this compute capability: 89 is 8.9."""
    place = Path(tempfile.mkdtemp(prefix=f"pretended-{capability}-"))
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        os.environ.setdefault(name, str(place / name))
    os.environ.update(TORCHINDUCTOR_FORCE_DISABLE_CACHES="1", TORCHINDUCTOR_COMPILE_THREADS="1")
    ctypes.CDLL(str(stub(place)), mode=ctypes.RTLD_GLOBAL)
    _pretend_to_torch(capability)
    _pretend_to_triton(capability)
    _pretend_to_inductor()


def _pretend_to_torch(capability: int) -> None:
    major, minor = divmod(capability, 10)
    memory = FAST_MEMORY[capability]
    facts = SimpleNamespace(
        name=f"pretended {major}.{minor}", major=major, minor=minor, total_memory=80 << 30, warp_size=32,
        multi_processor_count=PROCESSORS[capability], regs_per_multiprocessor=65536, max_threads_per_block=1024,
        max_threads_per_multi_processor=2048, shared_memory_per_block_optin=memory, shared_memory_per_block=49152,
        shared_memory_per_multiprocessor=memory + 1024, L2_cache_size=50 << 20, gcnArchName="", is_integrated=0,
        is_multi_gpu_board=0,
    )  # fmt: skip
    cuda: Any = torch.cuda
    answers = {
        "is_available": True, "device_count": 1, "current_device": 0, "_lazy_init": None, "is_initialized": True,
        "get_device_capability": (major, minor), "get_device_properties": facts, "get_device_name": facts.name,
        "synchronize": None, "is_bf16_supported": capability >= 80, "_exchange_device": 0,
        "_maybe_exchange_device": 0, "set_rng_state": None,
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(cuda, name, lambda *_, answer=answer, **__: answer)
    cuda.get_rng_state = lambda *_, **__: torch.zeros(16, dtype=torch.uint8)
    cuda.random.get_rng_state, cuda.random.set_rng_state = cuda.get_rng_state, cuda.set_rng_state
    inside: Any = torch._C
    zeros = ("getDevice", "exchangeDevice", "maybeExchangeDevice", "isInBadFork", "getCurrentRawStream", "setDevice")
    for name in zeros:
        setattr(inside, f"_cuda_{name}", lambda *_: 0)
    inside._cuda_getDeviceCount = lambda: 1
    version: Any = torch.version
    version.cuda = "12.8"
    from torch._dynamo.device_interface import CudaInterface

    interface: Any = CudaInterface
    told = {
        "is_available": True, "current_device": 0, "device_count": 1, "get_device_properties": facts,
        "get_compute_capability": capability, "get_raw_stream": 0, "is_triton_capable": True,
        "raise_if_triton_unavailable": None,
    }  # fmt: skip
    for name, answer in told.items():
        setattr(interface, name, staticmethod(lambda *_, answer=answer, **__: answer))
    for name in ("get_device_properties", "current_device"):
        setattr(interface.Worker, name, staticmethod(lambda *_, answer=told[name], **__: answer))


def _pretend_to_triton(capability: int) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    class Driver:
        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", capability, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int = 0) -> int:
            return 0

        def get_active_torch_device(self) -> torch.device:
            return torch.device("cuda", 0)

        def is_active(self) -> bool:
            return True

    driver.set_active(Driver())  # pyright: ignore[reportArgumentType]


def _pretend_to_inductor() -> None:
    import sys

    import torch._higher_order_ops.flex_attention
    import torch._inductor.fx_passes.joint_graph as joint
    import torch._inductor.fx_passes.post_grad as after
    import torch._subclasses.fake_tensor as fake

    fake.init_gpu_context = lambda *_, **__: None
    for part in (joint, after):
        inside: Any = part
        inside.lazy_init = lambda *_, **__: None
    joint.constant_fold_uniform_value = lambda gm: None  # pyright: ignore[reportAttributeAccessIssue]
    operator: Any = sys.modules["torch._higher_order_ops.flex_attention"]

    def permuted(out: torch.Tensor, strides: tuple[int, ...]) -> torch.Tensor:
        from torch._inductor.ir import get_fill_order

        order = list(get_fill_order(strides))
        last = len(out.shape) - 1
        order = [last, *(each for each in order if each != last)]
        return out.new_empty_strided(out.shape, operator._construct_strides(out.shape, order))

    operator._permute_strides = permuted
