"""Lack of memory is recognised whoever ran out of it, and nothing else is taken for it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lpe_eval.errors import CheckpointError
from lpe_eval.out_of_memory import out_of_memory
from lpe_eval.spec.che_spec import read_protocol

LIMIT = 4_500_000 << 10
"""Bytes of address space: enough to start, and not for what is asked below."""
LARGEST = 1 << 55
"""Numbers that no machine holds."""


def raised(make) -> BaseException:
    with pytest.raises((RuntimeError, MemoryError)) as found:
        make()
    return found.value


def test_what_libraries_raise_when_memory_runs_out_is_recognised():
    assert out_of_memory(raised(lambda: torch.empty(LARGEST)))
    assert out_of_memory(raised(lambda: np.empty(LARGEST)))
    assert out_of_memory(raised(lambda: bytearray(LARGEST)))
    assert out_of_memory(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))


@pytest.mark.parametrize(
    "told",
    [
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
        "to allocate 4398046511104 bytes.",
        "[enforce fail] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasLtMatmul( ltHandle, ...)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "CUDA error: CUSPARSE_STATUS_INSUFFICIENT_RESOURCES when calling `cusparseCreate(handle)`",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
        "rocblas_status_memory_error",
        "MPS backend out of memory (MPS allocated: 8.00 GB)",
        "cudaErrorMemoryAllocation",
        "CUDA error: out of memory",
        "CUDA out of memory. Tried to allocate 20.00 MiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasSgemm( handle, ...)`",
        "CUDA driver error: out of memory",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "HIP out of memory. Tried to allocate 2.00 GiB.",
        "HIP error: out of memory",
        "miopenStatusAllocFailed",
        "XPU out of memory. Tried to allocate 2.00 GiB.",
        "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
        "Native API failed. Native API returns: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)",
        "Triton Error [CUDA]: out of memory",
        "Error: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
    ],
)
def test_what_is_only_told_in_words_is_recognised(told: str):
    assert out_of_memory(RuntimeError(told))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        ValueError("memory must be positive"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasGemmEx(handle)`"),
        RuntimeError("out of resource: shared memory, Required: 131072, Hardware limit: 101376"),
        CheckpointError("model.safetensors is damaged"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    ],
)
def test_other_errors_are_not_taken_for_it(error: BaseException):
    assert not out_of_memory(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (["train", "--encoding", "alibi", "--steps", "2", "--batch-tokens", "4096000"], 1),
        (["che", "--train", "--encoding", "rope", "--tasks", "even_pairs", "--protocol", "huge.yaml"], 4),
        (["ppl", "-m", "alibi", "--lengths", "64", "--max-tokens", "200000", "--batch-size", "100000"], 0),
    ],
)
def test_memory_that_ends_in_the_middle_ends_a_command_in_a_sentence(asked: list[str], code: int, tmp_path: Path):
    resource = pytest.importorskip("resource")
    (tmp_path / "huge.yaml").write_text(_protocol_of_huge_batches(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "lpe_eval", *asked, "--device", "cpu", "--out", "out", "-q"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT)),
        capture_output=True,
        text=True,
        check=False,
    )
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == code and "Traceback" not in said, said
    assert code == 0 or "memory" in said, said


def _protocol_of_huge_batches() -> str:
    return yaml.safe_dump({**read_protocol("smoke").model_dump(mode="json"), "name": "huge", "batch": 4_000_000})


def test_what_is_said_in_other_words_is_known_by_its_cause():
    try:
        raise RuntimeError("the kernel did not start") from torch.OutOfMemoryError("no more")
    except RuntimeError as error:
        assert out_of_memory(error)
    told = CheckpointError("it does not fit; use another --device")
    told.__cause__ = MemoryError()
    assert not out_of_memory(told)
