"""Whether an error says that memory, or the threads it would take, ran out, in whichever words a library has for it."""

import errno

from lpe_eval.errors import LpeEvalError

_CLASS = "OutOfMemoryError"
"""Of torch; known by its name, because most commands never import torch."""
_WORDS = (
    *("allocate memory", "out of memory", "not enough memory", "memory allocation", "errormemoryallocation"),
    # Of cuBLAS, cuDNN, cuSOLVER, cuSPARSE, cuFFT and what AMD has in their place: by the name of their status. A handle
    # of cuBLAS that cannot be made lacks the memory for its workspace.
    *("alloc_failed", "alloc failed", "status_memory_error", "insufficient_resources", "memory_alloc_failure"),
    *("cublas_status_not_initialized when calling `cublascreate", "hipblas_status_not_initialized"),
    *("cudnn_status_not_initialized", "resource_exhausted", "unable to allocate", "failed to allocate"),
    *("allocation_failed", "allocfailed", "out_of_device_memory", "out_of_host_memory"),
    # Of Apple's and Intel's GPUs.
    *("insufficient memory", "ur_result_error_out_of_resources", "pi_error_out_of_resources"),
    # Of C++, of the loader of libraries, of Python's threads and of those of C++.
    *("bad_alloc", "failed to map segment", "can't start new thread", "resource temporarily unavailable"),
)

SENTENCE = (
    "not enough memory; what was finished is kept, and the same command goes on from there with more memory, a higher "
    "limit (ulimit -v, ulimit -u), a smaller model or shorter text"
)
"""What is said where nobody nearer to it knows more."""


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` is lack of memory, of the host or of a device."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    named = any(each.__name__ == _CLASS for each in type(error).__mro__)
    if named or any(word in str(error).lower() for word in _WORDS):
        return True
    # Somebody's module may say it in words of its own; a sentence of ours has said already what it means.
    cause = error.__cause__
    return cause is not None and not isinstance(error, LpeEvalError) and out_of_memory(cause)
